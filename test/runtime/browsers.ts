/**
 * Browsers, headless: a page bundled by esbuild runs the suite on its main thread or in a worker, and posts the report back. They are started as
 * programs with an address, so that Chromium and Firefox need no driver.
 */

import { spawn } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { bundle } from './bundle.ts'
import { serveSite } from './site.ts'
import type { Lacks, Report } from './suite.ts'

export interface BrowserRun {
  readonly browser: 'chromium' | 'firefox-esr'
  /** Whether the page gets the headers that give it shared memory. */
  readonly isIsolated: boolean
  /** Where the library runs: in a worker of the page, or on its main thread. */
  readonly isWorker: boolean
}

const RUN = `
import { readInputs, runSuite } from './suite.js'
export async function run(lacks) {
  const startMs = performance.now()
  const library = await import('mamba-wasm')
  const importMs = performance.now() - startMs
  const read = async (path) => new Uint8Array(await (await fetch(new URL('/' + path, location.origin))).arrayBuffer())
  const { timesMs, ...report } = await runSuite(library, await readInputs(read), lacks)
  return { ...report, timesMs: { import: importMs, ...timesMs } }
}
`

const PAGE = `
import { run } from './run.js'
const { isWorker, lacks } = JSON.parse(decodeURIComponent(location.hash.slice(1)))
const inWorker = () => new Promise((resolve, reject) => {
  const worker = new Worker(new URL('./app-worker.js', import.meta.url), { type: 'module' })
  worker.addEventListener('message', ({ data }) => data.report ? resolve(data.report) : reject(new Error(data.error)))
  worker.addEventListener('error', (event) => reject(new Error('worker: ' + event.message)))
  worker.postMessage(lacks)
})
const report = await (isWorker ? inWorker() : run(lacks)).catch((error) => ({ error: String(error?.stack ?? error) }))
await fetch('/report', { method: 'POST', body: JSON.stringify(report) })
`

const APP_WORKER = `
import { run } from './run.js'
addEventListener('message', async ({ data }) => {
  try {
    postMessage({ report: await run(data) })
  } catch (error) {
    postMessage({ error: String(error?.stack ?? error) })
  }
})
`

/**
 * A site of the project in `folder`, made once. esbuild leaves addresses as they are: the bundle stands to the package's files as the package's
 * own code does, and the core's worker is an entry of its own.
 */
async function makeSite(folder: string): Promise<string> {
  const site = join(folder, 'site')
  const scripts = join(site, 'dist', 'src', 'platform')
  if (!(await mkdir(site, { recursive: true }))) return site
  for (const [name, text] of Object.entries({ run: RUN, page: PAGE, 'app-worker': APP_WORKER })) await writeFile(join(folder, `${name}.js`), text)
  const entryPoints = ['page.js', 'app-worker.js', 'node_modules/mamba-wasm/dist/src/platform/web-worker.js']
  await bundle(folder, { entryPoints, entryNames: '[name]', outdir: scripts, splitting: true })
  for (const part of ['dist/wasm', 'models']) await cp(join(folder, 'node_modules', 'mamba-wasm', part), join(site, part), { recursive: true })
  await cp(join(folder, 'inputs'), join(site, 'inputs'), { recursive: true })
  await writeFile(join(site, 'index.html'), '<!doctype html><title>suite</title><script type="module" src="dist/src/platform/page.js"></script>')
  return site
}

export async function runBrowser(folder: string, run: BrowserRun): Promise<Report> {
  return openPage(await makeSite(folder), run)
}

/** Opens index.html of a site and waits for its report. */
export async function openPage(siteFolder: string, { browser, isIsolated, isWorker }: BrowserRun): Promise<Report> {
  const site = await serveSite(siteFolder, { isIsolated })
  const lacks: Lacks = isIsolated && isWorker ? {} : { threads: isIsolated ? 'a page’s main thread may not wait for others' : 'no shared memory without cross-origin isolation' }
  const profile = await mkdtemp(join(tmpdir(), 'mamba-wasm-profile-'))
  const address = `${site.address}/index.html#${encodeURIComponent(JSON.stringify({ isWorker, lacks }))}`
  const args = browser === 'chromium' ? [`--user-data-dir=${profile}`, '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', address] : ['--headless', '--no-remote', '--profile', profile, address]
  // In a group of its own: a browser is many processes.
  const child = spawn(browser, args, { stdio: 'ignore', detached: true })
  try {
    const ended = new Promise<never>((_, reject) => {
      child.once('error', reject)
      child.once('exit', (code) => reject(new Error(`${browser} ended with code ${code} before the page reported`)))
      setTimeout(() => reject(new Error(`${browser}: no report after 60 s`)), 60_000).unref()
    })
    const report = JSON.parse(await Promise.race([site.report, ended])) as Report & { readonly error?: string }
    if (report.error !== undefined) throw new Error(report.error)
    return report
  } finally {
    endGroup(child.pid)
    await site.close()
    await rm(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 })
  }
}

/** Ends a process with all that it started. */
function endGroup(pid: number | undefined): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // It has ended by itself.
  }
}
