/**
 * ggml's quantized tensors as float32: blocks of 32 with a scale each, as `dequantize_row_q8_0` and `dequantize_row_q4_0` have them.
 * The products of a half and a small integer are exact in float32.
 */
import { F16_VALUES } from '../half.ts'

/** A block type that can be read as float32. */
export interface BlockDecoder {
  readonly blockElements: number
  readonly blockBytes: number
  /** Whole blocks as float32 into `out`; `nonFinite` is the index of the first element whose block has no finite scale, or -1. */
  readonly decode: (bytes: Uint8Array, out: Float32Array) => { readonly values: Float32Array; readonly nonFinite: number }
}

const BLOCK = 32
const Q8_0_BYTES = 34
const Q4_0_BYTES = 18
const F16_EXPONENT = 0x7c00

/** The scale as a half, then 32 signed bytes. */
function decodeQ80(bytes: Uint8Array, out: Float32Array) {
  const nBlocks = bytes.byteLength / Q8_0_BYTES
  const numbers = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const values = out.subarray(0, nBlocks * BLOCK)
  for (let block = 0, at = 0, to = 0; block < nBlocks; block++, at += Q8_0_BYTES, to += BLOCK) {
    const scale = F16_VALUES[bytes[at] | (bytes[at + 1] << 8)]
    for (let i = 0; i < BLOCK; i++) values[to + i] = numbers[at + 2 + i] * scale
  }
  return { values, nonFinite: firstNonFinite(bytes, Q8_0_BYTES) }
}

/** The scale as a half, then 16 bytes: number i + 8 in the lower half of byte i, number i + 16 + 8 in the upper. */
function decodeQ40(bytes: Uint8Array, out: Float32Array) {
  const nBlocks = bytes.byteLength / Q4_0_BYTES
  const values = out.subarray(0, nBlocks * BLOCK)
  for (let block = 0, at = 0, to = 0; block < nBlocks; block++, at += Q4_0_BYTES, to += BLOCK) {
    const scale = F16_VALUES[bytes[at] | (bytes[at + 1] << 8)]
    for (let i = 0; i < BLOCK / 2; i++) {
      const pair = bytes[at + 2 + i]
      values[to + i] = ((pair & 15) - 8) * scale
      values[to + i + BLOCK / 2] = ((pair >> 4) - 8) * scale
    }
  }
  return { values, nonFinite: firstNonFinite(bytes, Q4_0_BYTES) }
}

/** Index of the first element of the first block whose scale, at its start, is infinite or no number; -1 without one. */
function firstNonFinite(bytes: Uint8Array, blockBytes: number): number {
  for (let at = 0; at < bytes.byteLength; at += blockBytes) {
    if ((((bytes[at + 1] << 8) | bytes[at]) & F16_EXPONENT) === F16_EXPONENT) return (at / blockBytes) * BLOCK
  }
  return -1
}

/** By ggml's names. */
export const BLOCK_DECODERS: ReadonlyMap<string, BlockDecoder> = new Map([
  ['Q8_0', { blockElements: BLOCK, blockBytes: Q8_0_BYTES, decode: decodeQ80 }],
  ['Q4_0', { blockElements: BLOCK, blockBytes: Q4_0_BYTES, decode: decodeQ40 }]
])
