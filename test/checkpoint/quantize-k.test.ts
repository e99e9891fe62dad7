/** float32 to Q4_K and Q6_K: what the bytes mean by the formats' definitions, how near that is, at the edges, speed. */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ENCODERS } from '../../src/checkpoint/quantize.ts'
import { COVERAGE_COST } from '../support/coverage.ts'
import { createNumbers } from '../support/numbers.ts'
import { decodeBlocks } from '../support/weights.ts'

const TYPES = ['Q4_K', 'Q6_K'] as const
type Type = (typeof TYPES)[number]

function encode(type: Type, values: Float32Array): { readonly bytes: Uint8Array, readonly failed: number } {
  const bytes = new Uint8Array((values.length / 256) * ENCODERS[type].blockBytes).fill(0xa5)
  return { bytes, failed: ENCODERS[type].encode(values, bytes) }
}

/** There and back, by the definition of the format written one weight at a time. */
function roundTrip(type: Type, values: Float32Array): Float32Array {
  const { bytes, failed } = encode(type, values)
  expect(failed).toBe(-1)
  return decodeBlocks(type === 'Q4_K' ? 'q4_k' : 'q6_k', bytes, values.length)
}

function rmsOf(values: Float32Array, others: ArrayLike<number>): number {
  return Math.sqrt(values.reduce((sum, value, i) => sum + (value - others[i]) ** 2, 0) / values.length)
}

/** Sums of twelve uniform numbers are nearly normal. */
function normals(count: number, seed: number): Float32Array {
  const numbers = createNumbers(seed)
  return Float32Array.from({ length: count }, () => Array.from({ length: 12 }, () => numbers.float(-0.5, 0.5)).reduce((a, b) => a + b))
}

/** The plain way, with scales that nothing rounds: from the least to the largest of each group in even steps. */
function plain(type: Type, values: Float32Array): number[] {
  const width = type === 'Q4_K' ? 32 : 16
  return Array.from(values, (value, i) => {
    const group = values.subarray(i - (i % width), i - (i % width) + width)
    if (type === 'Q6_K') {
      const scale = Math.max(...group.map(Math.abs)) / 31
      return Math.round(value / scale) * scale
    }
    const [low, high] = [Math.min(0, ...group), Math.max(...group)]
    const scale = (high - low) / 15
    return low + Math.round((value - low) / scale) * scale
  })
}

describe.each(TYPES)('%s', (type) => {
  test('is nearer than even steps between the extremes, although its scales are rounded', () => {
    const values = normals(256 * 200, 3)
    const [own, even] = [rmsOf(values, roundTrip(type, values)), rmsOf(values, plain(type, values))]
    console.log(`${type}: error ${own.toFixed(4)} of the spread, even steps ${even.toFixed(4)}`)
    expect(own).toBeLessThan(even * (type === 'Q4_K' ? 0.98 : 1))
  })

  const number = fc.float({ min: -3, max: 3, noNaN: true })
  test('no value is further off than its group\'s range allows', () => {
    fc.assert(fc.property(fc.array(number, { minLength: 256, maxLength: 256 }), fc.integer({ min: -10, max: 8 }), (list, exponent) => {
      const values = Float32Array.from(list, (value) => value * 2 ** exponent)
      const back = roundTrip(type, values)
      const most = Math.max(...values.map(Math.abs))
      const width = type === 'Q4_K' ? 32 : 16
      values.forEach((value, i) => {
        const group = values.subarray(i - (i % width), i - (i % width) + width)
        const range = type === 'Q4_K' ? Math.max(...group, 0) - Math.min(...group, 0) : Math.max(...group.map(Math.abs))
        // A step where the ends are cut off, and what rounding the scales of all groups to the largest's 63rd or 128th part adds.
        const step = range / (type === 'Q4_K' ? 14 : 31)
        const ofScales = type === 'Q4_K' ? (15 / 126 / 14 + 1 / 126) * 2 * most : most / 128
        expect(Math.abs(back[i] - value)).toBeLessThanOrEqual(1.5 * step + ofScales + most / 1024)
      })
    }), { numRuns: 300 })
  })

  test.each([
    ['zeros', () => 0], ['one value', () => 0.75], ['one negative value', () => -0.75], ['above zero', (i: number) => 1 + (i % 7) / 7],
    ['below zero', (i: number) => -1 - (i % 7) / 7], ['one large among zeros', (i: number) => (i === 200 ? -5 : 0)]
  ] as const)('%s', (_, valueOf) => {
    const values = Float32Array.from({ length: 256 }, (_, i) => valueOf(i))
    const most = Math.max(...values.map(Math.abs))
    const back = roundTrip(type, values)
    values.forEach((value, i) => expect(Math.abs(back[i] - value)).toBeLessThanOrEqual(most * (type === 'Q4_K' ? 0.05 : 0.02)))
  })

  test('blocks too small for a half give zeros', () => {
    for (const size of [1e-45, 1e-40, 1e-30, 1e-12]) {
      expect(roundTrip(type, Float32Array.from({ length: 256 }, (_, i) => (i % 2 === 0 ? size : -size))).every((value) => value === 0)).toBe(true)
    }
  })

  test('what it cannot hold is named by its place', () => {
    for (const bad of [NaN, Infinity, -Infinity, 3e38, -3e38]) {
      for (const index of [0, 255, 256, 300, 511]) {
        const values = normals(512, 5)
        values[index] = bad
        expect(encode(type, values).failed).toBe(index)
      }
    }
  })

  test('a slice of a larger array, in a larger buffer', () => {
    const values = normals(768, 9)
    const whole = encode(type, values).bytes
    const third = whole.length / 3
    const out = new Uint8Array(third + 8)
    expect(ENCODERS[type].encode(values.subarray(256, 512), out.subarray(4, 4 + third))).toBe(-1)
    expect(out).toEqual(Uint8Array.of(0, 0, 0, 0, ...whole.subarray(third, 2 * third), 0, 0, 0, 0))
  })

  test('at speed: a tenth of what a quiet machine does will do', () => {
    const values = normals(2 ** 16, 1)
    const out = new Uint8Array((values.length / 256) * ENCODERS[type].blockBytes)
    let bestMs = Infinity
    for (let run = 0; run < 20; run++) {
      const start = performance.now()
      ENCODERS[type].encode(values, out)
      bestMs = Math.min(bestMs, performance.now() - start)
    }
    console.log(`${type}: ${(values.length / bestMs / 1000).toFixed(1)} M/s`)
    expect(values.length / (bestMs / 1000)).toBeGreaterThan(1.5e6 / COVERAGE_COST)
  })
})
