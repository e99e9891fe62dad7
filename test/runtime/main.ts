/**
 * The suite (suite.ts) on the packed package in every runtime. Prints a line for each check, and at the end `N passed, N failed, N skipped`;
 * exit code 1 if one failed. `npm run test:runtimes [NAME…]`: those alone whose names begin so.
 */

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runBrowser } from './browsers.ts'
import { runEdge } from './edge.ts'
import { program } from './installs.ts'
import { runProcess } from './processes.ts'
import { makeProject } from './project.ts'
import type { Report } from './suite.ts'

const folder = await mkdtemp(join(tmpdir(), 'mamba-wasm-runtimes-'))

const RUNTIMES: Readonly<Record<string, () => Promise<Report>>> = {
  'node-20': async () => runProcess(folder, await program('node20', 'node')),
  'node-22': async () => runProcess(folder, await program('node22', 'node')),
  // This project's own.
  'node-24': async () => runProcess(folder, process.execPath),
  'node-26': async () => runProcess(folder, await program('node26', 'node')),
  deno: async () => runProcess(folder, await program('deno', 'deno'), ['run', '--allow-read', '--allow-env', '--allow-sys', '--allow-net']),
  bun: async () => runProcess(folder, await program('bun', 'bun'), ['run']),
  workerd: () => runEdge(folder),
  'chromium, isolated, in a worker': () => runBrowser(folder, { browser: 'chromium', isIsolated: true, isWorker: true }),
  'chromium, isolated, on the main thread': () => runBrowser(folder, { browser: 'chromium', isIsolated: true, isWorker: false }),
  'chromium, not isolated, in a worker': () => runBrowser(folder, { browser: 'chromium', isIsolated: false, isWorker: true }),
  'chromium, not isolated, on the main thread': () => runBrowser(folder, { browser: 'chromium', isIsolated: false, isWorker: false }),
  'firefox, isolated, in a worker': () => runBrowser(folder, { browser: 'firefox-esr', isIsolated: true, isWorker: true }),
  'firefox, not isolated, on the main thread': () => runBrowser(folder, { browser: 'firefox-esr', isIsolated: false, isWorker: false })
}

const counts = { ok: 0, failed: 0, skipped: 0 }
const texts = new Map<string, string[]>()

function report(runtime: string, { outcomes, text, reason, timesMs }: Report): void {
  const times = Object.entries(timesMs).map(([name, ms]) => `${name} ${ms.toFixed(1)} ms`)
  console.log(`== ${runtime}: ${reason}; ${times.join(', ')}`)
  for (const { name, verdict, detail } of outcomes) {
    counts[verdict]++
    console.log(`${verdict.padEnd(7)} ${runtime}: ${name}: ${detail}`)
  }
  texts.set(text, [...(texts.get(text) ?? []), runtime])
}

try {
  await makeProject(folder)
  const wanted = process.argv.slice(2)
  for (const [runtime, runSuite] of Object.entries(RUNTIMES)) {
    if (wanted.length > 0 && !wanted.some((prefix) => runtime.startsWith(prefix))) continue
    try {
      report(runtime, await runSuite())
    } catch (error) {
      counts.failed++
      console.log(`failed  ${runtime}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  if (texts.size === 1) counts.ok++
  else counts.failed++
  console.log(texts.size === 1 ? `ok      the same text in ${[...texts.values()][0].length} runtimes` : `failed  different texts: ${JSON.stringify([...texts])}`)
} finally {
  await rm(folder, { recursive: true, force: true })
}
console.log(`${counts.ok} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
process.exitCode = counts.failed > 0 ? 1 : 0
