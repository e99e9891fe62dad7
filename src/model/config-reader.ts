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
  const fail = (key: string, expected: string, value: JsonValue | undefined): never => {
    throw new CheckpointError({ place: `${place}: ${key}`, expected, got: value === undefined ? 'nothing' : describe(value) })
  }
  const isAbsent = (value: JsonValue | undefined): value is null | undefined => value === undefined || value === null
  return {
    place,
    has: (key) => !isAbsent(config[key]),
    raw: (key) => config[key],
    size(key, { fallback, limit = 'dimension', least = 1 } = {}) {
      const value = config[key]
      if (isAbsent(value) && fallback !== undefined) return fallback
      if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > LIMITS[limit]) {
        return fail(key, `an integer from ${least} to ${LIMITS[limit]}`, value)
      }
      return value
    },
    number(key, fallback) {
      const value = config[key]
      if (isAbsent(value)) return fallback
      return typeof value === 'number' && Number.isFinite(value) ? value : fail(key, 'a finite number', value)
    },
    numbers(key, fallback) {
      const value = config[key]
      if (isAbsent(value)) return fallback
      const numbers = (Array.isArray(value) ? value : []).filter((item): item is number => typeof item === 'number' && Number.isFinite(item))
      return Array.isArray(value) && numbers.length === value.length && numbers.length === fallback.length ? numbers : fail(key, `${fallback.length} finite numbers`, value)
    },
    positive(key, fallback) {
      const value = config[key]
      if (isAbsent(value)) return fallback
      return typeof value === 'number' && Number.isFinite(value) && value > 0 ? value : fail(key, 'a finite number above 0', value)
    },
    flag(key, fallback) {
      const value = config[key]
      if (isAbsent(value)) return fallback
      return typeof value === 'boolean' ? value : fail(key, 'true or false', value)
    },
    text(key, fallback) {
      const value = config[key]
      if (isAbsent(value)) return fallback
      return typeof value === 'string' ? value : fail(key, 'a string', value)
    },
    nested(key) {
      const value = config[key]
      if (isAbsent(value)) return createConfigReader({}, `${place}: ${key}`)
      if (typeof value !== 'object' || Array.isArray(value)) return fail(key, 'an object', value)
      return createConfigReader(value as JsonObject, `${place}: ${key}`)
    },
    none(key) {
      const value = config[key]
      if (isAbsent(value) || (Array.isArray(value) && value.length === 0)) return
      throw new UnsupportedError({ place: `${place}: ${key}`, expected: 'nothing or an empty list', got: describe(value) })
    },
    only(key, expected) {
      const value = config[key]
      if (isAbsent(value) || value === expected) return
      throw new UnsupportedError({ place: `${place}: ${key}`, expected: describe(expected), got: describe(value) })
    }
  }
}

/** Whether a config is in the form of the original repository, mamba_ssm, not in transformers'. */
export function isOriginal(reader: ConfigReader): boolean {
  return !reader.has('model_type') && reader.has('d_model')
}
