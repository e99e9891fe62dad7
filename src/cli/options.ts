/**
 * Options as tables. One table gives the parser its rules, a command its typed values and the user the help text,
 * so that these cannot drift apart.
 */

import { parseArgs } from 'node:util'
import { describe, messageOf } from '../errors.ts'

interface Described {
  readonly help: string
  /** One letter, for `-m` beside `--model`. */
  readonly short?: string
}

export interface FlagOption extends Described {
  readonly kind: 'flag'
}

/** 'texts' may be given several times. */
export interface TextOption extends Described {
  readonly kind: 'text' | 'texts'
  /** What stands for the value in the help text. */
  readonly value: string
}

export interface NumberOption extends Described {
  readonly kind: 'number' | 'integer'
  readonly value: string
  readonly min: number
  readonly max?: number
  readonly fallback?: number
}

export interface ChoiceOption extends Described {
  readonly kind: 'choice'
  readonly choices: readonly string[]
  readonly fallback: string
}

export type Option = FlagOption | TextOption | NumberOption | ChoiceOption

/** By long name, without the dashes. */
export type OptionTable = Readonly<Record<string, Option>>

type ValueOf<O extends Option> = O extends { kind: 'flag' } ? boolean
  : O extends { kind: 'texts' } ? readonly string[]
  : O extends { kind: 'choice'; choices: readonly (infer Choice)[] } ? Choice
  : O extends { kind: 'text' } ? string | undefined
  : O extends { fallback: number } ? number
  : number | undefined

export type Values<Table extends OptionTable> = { readonly [Name in keyof Table]: ValueOf<Table[Name]> }

/** A command line that does not say what to do: exit code 2 and a pointer to the help. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

export interface CommandLine<Table extends OptionTable> {
  readonly values: Values<Table>
  readonly operands: readonly string[]
}

/** Throws a UsageError for an unknown option, a missing value, and a value that is not of its kind. */
export function parseOptions<const Table extends OptionTable>(table: Table, args: readonly string[]): CommandLine<Table> {
  const { values, positionals } = splitArguments(table, args)
  const read = Object.fromEntries(Object.entries(table).map(([name, option]) => [name, readValue(`--${name}`, option, values[name])]))
  // Each value was read as its option's kind says.
  return { values: read as Values<Table>, operands: positionals }
}

type RawValue = string | boolean | readonly (string | boolean)[] | undefined

function splitArguments(table: OptionTable, args: readonly string[]): { values: Readonly<Record<string, RawValue>>; positionals: readonly string[] } {
  const options = Object.fromEntries(
    Object.entries(table).map(([name, { kind, short }]) => {
      const type: 'boolean' | 'string' = kind === 'flag' ? 'boolean' : 'string'
      return [name, { type, multiple: kind === 'texts', ...(short !== undefined && { short }) }]
    })
  )
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true })
  } catch (error) {
    if (error instanceof TypeError) throw new UsageError(error.message, { cause: error })
    throw error
  }
}

function readValue(place: string, option: Option, value: RawValue): unknown {
  switch (option.kind) {
    case 'flag': return value === true
    case 'text': return value
    case 'texts': return value ?? []
    case 'choice': return readChoice(place, option, value ?? option.fallback)
    default: return value === undefined ? option.fallback : readNumber(place, option, value)
  }
}

function readChoice(place: string, { choices }: ChoiceOption, value: RawValue): RawValue {
  if (typeof value === 'string' && choices.includes(value)) return value
  throw new UsageError(messageOf({ place, expected: `one of ${choices.join(', ')}`, got: describe(value) }))
}

function readNumber(place: string, { kind, min, max = Infinity }: NumberOption, value: RawValue): number {
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : NaN
  const isOfKind = kind === 'integer' ? Number.isSafeInteger(number) : Number.isFinite(number)
  if (isOfKind && number >= min && number <= max) return number
  const range = max === Infinity ? `${min} or more` : `from ${min} to ${max}`
  throw new UsageError(messageOf({ place, expected: `${kind === 'integer' ? 'an integer' : 'a number'}, ${range}`, got: describe(value) }))
}

/** The table as lines of help, e.g. `  -m, --model SOURCE   what it is (default: …)`. */
export function describeOptions(table: OptionTable): string {
  return describeRows(
    Object.entries(table).map(([name, option]) => {
      const short = option.short === undefined ? '    ' : `-${option.short}, `
      return [`${short}--${name}${valueText(option)}`, option.help + fallbackText(option)]
    })
  )
}

function valueText(option: Option): string {
  if (option.kind === 'flag') return ''
  return ` ${option.kind === 'choice' ? option.choices.join('|') : option.value}`
}

function fallbackText(option: Option): string {
  return 'fallback' in option && option.fallback !== undefined ? ` (default: ${option.fallback})` : ''
}

const HELP_COLUMNS = 80

/** Two columns, the second one wrapped. */
export function describeRows(rows: readonly (readonly [string, string])[]): string {
  const leftWidth = Math.max(...rows.map(([left]) => left.length)) + 4
  return rows
    .flatMap(([left, right]) => wrap(right, HELP_COLUMNS - leftWidth).map((line, i) => (i === 0 ? `  ${left}` : '').padEnd(leftWidth) + line))
    .join('\n')
}

/** Lines of at most `width` columns, broken between words. */
export function wrap(text: string, width = HELP_COLUMNS): readonly string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const line = lines.at(-1)
    if (line !== undefined && line.length + 1 + word.length <= width) lines[lines.length - 1] = `${line} ${word}`
    else lines.push(word)
  }
  return lines
}
