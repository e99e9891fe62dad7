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

/** Where a block has two halves, the other one is for the minima. */
function blockType(bits: number, blockBytes: number, halves: readonly number[], [blockElements, groupElements] = [32, 32]): BlockType {
  return { blockElements, blockBytes, groupElements, hasMinimum: halves.length > 1, bits, halves }
}

export const BLOCK_TYPES: Readonly<Record<BlockFormat, BlockType>> = {
  q8_0: blockType(8, 34, [0]),
  q4_0: blockType(4, 18, [0]),
  q4_1: blockType(4, 20, [0, 2]),
  q5_0: blockType(5, 22, [0]),
  q5_1: blockType(5, 24, [0, 2]),
  q4_k: blockType(4, 144, [0, 2], [256, 32]),
  q5_k: blockType(5, 176, [0, 2], [256, 32]),
  q6_k: blockType(6, 210, [208], [256, 16])
}

/** The block format of a type by ggml's name (Q4_K), or undefined where this package cannot read it. */
export function blockFormatOf(name: string): BlockFormat | undefined {
  const format = name.toLowerCase()
  return isBlockFormat(format) ? format : undefined
}

export function isBlockFormat(format: string): format is BlockFormat {
  return Object.hasOwn(BLOCK_TYPES, format)
}
