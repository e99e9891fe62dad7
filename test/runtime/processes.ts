/** Runtimes that are a program with files: Node, Deno, Bun; and a program made by Bun. */

import { execFile } from 'node:child_process'
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Lacks, Report } from './suite.ts'

const run = promisify(execFile)

const MAIN = `
import { readFile } from 'node:fs/promises'
import { readInputs, runSuite } from './suite.js'
const startMs = performance.now()
const core = await import('mamba-wasm')
const importMs = performance.now() - startMs
const library = { ...core, ...(await import('mamba-wasm/worker')) }
const { timesMs, ...report } = await runSuite(library, await readInputs((path) => readFile(path)), JSON.parse(process.argv[2]))
console.log(JSON.stringify({ ...report, timesMs: { import: importMs, ...timesMs } }))
`

/** Runs the suite of the project in `folder`. A process that does not end by itself fails, too: something of the library kept it alive. */
export async function runProcess(folder: string, command: string, args: readonly string[] = [], lacks: Lacks = {}): Promise<Report> {
  await writeFile(join(folder, 'main.js'), MAIN)
  return runProgram(folder, command, [...args, 'main.js', JSON.stringify(lacks)])
}

/** The suite as one program by `bun build --compile`, which runs without the package. */
export async function runCompiled(folder: string, bun: string): Promise<Report> {
  await writeFile(join(folder, 'main.js'), MAIN)
  const elsewhere = await mkdtemp(join(tmpdir(), 'mamba-wasm-compiled-'))
  try {
    const compiled = join(elsewhere, 'suite')
    await run(bun, ['build', '--compile', 'main.js', '--outfile', compiled], { cwd: folder })
    await cp(join(folder, 'inputs'), join(elsewhere, 'inputs'), { recursive: true })
    const lacks: Lacks = { threads: 'the worker’s script is no part of a compiled program', worker: 'nor is the engine’s' }
    return await runProgram(elsewhere, compiled, [JSON.stringify(lacks)])
  } finally {
    await rm(elsewhere, { recursive: true, force: true })
  }
}

async function runProgram(folder: string, command: string, args: readonly string[]): Promise<Report> {
  const { stdout } = await run(command, args, { cwd: folder, timeout: 90_000 })
  return JSON.parse(stdout) as Report
}
