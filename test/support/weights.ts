/** Random weights in every format, with the numbers that they stand for: decoded here as the formats' definitions say, not by the package. */
import type { WeightData, WeightFormat } from '../../src/program/formats.ts'
import type { Numbers } from './numbers.ts'

export interface Weights {
  readonly data: WeightData
  /** What `data` stands for; exact in f32. */
  readonly values: Float32Array
}

/** A matrix (nOut, nIn) of values in about [-1, 1). */
export function randomWeights(numbers: Numbers, format: WeightFormat, count: number): Weights {
  switch (format) {
    case 'f32': {
      const values = numbers.floats(count)
      return { data: values, values }
    }
    case 'bf16': return fromHalves(Uint16Array.from({ length: count }, () => numbers.integer(0, 1) * 0x8000 + numbers.integer(0x3c00, 0x3f7f)), valueOfBf16)
    case 'f16': return fromHalves(Uint16Array.from({ length: count }, (_, i) => numbers.integer(0, 1) * 0x8000 + (i % 29 === 0 ? numbers.integer(0, 0x3ff) : numbers.integer(0x1c00, 0x3bff))), valueOfF16)
    case 'q8_0': return fromBlocks(numbers, { count, blockBytes: 34, weightOf: (block, k) => (block[2 + k] << 24) >> 24, most: 128 })
    case 'q4_0': return fromBlocks(numbers, { count, blockBytes: 18, weightOf: (block, k) => (k < 16 ? block[2 + k] & 15 : block[2 + k - 16] >> 4) - 8, most: 8 })
  }
  throw new TypeError(`no such format: ${String(format)}`)
}

function fromHalves(data: Uint16Array, valueOf: (bits: number) => number): Weights {
  return { data, values: Float32Array.from(data, valueOf) }
}

/** The upper half of a float32. */
function valueOfBf16(bits: number): number {
  return new Float32Array(Uint32Array.of(bits << 16).buffer)[0]
}

/** IEEE 754 binary16, finite. */
function valueOfF16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = (bits & 0x3ff) / 1024
  return sign * (exponent === 0 ? fraction * 2 ** -14 : (1 + fraction) * 2 ** (exponent - 15))
}

/** GGUF's blocks of 32: a scale in f16, then the weights. */
function fromBlocks(numbers: Numbers, { count, blockBytes, weightOf, most }: {
  count: number, blockBytes: number, weightOf: (block: Uint8Array, k: number) => number, most: number
}): Weights {
  const nBlocks = count / 32
  const data = Uint8Array.from({ length: nBlocks * blockBytes }, () => numbers.integer(0, 255))
  const values = new Float32Array(count)
  for (let i = 0; i < nBlocks; i++) {
    const block = data.subarray(i * blockBytes, (i + 1) * blockBytes)
    // A scale of 1 / most at most, of either sign, at times zero or subnormal.
    const bits = i % 13 === 0 ? numbers.integer(0, 0x3ff) : numbers.integer(0x1000, most === 8 ? 0x3000 : 0x2000) + numbers.integer(0, 1) * 0x8000
    block[0] = bits & 255
    block[1] = bits >> 8
    for (let k = 0; k < 32; k++) values[32 * i + k] = valueOfF16(bits) * weightOf(block, k)
  }
  return { data, values }
}
