/** Runtimes that are a program with files: Node, Deno, Bun. */

import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Report } from './suite.ts'

const MAIN = `
import { readFile } from 'node:fs/promises'
import { readInputs, runSuite } from './suite.js'
const startMs = performance.now()
const library = await import('mamba-wasm')
const importMs = performance.now() - startMs
const { timesMs, ...report } = await runSuite(library, await readInputs((path) => readFile(path)))
console.log(JSON.stringify({ ...report, timesMs: { import: importMs, ...timesMs } }))
`

/** Runs the suite of the project in `folder`. A process that does not end by itself fails, too: something of the library kept it alive. */
export async function runProcess(folder: string, command: string, args: readonly string[] = []): Promise<Report> {
  await writeFile(join(folder, 'main.js'), MAIN)
  const { stdout } = await promisify(execFile)(command, [...args, 'main.js'], { cwd: folder, timeout: 90_000 })
  return JSON.parse(stdout) as Report
}
