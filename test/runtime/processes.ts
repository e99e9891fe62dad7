/** Runtimes that are a program with files: Node, Deno, Bun; and a program made by Bun. */

import { execFile } from 'node:child_process'
import { cp, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
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

/** Deno has a GPU of its own: Mesa's software one. */
export const DENO_ENV = { VK_ICD_FILENAMES: '/usr/share/vulkan/icd.d/lvp_icd.x86_64.json' }

/** Where the package that gives Node and Bun a GPU is not installed. */
const NO_PACKAGE: Lacks = { webgpu: 'the optional package webgpu is not installed' }

export interface ProcessOptions {
  readonly args?: readonly string[]
  readonly lacks?: Lacks
  readonly env?: Readonly<Record<string, string>>
}

/** Runs the suite of the project in `folder`. A process that does not end by itself fails, too: something of the library kept it alive. */
export async function runProcess(folder: string, command: string, { args = [], lacks = NO_PACKAGE, env = {} }: ProcessOptions = {}): Promise<Report> {
  await writeFile(join(folder, 'main.js'), MAIN)
  return runProgram(folder, command, { args: [...args, 'main.js', JSON.stringify(lacks)], env })
}

/** With the package webgpu beside this one, on Chromium's software adapter. */
export async function runWithGpu(folder: string, command: string, args: readonly string[] = []): Promise<Report> {
  const link = join(folder, 'node_modules', 'webgpu')
  await symlink(dirname(createRequire(import.meta.url).resolve('webgpu/package.json')), link)
  try {
    return await runProcess(folder, command, { args, lacks: {}, env: { VK_ICD_FILENAMES: '/usr/lib/chromium/vk_swiftshader_icd.json' } })
  } finally {
    await rm(link)
  }
}

/** The suite as one program by `bun build --compile`, which runs without the package. */
export async function runCompiled(folder: string, bun: string): Promise<Report> {
  await writeFile(join(folder, 'main.js'), MAIN)
  const elsewhere = await mkdtemp(join(tmpdir(), 'mamba-wasm-compiled-'))
  try {
    const compiled = join(elsewhere, 'suite')
    await run(bun, ['build', '--compile', 'main.js', '--outfile', compiled], { cwd: folder })
    await cp(join(folder, 'inputs'), join(elsewhere, 'inputs'), { recursive: true })
    const lacks: Lacks = { threads: 'the worker’s script is no part of a compiled program', worker: 'nor is the engine’s', ...NO_PACKAGE }
    return await runProgram(elsewhere, compiled, { args: [JSON.stringify(lacks)] })
  } finally {
    await rm(elsewhere, { recursive: true, force: true })
  }
}

async function runProgram(folder: string, command: string, { args, env = {} }: { readonly args: readonly string[]; readonly env?: ProcessOptions['env'] }): Promise<Report> {
  const { stdout } = await run(command, args, { cwd: folder, timeout: 90_000, env: { ...process.env, ...env } })
  return JSON.parse(stdout) as Report
}
