/**
 * A strict JSON parser for headers and configs that nobody vouches for.
 * Beside JSON.parse: a duplicate key is an error (two readers of one file must not see two models), `__proto__` is an ordinary key,
 * nesting is limited, errors say the offset, and the bare `Infinity`, `-Infinity` and `NaN` of Python's json are read.
 * Time is linear in the text.
 */
import { CheckpointError, describe } from '../errors.ts'

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject

/** An object without a prototype: `in`, `Object.keys` and `for … in` see the file's keys alone. */
export interface JsonObject {
  readonly [key: string]: JsonValue | undefined
}

/** Real headers nest three deep, real configs five. */
const MAX_DEPTH = 64

interface Reader {
  readonly text: string
  readonly place: string
  offset: number
}

/**
 * The value that `text` holds, and nothing but it. `place` names the text in messages.
 * Throws a CheckpointError with the offset (in UTF-16 units) of what was wrong.
 */
export function parseJson(text: string, place: string): JsonValue {
  const reader: Reader = { text, place, offset: 0 }
  const value = readValue(reader, 0)
  skipSpace(reader)
  if (reader.offset < text.length) fail(reader, 'the end of the text')
  return value
}

export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** `value` as an object, or a CheckpointError. */
export function expectObject(value: JsonValue | undefined, place: string): JsonObject {
  if (isJsonObject(value)) return value
  throw new CheckpointError({ place, expected: 'an object', got: describe(value) })
}

/** `value` as a string, or a CheckpointError. */
export function expectString(value: JsonValue | undefined, place: string): string {
  if (typeof value === 'string') return value
  throw new CheckpointError({ place, expected: 'a string', got: describe(value) })
}

/** `value` as an array of integers from 0 to 2^53 - 1, or a CheckpointError. */
export function expectNaturals(value: JsonValue | undefined, place: string): readonly number[] {
  if (Array.isArray(value) && value.every(isNatural)) return value
  throw new CheckpointError({ place, expected: 'an array of integers from 0 to 2^53 - 1', got: describe(value) })
}

function isNatural(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function readValue(reader: Reader, depth: number): JsonValue {
  skipSpace(reader)
  switch (reader.text[reader.offset]) {
    case '{':
      return readObject(reader, depth + 1)
    case '[':
      return readArray(reader, depth + 1)
    case '"':
      return readString(reader)
    default:
      return readWord(reader)
  }
}

function readObject(reader: Reader, depth: number): JsonObject {
  const object: Record<string, JsonValue> = Object.create(null)
  readItems(reader, depth, '}', () => {
    skipSpace(reader)
    const keyOffset = reader.offset
    if (reader.text[keyOffset] !== '"') fail(reader, 'a key in quotes')
    const key = readString(reader)
    if (key in object) {
      throw new CheckpointError({ place: `${reader.place}, offset ${keyOffset}`, expected: 'each key once', got: `${describe(key)} again` })
    }
    skipSpace(reader)
    if (!take(reader, ':')) fail(reader, '":"')
    object[key] = readValue(reader, depth)
  })
  return object
}

function readArray(reader: Reader, depth: number): readonly JsonValue[] {
  const values: JsonValue[] = []
  readItems(reader, depth, ']', () => values.push(readValue(reader, depth)))
  return values
}

/** What stands between the bracket at the offset and its closing one. */
function readItems(reader: Reader, depth: number, close: string, readItem: () => void): void {
  if (depth > MAX_DEPTH) fail(reader, `at most ${MAX_DEPTH} levels of nesting`)
  reader.offset++
  skipSpace(reader)
  if (take(reader, close)) return
  for (;;) {
    readItem()
    skipSpace(reader)
    if (take(reader, close)) return
    if (!take(reader, ',')) fail(reader, `"," or "${close}"`)
  }
}

const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ['\\', '\\'],
  ['/', '/'],
  ['b', '\b'],
  ['f', '\f'],
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t']
])

function readString(reader: Reader): string {
  const { text } = reader
  let value = ''
  let runStart = ++reader.offset
  for (;;) {
    const code = text.charCodeAt(reader.offset)
    if (code === 0x22) {
      value += text.slice(runStart, reader.offset++)
      return value
    }
    if (code === 0x5c) {
      value += text.slice(runStart, reader.offset) + readEscape(reader)
      runStart = reader.offset
    } else if (code >= 0x20) {
      reader.offset++
    } else {
      // A control character, or NaN at the end of the text.
      fail(reader, 'the rest of a string')
    }
  }
}

function readEscape(reader: Reader): string {
  const { text, offset } = reader
  const simple = ESCAPES.get(text[offset + 1] ?? '')
  if (simple !== undefined) {
    reader.offset += 2
    return simple
  }
  const digits = text.slice(offset + 2, offset + 6)
  if (text[offset + 1] !== 'u' || !/^[0-9a-fA-F]{4}$/.test(digits)) fail(reader, 'an escape that JSON has')
  reader.offset += 6
  return String.fromCharCode(Number.parseInt(digits, 16))
}

const WORDS: readonly (readonly [string, JsonValue])[] = [
  ['true', true],
  ['false', false],
  ['null', null],
  ['NaN', Number.NaN],
  ['Infinity', Number.POSITIVE_INFINITY],
  ['-Infinity', Number.NEGATIVE_INFINITY]
]

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y

/** A number or one of the bare words. */
function readWord(reader: Reader): JsonValue {
  const start = reader.offset
  NUMBER.lastIndex = start
  if (NUMBER.test(reader.text)) {
    reader.offset = NUMBER.lastIndex
    return Number(reader.text.slice(start, reader.offset))
  }
  for (const [word, value] of WORDS) {
    if (reader.text.startsWith(word, reader.offset)) {
      reader.offset += word.length
      return value
    }
  }
  return fail(reader, 'a value')
}

function skipSpace(reader: Reader): void {
  for (;;) {
    const code = reader.text.charCodeAt(reader.offset)
    if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return
    reader.offset++
  }
}

function take(reader: Reader, character: string): boolean {
  if (reader.text[reader.offset] !== character) return false
  reader.offset++
  return true
}

function fail(reader: Reader, expected: string): never {
  const { text, place, offset } = reader
  const got = offset < text.length ? describe(text.slice(offset, offset + 20)) : 'the end of the text'
  throw new CheckpointError({ place: `${place}, offset ${offset}`, expected, got })
}
