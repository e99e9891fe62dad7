/** For a model that wasm's 4 GiB do not hold: what would fit. */

import { KEY_BLOCK } from '../../../assembly/abi.ts'
import { messageOf } from '../../errors.ts'
import type { Program } from '../../program/ops.ts'
import type { Capacity } from '../backend.ts'
import { createMemoryMap, type MapOptions, MAX_BYTES } from './memory-map.ts'
import type { FormatOf } from './packing.ts'

/** The error, with the bytes needed and the format of weights that would fit. */
export function tooLarge(program: Program, capacity: Capacity, options: MapOptions): RangeError {
  const bytesOf = (changed: Partial<MapOptions>): number => createMemoryMap(program, capacity, { ...options, ...changed }).bytes.total
  const smaller = (['bf16', 'q8_0', 'q4_0'] as const).find((dtype) => {
    const formatOf: FormatOf = (parameter) => (parameter.isSensitive ? options.formatOf(parameter) : dtype)
    return bytesOf({ formatOf }) <= MAX_BYTES
  })
  const advice = smaller === undefined ? adviceOfContext(program, capacity, options) : `with dtype '${smaller}' it would fit`
  return new RangeError(messageOf({ place: 'wasm memory', expected: `at most ${MAX_BYTES} bytes`, got: `a model that needs ${bytesOf({})}; ${advice}` }))
}

/** Where no dtype is small enough: what the keys and values would have to be. */
function adviceOfContext(program: Program, capacity: Capacity, options: MapOptions): string {
  const bytesOf = (contextLength: number): number => createMemoryMap(program, { ...capacity, contextLength }, options).bytes.total
  const least = bytesOf(KEY_BLOCK)
  if (program.keyValues.length === 0 || least > MAX_BYTES) return 'in no dtype it would fit'
  const perToken = (bytesOf(capacity.contextLength) - least) / (capacity.contextLength - KEY_BLOCK)
  return `with contextLength ${Math.floor((MAX_BYTES - least) / perToken / KEY_BLOCK) * KEY_BLOCK} it would fit`
}
