/** What a command of the program is: its options, its help text, and what it does. */

import { describeOptions, describeRows, type OptionTable, parseOptions, UsageError, type Values, wrap } from './options.ts'
import type { Terminal } from './terminal.ts'

/** What the program gives to a command. */
export interface Context {
  readonly terminal: Terminal
  /** Aborts on Ctrl-C, on SIGTERM and when nobody reads the output any more. */
  readonly signal: AbortSignal
  readonly env: Readonly<Record<string, string | undefined>>
  /** From now on Ctrl-C asks this first: true is for one that has been dealt with, and the program goes on. */
  onInterrupt(handler: () => boolean): void
}

export interface CommandSpec<Table extends OptionTable> {
  readonly name: string
  /** One line, for the list of commands. */
  readonly summary: string
  /** Paragraphs of the command's own help. */
  readonly details: readonly string[]
  readonly operand: { readonly name: string; readonly help: string; readonly isRequired: boolean }
  readonly options: Table
  /** Command lines and what they do. */
  readonly examples: readonly (readonly [string, string])[]
  run(context: Context, values: Values<Table>, operand: string | undefined): Promise<void>
}

export interface Command {
  readonly name: string
  readonly summary: string
  /** Throws a UsageError for arguments that it cannot make sense of, before any work. */
  run(context: Context, args: readonly string[]): Promise<void>
}

const COMMON_OPTIONS = {
  debug: { kind: 'flag', help: 'show where an error came from; so does DEBUG=1' },
  help: { kind: 'flag', short: 'h', help: 'show this text' }
} as const satisfies OptionTable

export function defineCommand<const Table extends OptionTable>(spec: CommandSpec<Table>): Command {
  const table = { ...spec.options, ...COMMON_OPTIONS }
  return {
    name: spec.name,
    summary: spec.summary,
    async run(context, args) {
      const { values, operands } = parseOptions(table, args)
      if (values.help) return context.terminal.print(describeCommand(spec, table))
      const [operand] = operands
      const { name, isRequired } = spec.operand
      if (operands.length > 1) throw new UsageError(`expected one ${name}, got ${operands.length}: a text with spaces needs quotes around it`)
      if (isRequired && operand === undefined) throw new UsageError(`expected a ${name}, got none`)
      await spec.run(context, values, operand)
    }
  }
}

function describeCommand(spec: CommandSpec<OptionTable>, table: OptionTable): string {
  const { name, help, isRequired } = spec.operand
  return [
    `Usage: mamba-wasm ${spec.name} [OPTIONS] ${isRequired ? name : `[${name}]`}`,
    ...[spec.summary, ...spec.details].map((text) => wrap(text).join('\n')),
    describeRows([[name, help]]),
    `Options:\n${describeOptions(table)}`,
    `Examples:\n${describeExamples(spec.examples)}\n`
  ].join('\n\n')
}

/** Each with its purpose above it, as a shell comment: lines to be copied. */
export function describeExamples(examples: readonly (readonly [string, string])[]): string {
  return examples.map(([line, purpose]) => `  # ${purpose}\n  ${line}`).join('\n')
}
