/**
 * Workers that end without a word, in Chromium: what waits for them must learn of it. A worker that closes itself looks to the page as one that the
 * browser ended; a thread that is stopped in the middle of its work, by the debugger's means, as one that stays away.
 */

import { cp, mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { bundle } from './bundle.ts'
import { ENGINE_ENTRIES } from './pages.ts'
import { type Browser, launchChromium, type Page } from './playwright.ts'
import { serveSite } from './site.ts'
import { OPTIONS, type Outcome, PROMPT, type Report } from './suite.ts'

/** At a barrier a thread is waited for that long, and a second or two more on a busy machine. */
const BARRIER_LIMIT_MS = 35_000
/** Of what is told at once. */
const SOON_MS = 5000

const PAGE = `
import { loadInWorker } from 'mamba-wasm/worker'
const outcomeOf = async (promise) => {
  const startMs = performance.now()
  const message = await promise.then(() => 'no error', (error) => error.name + ': ' + error.message)
  return { message, ms: performance.now() - startMs }
}
const endless = { maxTokens: 1e6, ignoreEos: true }
let waiting
Object.assign(globalThis, {
  endless,
  outcomeOf,
  async load(options) {
    globalThis.mamba = await loadInWorker(undefined, options)
  },
  begin() {
    const pieces = mamba.generate('Once', endless)
    waiting = [mamba.complete('Once', endless), pieces.next().then(async () => { for await (const _ of pieces); }), mamba.session().append('Once '.repeat(100_000))].map(outcomeOf)
  },
  waitingOutcomes: () => Promise.all(waiting),
  nextOutcome: () => outcomeOf(mamba.complete('Once', { maxTokens: 3 })),
  disposeOutcome: () => outcomeOf(mamba.dispose())
})
`

interface Ending {
  readonly message: string
  readonly ms: number
}

export async function runEndedWorkers(folder: string): Promise<Report> {
  const browser = await launchChromium()
  const site = await serveSite(await buildPage(folder), { isIsolated: true })
  try {
    const page = await (await browser.newContext()).newPage()
    const open = async (options: object): Promise<void> => {
      await page.goto(`${site.address}/index.html`)
      await page.waitForFunction('globalThis.load !== undefined')
      await page.evaluate(`load(${JSON.stringify(options)})`)
    }
    const outcomes: Outcome[] = []
    const check = async (name: string, task: () => Promise<string>): Promise<void> => {
      try {
        outcomes.push({ name, verdict: 'ok', detail: await task() })
      } catch (error) {
        outcomes.push({ name, verdict: 'failed', detail: error instanceof Error ? error.message : String(error) })
      }
    }
    await open({})
    const text = await page.evaluate<string>(`mamba.complete(${JSON.stringify(PROMPT)}, ${JSON.stringify(OPTIONS)}).then(({ text }) => text)`)
    await check('an engine that ends while it is waited for, by its lock', () => endEngine(page))
    await page.addInitScript("Object.defineProperty(navigator, 'locks', { value: undefined })")
    await check('and where there are no locks, by its silence', async () => {
      await open({ silenceLimitMs: 2000 })
      return endEngine(page)
    })
    await check('an engine at work may take longer than it may say nothing', async () => {
      await open({ silenceLimitMs: 3000 })
      const work = await page.evaluate<Ending>("outcomeOf(mamba.complete('Once', { ...endless, signal: AbortSignal.timeout(8000) }))")
      expectEnding(work, /^TimeoutError: /, 8000 + SOON_MS)
      expectEnding(await page.evaluate<Ending>('nextOutcome()'), /^no error$/, SOON_MS)
      return `${work.ms.toFixed(0)} ms`
    })
    await check('a thread that stays away', async () => {
      await open({ threads: 2 })
      return stopThread(browser, page)
    })
    return { outcomes, text, reason: 'workers that are ended', timesMs: {} }
  } finally {
    await browser.close()
    await site.close()
  }
}

async function buildPage(folder: string): Promise<string> {
  const site = join(folder, 'ended-workers')
  await rm(site, { recursive: true, force: true })
  await mkdir(site)
  await writeFile(join(folder, 'ended-workers.js'), PAGE)
  await bundle(folder, { entryPoints: ['ended-workers.js', ...ENGINE_ENTRIES], entryNames: '[name]', outdir: join(site, 'dist', 'src', 'platform'), splitting: true })
  for (const part of ['dist/wasm', 'models']) await cp(join(folder, 'node_modules', 'mamba-wasm', part), join(site, part), { recursive: true })
  await writeFile(join(site, 'index.html'), '<!doctype html><title>workers</title><script type="module" src="dist/src/platform/ended-workers.js"></script>')
  return site
}

/** Every call under way is rejected, and every later one. */
async function endEngine(page: Page): Promise<string> {
  await page.evaluate('begin()')
  await page.waitForTimeout(500)
  await page.workers().find((worker) => worker.url().includes('web-engine'))?.evaluate('close()')
  const endings = await page.evaluate<Ending[]>('waitingOutcomes()')
  const next = await page.evaluate<Ending>('nextOutcome()')
  for (const ending of [...endings, next]) expectEnding(ending, /^EngineError: worker: expected an engine at work, got a worker that /, SOON_MS)
  return `${next.message}; ${endings.map(({ ms }) => ms.toFixed(0)).join(', ')} ms`
}

async function stopThread(browser: Browser, page: Page): Promise<string> {
  await page.evaluate('begin()')
  const devtools = await browser.newBrowserCDPSession()
  const { targetInfos } = await devtools.send<{ targetInfos: { targetId: string; url: string }[] }>('Target.getTargets', { filter: [{}] })
  const threads = targetInfos.filter(({ url }) => url.endsWith('web-worker.js'))
  for (const { targetId } of threads) {
    const { sessionId } = await devtools.send<{ sessionId: string }>('Target.attachToTarget', { targetId, flatten: false })
    await devtools.send('Target.sendMessageToTarget', { sessionId, message: JSON.stringify({ id: 1, method: 'Runtime.terminateExecution' }) })
  }
  const endings = await page.evaluate<Ending[]>('waitingOutcomes()')
  const next = await page.evaluate<Ending>('nextOutcome()')
  for (const ending of [...endings, next]) expectEnding(ending, /^EngineError: wasm thread/, BARRIER_LIMIT_MS)
  expectEnding(await page.evaluate<Ending>('disposeOutcome()'), /^no error$/, 2 * SOON_MS)
  return `${next.message}; ${endings.map(({ ms }) => ms.toFixed(0)).join(', ')} ms`
}

function expectEnding({ message, ms }: Ending, expected: RegExp, limitMs: number): void {
  if (!expected.test(message) || ms > limitMs) throw new Error(`expected ${expected} within ${limitMs} ms, got ${message} after ${ms.toFixed(0)}`)
}
