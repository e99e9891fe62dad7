/** Typed access to a GGUF file's metadata; every failure names the file and the key. And values made for writing. */
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
  texts(key: string): readonly string[]
  /** An array of integers, of whatever type. */
  integers(key: string): readonly number[]
  /** An array of finite float32 or float64. */
  floats(key: string): readonly number[]
  /** A natural number for each layer, from an array of as many or from one number for all. */
  perLayer(key: string, nLayers: number): readonly number[]
}

/** `prefix` stands before every key that is asked for. */
export function createMetadataReader({ name, metadata }: MetadataSource, prefix = ''): MetadataReader {
  const keyOf = (key: string): string => prefix + key
  const valueOf = (key: string): GgufValue | undefined => metadata.get(keyOf(key))
  const placeOf = (key: string): string => `${name}, ${keyOf(key)}`
  const fail = (key: string, expected: string): never => {
    throw new CheckpointError({ place: placeOf(key), expected, got: describeValue(valueOf(key)) })
  }
  const reader: MetadataReader = {
    name,
    keyOf,
    placeOf,
    has: (key) => metadata.has(keyOf(key)),
    natural(key, fallback) {
      const value = valueOf(key)
      if (value === undefined && fallback !== undefined) return fallback
      const number = integerOf(value)
      return number !== undefined && number >= 0 ? number : fail(key, 'an integer from 0 to 2^53 - 1')
    },
    positive(key, fallback) {
      const value = valueOf(key)
      if (value === undefined && fallback !== undefined) return fallback
      const isFloat = value?.type === 'float32' || value?.type === 'float64'
      if (!isFloat || !Number.isFinite(value.value) || value.value <= 0) return fail(key, 'a finite float above 0')
      return value.type === 'float32' ? shortestFloat32(value.value) : value.value
    },
    flag(key, fallback) {
      const value = valueOf(key)
      if (value === undefined) return fallback
      return value.type === 'bool' ? value.value : fail(key, 'a bool')
    },
    text(key) {
      const value = valueOf(key)
      return value?.type === 'string' ? value.value : fail(key, 'a string')
    },
    texts(key) {
      const value = valueOf(key)
      return value?.type === 'array' && value.itemType === 'string' ? value.value : fail(key, 'an array of strings')
    },
    integers(key) {
      const value = valueOf(key)
      if (value?.type !== 'array' || value.itemType === 'string' || value.itemType === 'bool') return fail(key, 'an array of integers')
      const numbers = Array.from(value.value, Number)
      return numbers.every((number) => Number.isSafeInteger(number)) ? numbers : fail(key, 'an array of integers')
    },
    floats(key) {
      const value = valueOf(key)
      if (value?.type !== 'array' || (value.itemType !== 'float32' && value.itemType !== 'float64')) return fail(key, 'an array of floats')
      const numbers = Array.from(value.value, Number)
      return numbers.every(Number.isFinite) ? numbers : fail(key, 'an array of finite floats')
    },
    perLayer(key, nLayers) {
      if (valueOf(key)?.type !== 'array') {
        const number = reader.natural(key)
        return Array.from({ length: nLayers }, () => number)
      }
      const numbers = reader.integers(key)
      const isGood = numbers.length === nLayers && numbers.every((number) => number >= 0)
      return isGood ? numbers : fail(key, `a natural number for each of ${nLayers} layers`)
    }
  }
  return reader
}

function integerOf(value: GgufValue | undefined): number | undefined {
  if (value === undefined || (typeof value.value !== 'number' && typeof value.value !== 'bigint')) return undefined
  if (value.type === 'float32' || value.type === 'float64') return undefined
  const number = Number(value.value)
  return Number.isSafeInteger(number) ? number : undefined
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
