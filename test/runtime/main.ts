/**
 * The suite (suite.ts) on the packed package in every runtime. Prints a line for each check, and at the end `N passed, N failed, N skipped`;
 * exit code 1 if one failed. `npm run test:runtimes [NAME…]`: those alone whose names begin so.
 */

import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type BrowserRun, runBrowser } from './browsers.ts'
import { runEdge } from './edge.ts'
import { runEdgeLight } from './edge-light.ts'
import { makeDocs } from './docs.ts'
import { runEndedWorkers } from './ended-workers.ts'
import { EXAMPLES } from './examples.ts'
import { program } from './installs.ts'
import { runFromWeb } from './jsr.ts'
import { DENO_ENV, runCompiled, runProcess, runWithGpu } from './processes.ts'
import { makeProject } from './project.ts'
import { measureSizes } from './sizes.ts'
import { measureStartup } from './startup.ts'
import type { Report } from './suite.ts'
import { runWebExample } from './web-example.ts'

const folder = await mkdtemp(join(tmpdir(), 'mamba-wasm-runtimes-'))

const PAGES: readonly BrowserRun[] = [
  { browser: 'chromium', bundler: 'esbuild', isIsolated: true, isWorker: true, hasGpu: true },
  { browser: 'chromium', bundler: 'esbuild', isIsolated: true, isWorker: false },
  { browser: 'chromium', bundler: 'esbuild', isIsolated: false, isWorker: false },
  { browser: 'chromium', bundler: 'vite', isIsolated: true, isWorker: true },
  { browser: 'chromium', bundler: 'vite', isIsolated: false, isWorker: true, hasGpu: true },
  { browser: 'chromium', bundler: 'rolldown', isIsolated: true, isWorker: true },
  { browser: 'chromium', bundler: 'webpack', isIsolated: true, isWorker: true },
  { browser: 'firefox-esr', bundler: 'vite', isIsolated: true, isWorker: true },
  { browser: 'firefox-esr', bundler: 'esbuild', isIsolated: false, isWorker: false }
]

function nameOf({ browser, bundler, isIsolated, isWorker, hasGpu }: BrowserRun): string {
  return `${browser} (${bundler}, ${isIsolated ? 'isolated' : 'not isolated'}, ${isWorker ? 'worker' : 'main thread'}${hasGpu ? ', GPU' : ''})`
}

const DENO = {
  args: ['run', '--allow-read', '--allow-env', '--allow-sys', '--allow-net'],
  lacks: {}, env: DENO_ENV
}

const RUNTIMES: Readonly<Record<string, () => Promise<Report>>> = {
  'node-20': async () => runProcess(folder, await program('node20', 'node')),
  'node-22': async () => runProcess(folder, await program('node22', 'node')),
  // This project's own.
  'node-24': async () => runProcess(folder, process.execPath),
  'node-26': async () => runProcess(folder, await program('node26', 'node')),
  'node-24 with webgpu': () => runWithGpu(folder, process.execPath),
  deno: async () => runProcess(folder, await program('deno', 'deno'), DENO),
  'deno, as from JSR': () => runFromWeb(folder),
  bun: async () => runProcess(folder, await program('bun', 'bun'), { args: ['run'] }),
  'bun with webgpu': async () => runWithGpu(folder, await program('bun', 'bun'), ['run']),
  'bun build --compile': async () => runCompiled(folder, await program('bun', 'bun')),
  workerd: () => runEdge(folder),
  'edge-light': () => runEdgeLight(folder, { wasm: false }),
  'edge-light, with a compiler': () => runEdgeLight(folder, { wasm: true }),
  'chromium, examples/web': () => runWebExample(folder),
  'chromium, workers that end': () => runEndedWorkers(folder),
  ...Object.fromEntries(PAGES.map((run) => [nameOf(run), () => runBrowser(folder, run)]))
}

const counts = { ok: 0, failed: 0, skipped: 0 }
const texts = new Map<string, string[]>()

function report(runtime: string, { outcomes, text, reason, timesMs }: Report): void {
  const times = Object.entries(timesMs).map(([name, ms]) => `${name} ${ms.toFixed(1)} ms`)
  console.log(`== ${runtime}: ${reason}; ${times.join(', ')}`)
  for (const { name, verdict, detail } of outcomes) count(verdict, `${runtime}: ${name}: ${detail}`)
  texts.set(text, [...(texts.get(text) ?? []), runtime])
}

function count(verdict: keyof typeof counts, line: string): void {
  counts[verdict]++
  console.log(`${verdict.padEnd(7)} ${line}`)
}

async function check(name: string, task: () => Promise<string>): Promise<void> {
  try {
    count('ok', `${name}: ${await task()}`)
  } catch (error) {
    count('failed', `${name}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

async function lint(name: string, args: readonly string[]): Promise<void> {
  try {
    await promisify(execFile)(await program('tools', name), args)
    count('ok', `${name} reports nothing`)
  } catch (error) {
    // Its findings are on stdout, with exit code 1.
    count('failed', `${name}: ${error instanceof Error ? error.message : String(error)}\n${(error as { stdout?: string }).stdout ?? ''}`)
  }
}

try {
  const { tarball } = await makeProject(folder)
  await lint('publint', ['run', '--strict', tarball])
  await lint('attw', [tarball, '--profile', 'esm-only', '--exclude-entrypoints', './wasm/*.wasm'])
  await check('the API reference', () => makeDocs(join(folder, 'docs')))
  const { lines, excess } = await measureSizes(folder)
  for (const line of lines) console.log(`        ${line}`)
  if (excess.length === 0) count('ok', 'sizes')
  for (const line of excess) count('failed', line)
  const startup = await measureStartup(folder)
  console.log(`        ${startup.line}`)
  if (startup.excess.length === 0) count('ok', 'startup')
  for (const line of startup.excess) count('failed', line)
  const wanted = process.argv.slice(2)
  const isWanted = (name: string): boolean => wanted.length === 0 || wanted.some((prefix) => name.startsWith(prefix))
  for (const [name, runExample] of Object.entries(EXAMPLES)) {
    if (isWanted(name)) await check(name, () => runExample(folder))
  }
  for (const [runtime, runSuite] of Object.entries(RUNTIMES)) {
    if (!isWanted(runtime)) continue
    try {
      report(runtime, await runSuite())
    } catch (error) {
      count('failed', `${runtime}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  if (texts.size === 0 && wanted.length > 0) console.log('        no runtime was asked for')
  else if (texts.size === 1) count('ok', `the same text in ${[...texts.values()][0].length} runtimes`)
  else count('failed', `different texts: ${JSON.stringify([...texts])}`)
} finally {
  await rm(folder, { recursive: true, force: true })
}
console.log(`${counts.ok} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
process.exitCode = counts.failed > 0 ? 1 : 0
