/** ggml's quantized tensors as float32, as `dequantize_row_*` of ggml-quants.c have them: product and sum rounded to float32 each. */
import { BLOCK_TYPES, type BlockFormat } from '../ggml-blocks.ts'
import { createBlockParts, SPLITS } from '../ggml-splits.ts'
import type { Decode } from './tensor-reader.ts'

/** Whole blocks of a type. */
export function blockDecode(format: BlockFormat): Decode {
  const type = BLOCK_TYPES[format]
  const { blockElements, blockBytes, groupElements, hasMinimum } = type
  const parts = createBlockParts(type)
  const { integers, scales, minima } = parts
  const split = SPLITS[format]
  return (bytes, out) => {
    const values = out.subarray(0, (bytes.byteLength / blockBytes) * blockElements)
    for (let at = 0, to = 0; at < bytes.byteLength; at += blockBytes, to += blockElements) {
      split(bytes, at, parts)
      for (let group = 0; group < scales.length; group++) {
        const first = group * groupElements
        const scale = scales[group]
        const minimum = hasMinimum ? minima[group] : 0
        if (hasMinimum) for (let k = first; k < first + groupElements; k++) values[to + k] = Math.fround(integers[k] * scale) + minimum
        else for (let k = first; k < first + groupElements; k++) values[to + k] = integers[k] * scale
      }
    }
    return values
  }
}
