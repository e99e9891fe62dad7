/** Random weights in every format, with the numbers that they stand for: decoded here as the formats' definitions say, not by the package. */
import type { BlockFormat } from '../../src/ggml-blocks.ts'
import type { WeightData, WeightFormat } from '../../src/program/formats.ts'
import type { Numbers } from './numbers.ts'

/** The largest of the integers that activations become beside weights of a format of blocks: of 14 bits where products of bytes take them, else of 16. */
export function activationLimit(format: WeightFormat): number {
  return ['q8_0', 'q5_0', 'q4_0'].includes(format) ? 8191 : 32_767
}

/** What becomes of a sum of up to some hundred products, each off by half a step at most, of inputs and weights of about 1: they seldom agree in sign. */
export function activationRounding(format: WeightFormat): number {
  return 6.5 * (0.5 / activationLimit(format))
}

export interface Weights {
  readonly data: WeightData
  /** What `data` stands for. */
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
    default: return randomBlocks(numbers, format, count)
  }
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

interface Block {
  readonly elements: number
  readonly bytes: number
  /** Offsets of the halves: a scale, and where there is one the scale of minima or a minimum. */
  readonly halves: readonly number[]
  /** A scale whose weights are about 1. */
  readonly exponent: number
  /** Weight k of a block, each operation rounded to float32; `h` gives the value of the half at an offset. */
  readonly weight: (block: Uint8Array, k: number, h: (offset: number) => number) => number
}

const { fround } = Math
const nibble = (byte: number, isHigh: boolean): number => (isHigh ? byte >> 4 : byte % 16)
const bit = (bytes: Uint8Array, first: number, index: number): number => (bytes[first + Math.floor(index / 8)] >> (index % 8)) & 1
const signed = (byte: number): number => (byte < 128 ? byte : byte - 256)

/**
 * Scale and minimum of group j of a K block: bytes 4 to 15 hold, by llama.cpp's drawing, EEAAAAAA FFBBBBBB GGCCCCCC HHDDDDDD, the same of the
 * minima in small letters, eeeeEEEE ffffFFFF ggggGGGG hhhhHHHH.
 */
function kScales(block: Uint8Array, j: number): readonly [scale: number, minimum: number] {
  if (j < 4) return [block[4 + j] % 64, block[8 + j] % 64]
  const low = block[12 + j - 4]
  return [(low % 16) + 16 * (block[4 + j - 4] >> 6), (low >> 4) + 16 * (block[8 + j - 4] >> 6)]
}

function kWeight(block: Uint8Array, k: number, integer: number, h: (offset: number) => number): number {
  const [scale, minimum] = kScales(block, Math.floor(k / 32))
  return fround(fround(fround(h(0) * scale) * integer) - fround(h(2) * minimum))
}

/** Each type of ggml by its definition (gguf-py's quants.py), one weight at a time. */
const BLOCKS: Readonly<Record<BlockFormat, Block>> = {
  q8_0: { elements: 32, bytes: 34, halves: [0], exponent: -7, weight: (b, k, h) => h(0) * signed(b[2 + k]) },
  q4_0: { elements: 32, bytes: 18, halves: [0], exponent: -3, weight: (b, k, h) => h(0) * (nibble(b[2 + (k % 16)], k >= 16) - 8) },
  q4_1: { elements: 32, bytes: 20, halves: [0, 2], exponent: -3, weight: (b, k, h) => fround(h(0) * nibble(b[4 + (k % 16)], k >= 16)) + h(2) },
  q5_0: { elements: 32, bytes: 22, halves: [0], exponent: -4, weight: (b, k, h) => h(0) * (nibble(b[6 + (k % 16)], k >= 16) + 16 * bit(b, 2, k) - 16) },
  q5_1: { elements: 32, bytes: 24, halves: [0, 2], exponent: -4, weight: (b, k, h) => fround(h(0) * (nibble(b[8 + (k % 16)], k >= 16) + 16 * bit(b, 4, k))) + h(2) },
  q4_k: {
    elements: 256, bytes: 144, halves: [0, 2], exponent: -9,
    weight: (b, k, h) => kWeight(b, k, nibble(b[16 + 32 * Math.floor(k / 64) + (k % 32)], k % 64 >= 32), h)
  },
  q5_k: {
    elements: 256, bytes: 176, halves: [0, 2], exponent: -10,
    weight: (b, k, h) => kWeight(b, k, nibble(b[48 + 32 * Math.floor(k / 64) + (k % 32)], k % 64 >= 32) + 16 * ((b[16 + (k % 32)] >> Math.floor(k / 32)) % 2), h)
  },
  q6_k: {
    elements: 256, bytes: 210, halves: [208], exponent: -12,
    weight(b, k, h) {
      const [half, inHalf] = [Math.floor(k / 128), k % 128]
      const low = nibble(b[64 * half + (inHalf % 64)], inHalf >= 64)
      const high = (b[128 + 32 * half + (inHalf % 32)] >> (2 * Math.floor(inHalf / 32))) % 4
      return fround(h(208) * signed(b[192 + Math.floor(k / 16)])) * (low + 16 * high - 32)
    }
  }
}

/** The numbers of `count` weights in blocks of a type. */
export function decodeBlocks(format: BlockFormat, data: Uint8Array, count: number): Float32Array {
  const { elements, bytes, weight } = BLOCKS[format]
  return Float32Array.from({ length: count }, (_, i) => {
    const block = data.subarray(Math.floor(i / elements) * bytes)
    return weight(block, i % elements, (offset) => valueOfF16(block[offset] | (block[offset + 1] << 8)))
  })
}

function randomBlocks(numbers: Numbers, format: BlockFormat, count: number): Weights {
  const { elements, bytes, halves, exponent } = BLOCKS[format]
  // Where `count` is no whole number of blocks the values alone are of use.
  const nBlocks = Math.ceil(count / elements)
  const data = Uint8Array.from({ length: nBlocks * bytes }, () => numbers.integer(0, 255))
  for (let i = 0; i < nBlocks; i++) {
    for (const offset of halves) {
      // Of either sign, at times zero or subnormal.
      const bits = i % 13 === 0 ? numbers.integer(0, 0x3ff) : ((exponent + 15 - 3) << 10) + numbers.integer(0, 0x0c00) + numbers.integer(0, 1) * 0x8000
      data.set([bits & 255, bits >> 8], i * bytes + offset)
    }
  }
  return { data, values: decodeBlocks(format, data, count) }
}

/** Every block type of ggml that this package reads. */
export const BLOCK_FORMATS = Object.keys(BLOCKS) as readonly BlockFormat[]

export function blockElementsOf(format: BlockFormat): number {
  return BLOCKS[format].elements
}

/** Offsets of a block's halves. */
export function blockHalvesOf(format: BlockFormat): readonly number[] {
  return BLOCKS[format].halves
}
