/** How weights are stored: the dtype table. The quantized ones are GGUF's blocks. */

import { BLOCK_TYPES, type BlockFormat } from '../ggml-blocks.ts'

/** Formats of a matrix. Everything else (norms, convolution, A, D, biases) is f32. */
export type WeightFormat = 'f32' | 'bf16' | 'f16' | BlockFormat

export interface FormatInfo {
  /** Consecutive inputs of a row that are stored together. */
  readonly blockElements: number
  readonly blockBytes: number
}

export const FORMATS: Readonly<Record<WeightFormat, FormatInfo>> = {
  f32: { blockElements: 1, blockBytes: 4 },
  bf16: { blockElements: 1, blockBytes: 2 },
  f16: { blockElements: 1, blockBytes: 2 },
  ...BLOCK_TYPES
}

/** Values on their way to a backend: numbers in f32, bits in the half formats, blocks in the quantized ones. */
export type WeightData = Float32Array | Uint16Array | Uint8Array

/** Elements that `data` holds in a format. */
export function elementsIn(format: WeightFormat, data: WeightData): number {
  const { blockElements, blockBytes } = FORMATS[format]
  return (data.byteLength / blockBytes) * blockElements
}
