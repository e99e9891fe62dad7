/**
 * Blocks of ggml's quantized types (ggml-blocks.ts) in their parts. Readers of files make float32 of that, backends their own layouts. Loaded for the
 * types and the uses that need it: blocks that stay as they are do not.
 */
import { BLOCK_TYPES, type BlockFormat, type BlockType } from './ggml-blocks.ts'
import { f16Values } from './half.ts'

/** Where a block's parts go; one may serve for all blocks. */
export interface BlockParts {
  /** blockElements of them. */
  readonly integers: Int8Array
  /** One a group; products of a half and a small integer, exact in float32. */
  readonly scales: Float32Array
  readonly minima: Float32Array
}

/** Splits the block that starts at byte `at`. */
export type Split = (bytes: Uint8Array, at: number, parts: BlockParts) => void

export function createBlockParts({ blockElements, groupElements }: BlockType): BlockParts {
  const nGroups = blockElements / groupElements
  return { integers: new Int8Array(blockElements), scales: new Float32Array(nGroups), minima: new Float32Array(nGroups) }
}

function halfAt(bytes: Uint8Array, at: number): number {
  return f16Values()[bytes[at] | (bytes[at + 1] << 8)]
}

/** 16 bytes at `at`: weight j in the low half of byte j, weight j + 16 in its high half. */
function splitNibbles(bytes: Uint8Array, at: number, integers: Int8Array, offset: number): void {
  for (let j = 0; j < 16; j++) {
    integers[j] = (bytes[at + j] & 15) - offset
    integers[j + 16] = (bytes[at + j] >> 4) - offset
  }
}

/** Their fifth bits: bit j of the 32 at `at` is weight j's. */
function addFifthBits(bytes: Uint8Array, at: number, integers: Int8Array): void {
  for (let j = 0; j < 32; j++) integers[j] += ((bytes[at + (j >> 3)] >> (j & 7)) & 1) << 4
}

/** 12 bytes at `at`: six bits for the scale and six for the minimum of each of 8 groups (`get_scale_min_k4`); d and dMin are halves before. */
function splitScales(bytes: Uint8Array, block: number, { scales, minima }: BlockParts): void {
  const d = halfAt(bytes, block)
  const dMin = halfAt(bytes, block + 2)
  const at = block + 4
  for (let j = 0; j < 8; j++) {
    const scale = j < 4 ? bytes[at + j] & 63 : (bytes[at + j + 4] & 15) | ((bytes[at + j - 4] >> 6) << 4)
    const minimum = j < 4 ? bytes[at + j + 4] & 63 : (bytes[at + j + 4] >> 4) | ((bytes[at + j] >> 6) << 4)
    scales[j] = d * scale
    minima[j] = -dMin * minimum
  }
}

/** 128 bytes at `at`: groups 2 j and 2 j + 1 in the low and the high halves of 32 bytes. */
function splitWideNibbles(bytes: Uint8Array, at: number, integers: Int8Array): void {
  for (let j = 0; j < 128; j++) {
    const low = ((j >> 5) << 6) + (j & 31)
    integers[low] = bytes[at + j] & 15
    integers[low + 32] = bytes[at + j] >> 4
  }
}

/** │ d │ m, where there is a minimum │ 4 bytes of fifth bits, where there are five │ 16 bytes of nibbles │. Without a minimum zero is in the middle. */
function smallSplit({ bits, hasMinimum, halves, blockBytes }: BlockType): Split {
  const nibbles = blockBytes - 16
  const zero = hasMinimum ? 0 : 2 ** (bits - 1)
  return (bytes, at, { integers, scales, minima }) => {
    scales[0] = halfAt(bytes, at)
    if (hasMinimum) minima[0] = halfAt(bytes, at + 2)
    splitNibbles(bytes, at + nibbles, integers, zero)
    if (bits === 5) addFifthBits(bytes, at + 2 * halves.length, integers)
  }
}

/** │ d │ dMin │ 12 bytes of scales and minima │ 32 bytes of fifth bits, where there are five: bit g of byte i is group g's input i │ 128 bytes of nibbles │ */
function wideSplit({ bits, blockBytes }: BlockType): Split {
  const nibbles = blockBytes - 128
  return (bytes, at, parts) => {
    splitScales(bytes, at, parts)
    splitWideNibbles(bytes, at + nibbles, parts.integers)
    if (bits === 5) for (let j = 0; j < 256; j++) parts.integers[j] += ((bytes[at + 16 + (j & 31)] >> (j >> 5)) & 1) << 4
  }
}

/** In the drawings d, m and dMin are halves. */
export const SPLITS: Readonly<Record<BlockFormat, Split>> = {
  /** │ d │ 32 signed bytes │ */
  q8_0(bytes, at, { integers, scales }) {
    scales[0] = halfAt(bytes, at)
    for (let j = 0; j < 32; j++) integers[j] = bytes[at + 2 + j]
  },
  q4_0: smallSplit(BLOCK_TYPES.q4_0),
  q4_1: smallSplit(BLOCK_TYPES.q4_1),
  q5_0: smallSplit(BLOCK_TYPES.q5_0),
  q5_1: smallSplit(BLOCK_TYPES.q5_1),
  q4_k: wideSplit(BLOCK_TYPES.q4_k),
  q5_k: wideSplit(BLOCK_TYPES.q5_k),
  /**
   * │ 128 bytes of nibbles │ 64 bytes of two bits │ 16 signed scales │ d │, 32 is zero. Each half of the block has half of the bytes:
   * its inputs l, l + 32, l + 64 and l + 96 have low bits in nibbles l, l + 32 (low halves), l, l + 32 (high), high ones in byte l.
   */
  q6_k(bytes, at, { integers, scales }) {
    const d = halfAt(bytes, at + 208)
    for (let j = 0; j < 16; j++) scales[j] = d * ((bytes[at + 192 + j] << 24) >> 24)
    for (let half = 0; half < 2; half++) {
      for (let j = 0; j < 64; j++) {
        const nibbles = bytes[at + 64 * half + j]
        const pairs = bytes[at + 128 + 32 * half + (j & 31)] >> (2 * (j >> 5))
        integers[128 * half + j] = ((nibbles & 15) | ((pairs & 3) << 4)) - 32
        integers[128 * half + 64 + j] = ((nibbles >> 4) | (((pairs >> 4) & 3) << 4)) - 32
      }
    }
  }
}
