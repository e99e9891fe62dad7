/** ggml's quantized tensors as float32, as `dequantize_row_*` of ggml-quants.c have them: product and sum rounded to float32 each. */
import { BLOCK_TYPES, type BlockType, createBlockParts } from '../ggml-blocks.ts'

/** A block type that can be read as float32. */
export interface BlockDecoder {
  readonly blockElements: number
  readonly blockBytes: number
  /** Whole blocks as float32 into `out`; `nonFinite` is the index of the first element of the first block with a scale or a minimum that is not finite, or -1. */
  readonly decode: (bytes: Uint8Array, out: Float32Array) => { readonly values: Float32Array; readonly nonFinite: number }
  /** `nonFinite` alone, for bytes that are kept as they are. */
  readonly firstNonFinite: (bytes: Uint8Array) => number
}

function decoderOf(type: BlockType): BlockDecoder {
  const { blockElements, blockBytes, groupElements, hasMinimum, halves } = type
  const parts = createBlockParts(type)
  const { integers, scales, minima } = parts
  const firstNonFinite = (bytes: Uint8Array): number => {
    for (let at = 0; at < bytes.byteLength; at += blockBytes) {
      for (const half of halves) if ((bytes[at + half + 1] & 0x7c) === 0x7c) return (at / blockBytes) * blockElements
    }
    return -1
  }
  return {
    blockElements, blockBytes, firstNonFinite,
    decode(bytes, out) {
      const values = out.subarray(0, (bytes.byteLength / blockBytes) * blockElements)
      for (let at = 0, to = 0; at < bytes.byteLength; at += blockBytes, to += blockElements) {
        type.split(bytes, at, parts)
        for (let group = 0; group < scales.length; group++) {
          const first = group * groupElements
          const scale = scales[group]
          const minimum = hasMinimum ? minima[group] : 0
          if (hasMinimum) for (let k = first; k < first + groupElements; k++) values[to + k] = Math.fround(integers[k] * scale) + minimum
          else for (let k = first; k < first + groupElements; k++) values[to + k] = integers[k] * scale
        }
      }
      return { values, nonFinite: firstNonFinite(bytes) }
    }
  }
}

/** By ggml's names. */
export const BLOCK_DECODERS: ReadonlyMap<string, BlockDecoder> = new Map(
  Object.entries(BLOCK_TYPES).map(([format, type]) => [format.toUpperCase(), decoderOf(type)])
)
