#!/usr/bin/env node
/**
 * The program `mamba-wasm`: finds the command, and sees to how it ends.
 *
 * Exit codes: 0 done, also when the reader of the output left early (`| head`); 1 failed; 2 not understood;
 * 130 on Ctrl-C (SIGINT), 143 on SIGTERM, as shells have it.
 */

import { readFile } from 'node:fs/promises'
import { inspect } from 'node:util'
import { expectObject, expectString, parseJson } from '../checkpoint/json.ts'
import { benchCommand } from './bench-command.ts'
import { chatCommand } from './chat-command.ts'
import { type Command, describeExamples } from './command.ts'
import { convertCommand } from './convert-command.ts'
import { digestCommand } from './digest-command.ts'
import { generateCommand } from './generate-command.ts'
import { inspectCommand } from './inspect-command.ts'
import { describeRows, UsageError } from './options.ts'
import { scoreCommand } from './score-command.ts'
import { createTerminal } from './terminal.ts'

const COMMANDS: readonly Command[] = [generateCommand, chatCommand, scoreCommand, inspectCommand, convertCommand, benchCommand, digestCommand]

const HELP = `Usage: mamba-wasm COMMAND [OPTIONS]

Selective state space models (Mamba) on any CPU that runs WebAssembly.

Commands:
${describeRows(COMMANDS.map(({ name, summary }) => [name, summary]))}

Options:
${describeRows([['-h, --help', "show this text; after a command, the command's"], ['    --version', 'show the version']])}

Examples:
${describeExamples([
  ['mamba-wasm generate "Once upon a time"', 'continue a text with the embedded model'],
  ['mamba-wasm chat tiiuae/falcon-mamba-7b-instruct', 'talk with a model that was trained for it'],
  ['mamba-wasm score alice.txt', 'bits per byte and perplexity of a text'],
  ['mamba-wasm inspect ./my-model', 'what a checkpoint holds'],
  ['mamba-wasm convert ./my-model -o my-model.gguf', 'in 8 bits, for this program and for llama.cpp'],
  ['mamba-wasm bench --profile', 'how fast a model runs here, and where the time goes'],
  ['mamba-wasm digest', 'one number for all results: the same everywhere']
])}
`

/** For an aborted command to close its files and to keep what it downloaded. After it, whatever still runs ends. */
const GRACE_MS = 30

const abort = new AbortController()
const terminal = createTerminal({ out: process.stdout, err: process.stderr, env: process.env })

function stop(exitCode: number): void {
  // Asked for twice: at once.
  if (abort.signal.aborted) process.exit()
  process.exitCode = exitCode
  terminal.close()
  abort.abort()
  setTimeout(() => process.exit(), GRACE_MS)
}

let interruptHandler = (): boolean => false
process.on('SIGINT', () => {
  if (abort.signal.aborted || !interruptHandler()) stop(130)
})
process.on('SIGTERM', () => stop(143))
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') terminal.note(`mamba-wasm: standard output: ${error.message}`)
  stop(error.code === 'EPIPE' ? 0 : 1)
})
// Nobody reads the figures and the bar: the text may still be wanted.
process.stderr.on('error', () => {})

async function run([name, ...args]: readonly string[]): Promise<void> {
  if (name === undefined) throw new UsageError(`expected a command: ${commandNames()}`)
  if (name === '--help' || name === '-h') return terminal.print(HELP)
  if (name === '--version') return terminal.print(`${await packageVersion()}\n`)
  const command = COMMANDS.find((candidate) => candidate.name === name)
  if (command === undefined) throw new UsageError(`expected a command (${commandNames()}), got ${JSON.stringify(name)}`)
  const onInterrupt = (handler: () => boolean): void => {
    interruptHandler = handler
  }
  await command.run({ terminal, signal: abort.signal, env: process.env, onInterrupt }, args)
}

function commandNames(): string {
  return COMMANDS.map(({ name }) => name).join(', ')
}

/** This module runs from src/cli in the repository and from dist/src/cli in the package. */
async function packageVersion(): Promise<string> {
  const path = import.meta.url.endsWith('.ts') ? '../../package.json' : '../../../package.json'
  const manifest = parseJson(await readFile(new URL(path, import.meta.url), 'utf8'), 'package.json')
  return expectString(expectObject(manifest, 'package.json')['version'], 'package.json: version')
}

function reportError(error: unknown, args: readonly string[]): number {
  const wantsTrace = args.includes('--debug') || Boolean(process.env['DEBUG'])
  const message = error instanceof Error ? error.message : String(error)
  terminal.endLine()
  terminal.note(`mamba-wasm: ${wantsTrace ? inspect(error) : message}`)
  if (error instanceof UsageError) {
    const command = COMMANDS.find(({ name }) => name === args[0])
    terminal.note(`See: mamba-wasm ${command === undefined ? '' : `${command.name} `}--help`)
    return 2
  }
  return 1
}

const args = process.argv.slice(2)
try {
  await run(args)
} catch (error) {
  // Whatever an aborted command throws, the reason is the signal.
  if (!abort.signal.aborted) process.exitCode = reportError(error, args)
}
// A stopped program does not wait for timers and sockets.
if (abort.signal.aborted) process.exit()
