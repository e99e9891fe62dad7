/** float32 to F16, BF16, Q8_0 and Q4_0 and back: by hand, by the definitions written plainly, at the edges, speed. */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { blockDecode } from '../../src/checkpoint/gguf-blocks.ts'
import { firstNonFiniteOf } from '../../src/checkpoint/tensor-reader.ts'
import { BLOCK_TYPES, blockFormatOf } from '../../src/ggml-blocks.ts'
import { f16Values, f16Bits } from '../../src/half.ts'
import { ENCODERS, type EncodedType } from '../../src/checkpoint/quantize.ts'
import { COVERAGE_COST } from '../support/coverage.ts'

const { fround } = Math

function encode(type: EncodedType, values: Float32Array): { bytes: Uint8Array; failed: number } {
  const { blockElements, blockBytes, encode } = ENCODERS[type]
  const bytes = new Uint8Array((values.length / blockElements) * blockBytes)
  return { bytes, failed: encode(values, bytes) }
}

function decode(type: 'Q8_0' | 'Q4_0', bytes: Uint8Array): Float32Array {
  const format = blockFormatOf(type)!
  const { blockElements, blockBytes } = BLOCK_TYPES[format]
  const values = blockDecode(format)(bytes, new Float32Array((bytes.length / blockBytes) * blockElements))
  expect(firstNonFiniteOf(values)).toBe(-1)
  return values
}

/** Any float32: bits at random, and numbers as weights are. */
const anyFloat = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }).map((bits) => new Float32Array(Int32Array.of(bits).buffer)[0])
const weight = fc.float({ min: -3, max: 3, noNaN: true })
const block = (number: fc.Arbitrary<number>): fc.Arbitrary<Float32Array> => fc.array(number, { minLength: 32, maxLength: 32 }).map((values) => Float32Array.from(values))

describe('half floats', () => {
  const sizes = f16Values().slice(0, 0x7c00)

  /** The nearest half by search, the even one of two. */
  function nearest(value: number): number {
    const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
    const size = Math.abs(value)
    if (Number.isNaN(value)) return sign | 0x7e00
    if (size >= 65520) return sign | 0x7c00
    let low = 0
    let high = sizes.length
    while (high - low > 1) {
      const middle = (low + high) >> 1
      if (sizes[middle] <= size) low = middle
      else high = middle
    }
    const below = size - sizes[low]
    const above = (low + 1 < sizes.length ? sizes[low + 1] : 65536) - size
    return sign | (below < above || (below === above && low % 2 === 0) ? low : low + 1)
  }

  test('every half is itself', () => {
    const others = Array.from(f16Values().keys()).filter((bits) => (bits & 0x7fff) <= 0x7c00 && f16Bits(f16Values()[bits]) !== bits)
    expect(others).toEqual([])
  })

  test('halfway between two neighbours is the even one, and a float32 to either side the nearer one', () => {
    const bits = new Int32Array(1)
    const value = new Float32Array(bits.buffer)
    for (let low = 0; low < 0x7bff; low++) {
      value[0] = (sizes[low] + sizes[low + 1]) / 2
      const found = [f16Bits(value[0]), f16Bits(-value[0])]
      bits[0]--
      found.push(f16Bits(value[0]))
      bits[0] += 2
      found.push(f16Bits(value[0]))
      const even = low + (low % 2)
      if (String(found) !== String([even, 0x8000 | even, low, low + 1])) expect.fail(`after ${low}: ${found.join(', ')}`)
    }
  })

  test.each([[65504, 0x7bff], [65519.996, 0x7bff], [65520, 0x7c00], [-65520, 0xfc00], [3e38, 0x7c00], [Infinity, 0x7c00], [-Infinity, 0xfc00], [0, 0], [-0, 0x8000], [2 ** -25, 0], [1.0000001 * 2 ** -25, 1], [1e-45, 0], [-1e-45, 0x8000]])(
    '%d is 0x%s', (value, bits) => expect(f16Bits(value)).toBe(bits)
  )

  test('any float32 is the nearest half', () => {
    fc.assert(fc.property(anyFloat, (value) => (f16Bits(value) & (Number.isNaN(value) ? 0x7fff : 0xffff)) === nearest(value)), { numRuns: 20_000 })
  })
})

describe('F32, F16 and BF16', () => {
  test('are written little-endian', () => {
    expect([...encode('F32', Float32Array.of(1, -2)).bytes]).toEqual([0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0])
    expect([...encode('F16', Float32Array.of(1, -2)).bytes]).toEqual([0, 0x3c, 0, 0xc0])
    expect([...encode('BF16', Float32Array.of(1, -2)).bytes]).toEqual([0x80, 0x3f, 0, 0xc0])
  })

  test.each([
    [0x3f800000, 0x3f80], [0x3f808000, 0x3f80], [0x3f808001, 0x3f81], [0x3f818000, 0x3f82], [0x3f817fff, 0x3f81], [0x00000001, 0], [0x00008001, 1], [0x7f7f7fff, 0x7f7f],
    [0x80018000 | 0, 0x8002], [0xbf808001 | 0, 0xbf81]
  ])('BF16 of the bits %i is %i', (bits, half) => {
    const { bytes, failed } = encode('BF16', new Float32Array(Int32Array.of(bits).buffer))
    expect([bytes[0] | (bytes[1] << 8), failed]).toEqual([half, -1])
  })
})

