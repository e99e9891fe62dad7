/** Runs the program as a user does: a process of its own, here without a terminal. */

import { type ChildProcess, spawn, type SpawnOptions } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { afterAll } from 'vitest'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))
export const PROGRAM = [process.execPath, '--conditions=source', join(ROOT, 'src/cli/main.ts')] as const
export const EMBEDDED_MODEL = join(ROOT, 'models/classics-8m')
/** A tokenizer of bytes. */
const BYTE_TOKENIZER = join(ROOT, 'test/models/classics-8m')
export const ALICE = join(ROOT, 'test/fixtures/alice.txt')

/** A start from TypeScript takes 0.4 s of a core, with the cache 0.12 s. */
const COMPILE_CACHE = join(tmpdir(), 'mamba-wasm-compile-cache')

export interface Result {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly input?: string | Buffer
  readonly env?: Readonly<Record<string, string>>
}

/** Without what a developer's own environment may hold: colours, tokens, a debug switch. */
function cleanEnv(env: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const { PATH, HOME } = process.env
  return { PATH, HOME, TERM: 'xterm', NODE_COMPILE_CACHE: COMPILE_CACHE, ...env }
}

export function start(args: readonly string[], { env }: RunOptions = {}, options: SpawnOptions = {}): ChildProcess {
  return spawn(PROGRAM[0], [...PROGRAM.slice(1), ...args], { cwd: ROOT, env: cleanEnv(env), ...options })
}

/** The whole of a run. */
export async function runCli(args: readonly string[], options: RunOptions = {}): Promise<Result> {
  const child = start(args, options)
  child.stdin?.end(options.input ?? '')
  return resultOf(child)
}

export async function resultOf(child: ChildProcess): Promise<Result> {
  const code = new Promise<number | null>((resolve) => child.once('close', resolve))
  const [stdout, stderr] = await Promise.all([child.stdout, child.stderr].map(async (stream) => (stream === null ? '' : text(stream))))
  return { code: await code, stdout, stderr }
}

/** On a pseudo-terminal, by util-linux's `script`: standard input, output and error are one. `input` stays open, for keys. */
export function startOnTerminal(args: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
  const command = [...PROGRAM, ...args].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ')
  return spawn('script', ['-qec', `stty cols 100; exec ${command}`, '/dev/null'], { cwd: ROOT, env: cleanEnv(env) })
}

const folders: string[] = []
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true })
})

/** Removed after the tests of the file. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'mamba-wasm-cli-'))
  folders.push(folder)
  return folder
}

/** A small model that understands text: the weights of a fixture, whose vocabulary has 160 ids, with the tokenizer of bytes. */
export function tinyModel(changes: Readonly<Record<string, string | Uint8Array>> = {}): string {
  const folder = temporaryFolder()
  for (const name of ['config.json', 'model.safetensors']) cpSync(join(ROOT, 'test/fixtures/models/mamba', name), join(folder, name))
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) cpSync(join(BYTE_TOKENIZER, name), join(folder, name))
  for (const [name, bytes] of Object.entries(changes)) writeFileSync(join(folder, name), bytes)
  return folder
}
