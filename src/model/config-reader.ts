/** Typed access to a config.json. */

import type { JsonObject, JsonValue } from '../checkpoint/json.ts'
import { CheckpointError, describe, UnsupportedError } from '../errors.ts'

/** Larger than any model of the field by far; what exceeds it is damage, not size. */
const LIMITS = { dimension: 2 ** 20, vocabSize: 2 ** 24, layers: 4096, context: 2 ** 30, experts: 1024, choices: 64 }

/** Typed access to a config; every failure names the file and the key. */
export interface ConfigReader {
  readonly place: string
  has(key: string): boolean
  /** An integer from `least`, by default 1, to a limit; `fallback` where the key is absent or null, an error without one. */
  size(key: string, options?: { fallback?: number | undefined; limit?: keyof typeof LIMITS; least?: number }): number
  /** A finite number above zero. */
  positive(key: string, fallback: number): number
  /** A finite number. */
  number(key: string, fallback: number): number
  /** As many finite numbers as `fallback` has. */
  numbers(key: string, fallback: readonly number[]): readonly number[]
  flag(key: string, fallback: boolean): boolean
  text(key: string, fallback: string): string
  raw(key: string): JsonValue | undefined
  /** A nested object; empty where absent. */
  nested(key: string): ConfigReader
  /** Refuses a list with anything in it, and what is no list. */
  none(key: string): void
  /** Refuses every value but `expected`: `key` set to something else asks for what is not built. */
  only(key: string, expected: string | boolean | number): void
}

export function createConfigReader(config: JsonObject, place: string): ConfigReader {
  const placeOf = (key: string): string => `${place}: ${key}`
  const has = (key: string): boolean => (config[key] ?? null) !== null
  /** The value where `isExpected`, `fallback` where the key is absent or null. */
  const read = <T extends JsonValue>(key: string, expected: string, isExpected: (value: JsonValue | undefined) => value is T, fallback?: T): T => {
    const value = config[key]
    if (!has(key) && fallback !== undefined) return fallback
    if (isExpected(value)) return value
    throw new CheckpointError({ place: placeOf(key), expected, got: value === undefined ? 'nothing' : describe(value) })
  }
  const refuse = (key: string, expected: string): never => {
    throw new UnsupportedError({ place: placeOf(key), expected, got: describe(config[key]) })
  }
  return {
    place,
    has,
    raw: (key) => config[key],
    size(key, { fallback, limit = 'dimension', least = 1 } = {}) {
      const most = LIMITS[limit]
      return read(key, `an integer from ${least} to ${most}`, (value): value is number => isFinite(value) && Number.isInteger(value) && value >= least && value <= most, fallback)
    },
    number: (key, fallback) => read(key, 'a finite number', isFinite, fallback),
    numbers: (key, fallback) =>
      read(key, `${fallback.length} finite numbers`, (value): value is readonly number[] => isList(value) && value.length === fallback.length && value.every(isFinite), fallback),
    positive: (key, fallback) => read(key, 'a finite number above 0', (value): value is number => isFinite(value) && value > 0, fallback),
    flag: (key, fallback) => read(key, 'true or false', (value) => typeof value === 'boolean', fallback),
    text: (key, fallback) => read(key, 'a string', (value) => typeof value === 'string', fallback),
    nested: (key) => createConfigReader(read(key, 'an object', isObject, {}), placeOf(key)),
    none(key) {
      const value = config[key]
      if (has(key) && !(isList(value) && value.length === 0)) refuse(key, 'nothing or an empty list')
    },
    only(key, expected) {
      if (has(key) && config[key] !== expected) refuse(key, describe(expected))
    }
  }
}

function isFinite(value: JsonValue | undefined): value is number {
  return Number.isFinite(value)
}

function isList(value: JsonValue | undefined): value is readonly JsonValue[] {
  return Array.isArray(value)
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !isList(value)
}