test('Q8_0 by hand: a scale of 0.5, ties away from zero', () => {
  const values = new Float32Array(32)
  // 63.5 / 127 is 0.5 = 0x3800; 0.25 is half a step.
  values.set([63.5, -63.5, 0.25, -0.25, 0.75, -0.75, 0.2, -0.2, 1, 31.3])
  const { bytes, failed } = encode('Q8_0', values)
  expect(failed).toBe(-1)
  expect([...bytes.subarray(0, 12)]).toEqual([0x00, 0x38, 127, 256 - 127, 1, 255, 2, 254, 0, 0, 2, 63])
  expect([...decode('Q8_0', bytes).subarray(0, 10)]).toEqual([63.5, -63.5, 0.5, -0.5, 1, -1, 0, 0, 1, 31.5])
})

test('Q4_0 by hand: a scale of -1 or 1 by the sign of the largest, two numbers in a byte', () => {
  const values = new Float32Array(32)
  // The largest is 8: d = -1 = 0xbc00, so 8 is 0 and -7 is 15; -8 would be 16, and is 15.
  values.set([8, -7, -8, 0, 3.4, 3.5, 3.6])
  values.set([1, -1, 2, -2, 0.4, -0.4, 0.6], 16)
  const { bytes, failed } = encode('Q4_0', values)
  expect(failed).toBe(-1)
  expect([...bytes.subarray(0, 10)]).toEqual([0x00, 0xbc, 0 | (7 << 4), 15 | (9 << 4), 15 | (6 << 4), 8 | (10 << 4), 5 | (8 << 4), 5 | (8 << 4), 4 | (7 << 4), 0x88])
  expect([...decode('Q4_0', bytes)].map((value) => value + 0)).toEqual([8, -7, -7, 0, 3, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, -1, 2, -2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
})

test('blocks of zeros, of either sign: scale 0 in Q8_0, -0 in Q4_0, as the definitions give it', () => {
  for (const zero of [0, -0]) {
    expect([...encode('Q8_0', new Float32Array(32).fill(zero)).bytes]).toEqual(Array(34).fill(0))
    expect([...encode('Q4_0', new Float32Array(32).fill(zero)).bytes]).toEqual([0, 0x80, ...Array(16).fill(0x88)])
  }
})

/** Below 2^-128 the definitions divide to infinity, and what follows is undefined in C: a block of zeros here. */
function reciprocal(d: number): number {
  return Math.abs(d) <= 2 ** -128 ? 0 : fround(1 / d)
}

/** C's: ties away from zero. */
function roundf(x: number): number {
  return Math.sign(x) * Math.floor(Math.abs(x) + 0.5)
}

/** ggml's quantize_row_q8_0_ref for one block, every step of it in float32. */
function plainQ80(values: Float32Array): number[] {
  let amax = fround(0)
  for (const v of values) amax = Math.max(amax, Math.abs(v))
  const d = fround(amax / 127)
  const id = reciprocal(d)
  const scale = f16Bits(d)
  return [scale & 255, scale >> 8, ...Array.from(values, (v) => roundf(fround(v * id)) & 255)]
}

/** ggml's quantize_row_q4_0_ref. */
function plainQ40(values: Float32Array): number[] {
  let amax = 0
  let max = 0
  for (const v of values) {
    if (amax < Math.abs(v)) {
      amax = Math.abs(v)
      max = v
    }
  }
  const d = fround(max / -8)
  const id = reciprocal(d)
  const scale = f16Bits(d)
  const number = (v: number): number => Math.min(15, Math.trunc(fround(fround(v * id) + 8.5)))
  return [scale & 255, scale >> 8, ...Array.from({ length: 16 }, (_, j) => number(values[j]) | (number(values[j + 16]) << 4))]
}

/** Blocks of one magnitude, up to where a half can hold the scale; and multiples of half a step, for the ties. */
const scaled = fc.tuple(block(weight), fc.integer({ min: -120, max: 12 })).map(([values, exponent]) => values.map((value) => value * 2 ** exponent))
const grid = fc.tuple(block(fc.integer({ min: -254, max: 254 }).map((value) => value / 2)), fc.integer({ min: -20, max: 6 })).map(([values, exponent]) => values.map((value) => value * 2 ** exponent))

test.each([['Q8_0', plainQ80], ['Q4_0', plainQ40]] as const)('%s is block by block its definition', (type, plain) => {
  fc.assert(fc.property(fc.array(fc.oneof(block(weight), scaled, grid), { minLength: 1, maxLength: 3 }), (blocks) => {
    const { bytes, failed } = encode(type, Float32Array.from(blocks.flatMap((values) => [...values])))
    expect(failed).toBe(-1)
    expect([...bytes]).toEqual(blocks.flatMap(plain))
  }), { numRuns: 3000 })
})

test('decoding is scale times number, exactly, for every scale and number', () => {
  const scales = Uint16Array.from({ length: 65536 }, (_, bits) => bits).filter((bits) => (bits & 0x7c00) !== 0x7c00)
  for (const [type, zero] of [['Q8_0', 0], ['Q4_0', 8]] as const) {
    const { blockBytes } = ENCODERS[type]
    const bytes = new Uint8Array(scales.length * blockBytes).map((_, i) => (i * 7919) >> 3)
    for (const [i, scale] of scales.entries()) bytes.set([scale & 255, scale >> 8], i * blockBytes)
    const values = decode(type, bytes)
    for (const [i, scale] of scales.entries()) {
      for (let j = 0; j < 32; j++) {
        const byte = bytes[i * blockBytes + 2 + (type === 'Q8_0' ? j : j % 16)]
        const number = type === 'Q8_0' ? (byte << 24) >> 24 : j < 16 ? byte & 15 : byte >> 4
        if (!Object.is(values[i * 32 + j], (number - zero) * f16Values()[scale])) expect.fail(`${type}, scale ${scale}, number ${number}`)
      }
    }
  }
})

test('what comes back is within half a step, one whole step at the far end of Q4_0, and the rounding of the scale', () => {
  fc.assert(fc.property(block(weight), (values) => {
    const size = Math.max(...values.map(Math.abs))
    const [q8, q4] = [decode('Q8_0', encode('Q8_0', values).bytes), decode('Q4_0', encode('Q4_0', values).bytes)]
    // A half has 11 bits, or counts in units of 2^-24.
    const ofScale = Math.max(size * 2 ** -11, 127 * 2 ** -25)
    for (const [i, value] of values.entries()) {
      expect(Math.abs(q8[i] - value)).toBeLessThanOrEqual(size / 127 / 2 + ofScale + 1e-6 * size)
      expect(Math.abs(q4[i] - value)).toBeLessThanOrEqual(size / 8 + ofScale + 1e-6 * size)
    }
  }))
})

test('a block too small for a half gives zeros', () => {
  for (const size of [1e-45, 1e-40, 1e-38, 1e-30, 1e-9]) {
    for (const type of ['Q8_0', 'Q4_0'] as const) {
      const values = new Float32Array(32).map((_, i) => (i % 2 === 0 ? size : -size))
      const { bytes, failed } = encode(type, values)
      expect(failed).toBe(-1)
      expect(decode(type, bytes).every((value) => value === 0)).toBe(true)
    }
  }
})

describe('what no type can hold', () => {
  const limits: [EncodedType, number, number][] = [['F32', 3.4028234e38, Infinity], ['F16', 65519, 65520], ['BF16', 3.389e38, 3.4e38], ['Q8_0', 65519 * 127, 65521 * 127], ['Q4_0', 65519 * 8, 65521 * 8]]

  test.each(limits)('%s: at most %d', (type, good, bad) => {
    expect(encode(type, new Float32Array(64).fill(good)).failed).toBe(-1)
    for (const value of [bad, -bad, Infinity, -Infinity, NaN]) {
      for (const index of [0, 1, 31, 32, 63]) {
        const values = Float32Array.from({ length: 64 }, (_, i) => Math.cos(i))
        values[index] = value
        expect(encode(type, values).failed).toBe(index)
      }
    }
  })
})

test('a slice of a larger array, in a larger buffer', () => {
  const values = Float32Array.from({ length: 96 }, (_, i) => Math.sin(i))
  for (const type of ['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0'] as const) {
    const whole = encode(type, values).bytes
    const third = whole.length / 3
    const out = new Uint8Array(third + 8)
    expect(ENCODERS[type].encode(values.subarray(32, 64), out.subarray(4, 4 + third))).toBe(-1)
    expect(out).toEqual(Uint8Array.of(0, 0, 0, 0, ...whole.subarray(third, 2 * third), 0, 0, 0, 0))
  }
})

test('at speed: a tenth of what a quiet machine does will do', () => {
  const values = Float32Array.from({ length: 2 ** 22 }, (_, i) => Math.sin(i))
  for (const [type, perSecond] of [['F16', 30e6], ['BF16', 70e6], ['Q8_0', 28e6], ['Q4_0', 19e6]] as const) {
    const { blockElements, blockBytes, encode } = ENCODERS[type]
    const out = new Uint8Array((values.length / blockElements) * blockBytes)
    let bestMs = Infinity
    for (let run = 0; run < 3; run++) {
      const start = performance.now()
      encode(values, out)
      bestMs = Math.min(bestMs, performance.now() - start)
    }
    expect(values.length / (bestMs / 1000), type).toBeGreaterThan(perSecond / COVERAGE_COST)
  }
})
