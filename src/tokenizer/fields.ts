/** Reading tokenizer files, which are JSON of anyone's making: a value of the right type, or a CheckpointError that says where. */
import { CheckpointError, describe } from '../errors.ts'

export type Fields = { readonly [key: string]: unknown }

export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function asFields(value: unknown, place: string): Fields {
  if (!isFields(value)) throw new CheckpointError({ place, expected: 'an object', got: describe(value) })
  return value
}

/** An array; [] when it is null or missing. */
export function asList(value: unknown, place: string): readonly unknown[] {
  if (value === null || value === undefined) return []
  if (!Array.isArray(value)) throw new CheckpointError({ place, expected: 'an array', got: describe(value) })
  return value
}

export function asString(value: unknown, place: string): string {
  if (typeof value !== 'string') throw new CheckpointError({ place, expected: 'a string', got: describe(value) })
  return value
}

/** A count or a token id: small enough for an array index in any runtime. */
export function isIndex(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 2 ** 24
}

export function asIndex(value: unknown, place: string): number {
  if (!isIndex(value)) {
    throw new CheckpointError({ place, expected: 'an integer from 0 to 2^24 - 1', got: describe(value) })
  }
  return value
}
