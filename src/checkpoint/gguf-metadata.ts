/** Typed access to a GGUF file's metadata (arrays: gguf-arrays.ts); every failure names the file and the key. And values made for writing. */
import { CheckpointError, describe } from '../errors.ts'
import type { GgufMetadata, GgufValue } from './gguf-types.ts'

/** What is asked of a header; `name` is the file's, for messages. */
export interface MetadataSource {
  readonly name: string
  readonly metadata: GgufMetadata
}

export interface MetadataReader {
  /** For messages: the file's name. */
  readonly name: string
  /** A key as the file has it: with the reader's prefix. */
  keyOf(key: string): string
  /** For messages: the file and the key. */
  placeOf(key: string): string
  has(key: string): boolean
  /** An integer from 0 to 2^53 - 1, of whatever type. Where the key is absent: `fallback`, or an error without one. */
  natural(key: string, fallback?: number): number
  /** A finite number above zero. A float32 as the shortest decimal that stands for it: 1e-5 and not 0.000009999999747378752. `fallback` as in `natural`. */
  positive(key: string, fallback?: number): number
  flag(key: string, fallback: boolean): boolean
  text(key: string): string
  /** Undefined where the key is absent. */
  typeOf(key: string): GgufValue['type'] | undefined
  /** Whatever else a value may be: `convert` gives undefined for what is not expected. `fallback` as in `natural`. */
  read<T>(key: string, expected: string, convert: (value: GgufValue) => T | undefined, fallback?: T): T
  fail(key: string, expected: string): never
}

/** `prefix` stands before every key that is asked for. */
export function createMetadataReader({ name, metadata }: MetadataSource, prefix = ''): MetadataReader {
  const keyOf = (key: string): string => prefix + key
  const valueOf = (key: string): GgufValue | undefined => metadata.get(keyOf(key))
  const placeOf = (key: string): string => `${name}, ${keyOf(key)}`
  const fail = (key: string, expected: string): never => {
    throw new CheckpointError({ place: placeOf(key), expected, got: describeValue(valueOf(key)) })
  }
  const read = <T>(key: string, expected: string, convert: (value: GgufValue) => T | undefined, fallback?: T): T => {
    const value = valueOf(key)
    if (value === undefined && fallback !== undefined) return fallback
    return (value && convert(value)) ?? fail(key, expected)
  }
  return {
    name,
    keyOf,
    placeOf,
    has: (key) => metadata.has(keyOf(key)),
    typeOf: (key) => valueOf(key)?.type,
    read,
    fail,
    natural: (key, fallback) => read(key, 'an integer from 0 to 2^53 - 1', naturalOf, fallback),
    positive: (key, fallback) => read(key, 'a finite float above 0', positiveOf, fallback),
    flag: (key, fallback) => read(key, 'a bool', (value) => (value.type === 'bool' ? value.value : undefined), fallback),
    text: (key) => read(key, 'a string', (value) => (value.type === 'string' ? value.value : undefined))
  }
}

export function isFloat(type: string): type is 'float32' | 'float64' {
  return type === 'float32' || type === 'float64'
}

function naturalOf({ type, value }: GgufValue): number | undefined {
  if (isFloat(type) || (typeof value !== 'number' && typeof value !== 'bigint')) return undefined
  const number = Number(value)
  return Number.isSafeInteger(number) && number >= 0 ? number : undefined
}

function positiveOf({ type, value }: GgufValue): number | undefined {
  if (!isFloat(type) || typeof value !== 'number' || !Number.isFinite(value) || value <= 0) return undefined
  return type === 'float32' ? shortestFloat32(value) : value
}

/** 9 digits tell every float32 apart; most that a human wrote need fewer. */
function shortestFloat32(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const candidate = Number(value.toPrecision(digits))
    if (Math.fround(candidate) === value) return candidate
  }
  return Number(value.toPrecision(9))
}

function describeValue(value: GgufValue | undefined): string {
  if (value === undefined) return 'nothing'
  return value.type === 'array' ? `an array of ${value.value.length} ${value.itemType}` : `${value.type} ${describe(value.value)}`
}

export function uint32Value(value: number): GgufValue {
  return { type: 'uint32', value }
}

export function uint32ArrayValue(values: readonly number[]): GgufValue {
  return { type: 'array', itemType: 'uint32', value: Uint32Array.from(values) }
}

export function float32Value(value: number): GgufValue {
  return { type: 'float32', value }
}

export function boolValue(value: boolean): GgufValue {
  return { type: 'bool', value }
}

export function textValue(value: string): GgufValue {
  return { type: 'string', value }
}
