/** wllama in Debian's Chromium, headless and isolated: a new browser with a new profile for each model. */

import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { chromium, type Page } from 'playwright-core'
import type { Engine, EngineOptions, LoadTimes, TaskTimes } from '../engine.ts'
import { processTree, usageOf } from '../process-tree.ts'
import { startStaticServer } from '../static-server.ts'

const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'
]

export const CHROMIUM_PATH = process.env.CHROMIUM_PATH ?? '/usr/bin/chromium'

export function hasChromium(): boolean {
  return existsSync(CHROMIUM_PATH)
}

/** Of ./wllama-page.js. */
type Method = 'load' | 'run' | 'top'

interface PeerWindow {
  readonly peer: Readonly<Record<Method, (argument: unknown) => Promise<unknown>>>
}

export async function startWllama({ path, threads, contextLength, first }: EngineOptions): Promise<Engine> {
  const url = `/models/${basename(path)}`
  const server = await startStaticServer(new Map([
    ['/page.js', fileURLToPath(new URL('./wllama-page.js', import.meta.url))],
    ['/wllama/', fileURLToPath(new URL('../node_modules/@wllama/wllama/esm/', import.meta.url))],
    [url, path]
  ]))
  const profile = mkdtempSync(join(tmpdir(), 'mamba-wasm-peers-chromium-'))
  const context = await chromium.launchPersistentContext(profile, { executablePath: CHROMIUM_PATH, args: FLAGS })
  const page = await context.newPage()
  // A prompt of 8192 tokens takes minutes.
  page.setDefaultTimeout(0)
  page.on('pageerror', (error) => console.error(`wllama: ${error.message}`))
  await page.goto(server.origin)
  await page.addScriptTag({ url: '/page.js', type: 'module' })
  await page.waitForFunction(() => 'peer' in globalThis)
  const pid = browserPid(profile)
  return {
    name: 'wllama',
    load: () => call<LoadTimes>(page, 'load', { url: server.origin + url, threads, contextLength, first }),
    run: (task) => call<TaskTimes>(page, 'run', task),
    top: (prompt) => call<number>(page, 'top', prompt),
    usage: () => usageOf(processTree(pid)),
    async close() {
      await context.close()
      await server.close()
      rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
    }
  }
}

function call<T>(page: Page, method: Method, argument: unknown): Promise<T> {
  return page.evaluate(([name, value]) => {
    const { peer } = globalThis as unknown as PeerWindow
    return peer[name](value)
  }, [method, argument] as const) as Promise<T>
}

/** The process that has this profile and no type: the others come from it. */
function browserPid(profile: string): number {
  for (const pid of processTree(process.pid)) {
    const commandLine = readCommandLine(pid)
    if (commandLine.includes(profile) && !commandLine.includes('--type=')) return pid
  }
  throw new Error('the process of Chromium was not found')
}

function readCommandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return ''
  }
}
