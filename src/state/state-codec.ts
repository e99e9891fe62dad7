/** States as bytes: exact, or in half or a quarter of the room, by the encoders that weights have. */

import { ENCODERS } from '../checkpoint/quantize.ts'
import { blockDecode } from '../checkpoint/gguf-blocks.ts'
import { DENSE_DECODERS, firstNonFiniteOf } from '../checkpoint/tensor-reader.ts'
import { CheckpointError, messageOf } from '../errors.ts'

/** 'f32' is exact, 'f16' rounds to halves, 'q8' to 8 bits with a scale for every 32 values (GGUF's Q8_0). */
export type StatePrecision = 'f32' | 'f16' | 'q8'

/** In the order of their numbers in the bytes. */
export const STATE_PRECISIONS: readonly StatePrecision[] = ['f32', 'f16', 'q8']

const TYPES = { f32: 'F32', f16: 'F16', q8: 'Q8_0' } as const

export function encodedStateBytes(nElements: number, precision: StatePrecision): number {
  const { blockElements, blockBytes } = ENCODERS[TYPES[precision]]
  return Math.ceil(nElements / blockElements) * blockBytes
}

/** Writes `state` to `out`, which starts at a multiple of 4 in its buffer. RangeError for a value that the precision cannot hold. */
export function encodeState(state: Float32Array, precision: StatePrecision, out: Uint8Array): void {
  const { blockElements, encode } = ENCODERS[TYPES[precision]]
  const index = encode(wholeBlocks(state, blockElements), out)
  if (index >= 0) throw new RangeError(messageOf({ place: `state, element ${index}`, expected: `a number within the range of ${precision}`, got: String(state[index]) }))
}

/** The `nElements` of a state. CheckpointError for a value that is no finite number. */
export function decodeState(bytes: Uint8Array, nElements: number, { precision, place }: { readonly precision: StatePrecision; readonly place: string }): Float32Array {
  const { blockElements } = ENCODERS[TYPES[precision]]
  const decode = precision === 'q8' ? blockDecode('q8_0') : DENSE_DECODERS[TYPES[precision]]
  const values = decode(bytes, new Float32Array(Math.ceil(nElements / blockElements) * blockElements))
  const nonFinite = firstNonFiniteOf(values)
  if (nonFinite >= 0) throw new CheckpointError({ place: `${place}: state, element ${nonFinite}`, expected: 'a finite number', got: String(values[nonFinite]) })
  return values.subarray(0, nElements)
}

/** With zeros at the end where the last block is not full. */
function wholeBlocks(state: Float32Array, blockElements: number): Float32Array {
  const length = Math.ceil(state.length / blockElements) * blockElements
  if (length === state.length) return state
  const whole = new Float32Array(length)
  whole.set(state)
  return whole
}
