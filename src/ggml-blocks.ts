/**
 * ggml's quantized types: a block holds small integers and, for each group of neighbouring inputs, a scale and a minimum, such that
 * weight = scale · integer + minimum, as `dequantize_row_*` of ggml-quants.c have it. How a block is taken apart: ggml-splits.ts.
 */

export type BlockFormat = 'q8_0' | 'q4_0' | 'q4_1' | 'q5_0' | 'q5_1' | 'q4_k' | 'q5_k' | 'q6_k'

export interface BlockType {
  /** Consecutive inputs of a row that are stored together. */
  readonly blockElements: number
  readonly blockBytes: number
  /** Inputs that share a scale. */
  readonly groupElements: number
  /** Integers are 0 or more and a minimum is added; without one they have either sign and `minima` is not written. */
  readonly hasMinimum: boolean
  /** Bits of an integer. */
  readonly bits: number
  /** Bytes at which a block has its halves, of which all scales and minima are made. */
  readonly halves: readonly number[]
}

export const BLOCK_TYPES: Readonly<Record<BlockFormat, BlockType>> = {
  q8_0: { blockElements: 32, groupElements: 32, blockBytes: 34, hasMinimum: false, bits: 8, halves: [0] },
  q4_0: { blockElements: 32, groupElements: 32, blockBytes: 18, hasMinimum: false, bits: 4, halves: [0] },
  q4_1: { blockElements: 32, groupElements: 32, blockBytes: 20, hasMinimum: true, bits: 4, halves: [0, 2] },
  q5_0: { blockElements: 32, groupElements: 32, blockBytes: 22, hasMinimum: false, bits: 5, halves: [0] },
  q5_1: { blockElements: 32, groupElements: 32, blockBytes: 24, hasMinimum: true, bits: 5, halves: [0, 2] },
  q4_k: { blockElements: 256, groupElements: 32, blockBytes: 144, hasMinimum: true, bits: 4, halves: [0, 2] },
  q5_k: { blockElements: 256, groupElements: 32, blockBytes: 176, hasMinimum: true, bits: 5, halves: [0, 2] },
  q6_k: { blockElements: 256, groupElements: 16, blockBytes: 210, hasMinimum: false, bits: 6, halves: [208] }
}

/** The block format of a type by ggml's name (Q4_K), or undefined where this package cannot read it. */
export function blockFormatOf(name: string): BlockFormat | undefined {
  const format = name.toLowerCase()
  return isBlockFormat(format) ? format : undefined
}

export function isBlockFormat(format: string): format is BlockFormat {
  return Object.hasOwn(BLOCK_TYPES, format)
}
