/**
 * Activations as the quantized products take them: integers with a scale for each block of inputs, 32 or 16 as the weights have it, in scratch:
 *
 *   │ integers (nRows, nIn), i16 │ scales (nRows, nBlocks), f32 │ sums of the integers (nRows, nBlocks), i32 │
 *
 * For products of bytes x + 2^13 = 2^7 · upper + lower stands in the place of an integer x, two digits without a sign, for each four inputs
 *
 *   │ upper: k, k + 2, k + 1, k + 3 │ lower: k, k + 2, k + 1, k + 3 │
 *
 * in the order of the panels, and there are no sums.
 */

import { at } from '../control'
import { activationLimit, blockInputs, isSigned } from './blocks'

const MAGNITUDE: i32 = 0x7fffffff
/** 1.5 · 2^23: what is added to it is rounded to an integer, ties to even, which its low bits then hold. */
const ROUNDER: f32 = 12582912
const ROUNDER_BITS: i32 = 0x4b400000
/** Vectors in memory: see CONSTANTS in assembly/math/exp.ts. */
const MAGNITUDE_LANES: usize = memory.data<i32>([MAGNITUDE, MAGNITUDE, MAGNITUDE, MAGNITUDE], 16)
const ROUNDER_LANES: usize = memory.data<f32>([ROUNDER, ROUNDER, ROUNDER, ROUNDER], 16)
const DIGITS_ZERO: usize = memory.data<i16>([8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192], 16)
const DIGIT_MASK: usize = memory.data<i16>([127, 127, 127, 127, 127, 127, 127, 127], 16)
/** A block below it counts as zero: no product of two scales is subnormal, so that a power of two in one of them changes no bit. */
const LEAST_ACTIVATION: f32 = 1e-25

/** Integers of a row. */
// @ts-ignore: decorator
@inline
export function integersOf(inputs: usize, row: i32, nIn: i32): usize {
  return inputs + (<usize>(row * nIn) << 1)
}

/** Scales of a row's `rowBlocks` blocks, of `count` rows; the sums stand count · rowBlocks elements on. */
// @ts-ignore: decorator
@inline
export function scalesOf(inputs: usize, count: i32, row: i32, nIn: i32, rowBlocks: i32): usize {
  return at(integersOf(inputs, count, nIn), row * rowBlocks)
}

/** What follows the activations of `count` rows, at a multiple of 16 bytes. */
// @ts-ignore: decorator
@inline
export function afterActivations(inputs: usize, count: i32, nIn: i32, rowBlocks: i32): usize {
  return (at(integersOf(inputs, count, nIn), 2 * count * rowBlocks) + 15) & ~15
}

/**
 * Quantizes nRows rows for weights of a format. The scale is the largest magnitude of a block over the largest integer. A block with an infinity or a NaN
 * has a NaN for its scale.
 */
export function quantizeRows(x: usize, stride: i32, nRows: i32, nIn: i32, format: i32, scratch: usize): void {
  const width = blockInputs(format)
  const limit = <f32>activationLimit(format)
  const nBlocks = nRows * (nIn / width)
  let scales = scalesOf(scratch, nRows, 0, nIn, 0)
  let integers = scratch
  for (let row = 0; row < nRows; row++) {
    let block = at(x, row * stride)
    for (const end = at(block, nIn); block < end; block += width << 2) {
      const largest = reinterpret<f32>(largestBits(block, width))
      const isZero = largest < LEAST_ACTIVATION
      const inverse: f32 = isZero ? 0 : limit / largest
      store<f32>(scales, isZero ? 0 : largest / limit + (largest - largest))
      if (ASC_FEATURE_RELAXED_SIMD && isSigned(format)) splitBlock(block, width, inverse, integers)
      else store<i32>(at(scales, nBlocks), quantizeBlock(block, width, inverse, integers))
      scales += 4
      integers += width << 1
    }
  }
}

/** The bits of the largest magnitude: as integers they are in the order of the numbers, NaN above all. */
// @ts-ignore: decorator
@inline
function largestBits(block: usize, width: i32): i32 {
  let largest = 0
  if (ASC_FEATURE_SIMD) {
    const magnitude = v128.load(MAGNITUDE_LANES)
    let lanes = v128.and(v128.load(block), magnitude)
    let others = v128.and(v128.load(block, 16), magnitude)
    for (let k = 8; k < width; k += 8) {
      lanes = i32x4.max_s(lanes, v128.and(v128.load(at(block, k)), magnitude))
      others = i32x4.max_s(others, v128.and(v128.load(at(block, k), 16), magnitude))
    }
    lanes = i32x4.max_s(lanes, others)
    lanes = i32x4.max_s(lanes, i32x4.shuffle(lanes, lanes, 2, 3, 0, 1))
    largest = i32x4.extract_lane(i32x4.max_s(lanes, i32x4.shuffle(lanes, lanes, 1, 0, 3, 2)), 0)
  } else {
    for (let k = 0; k < width; k++) largest = max(largest, load<i32>(at(block, k)) & MAGNITUDE)
  }
  return largest
}

/** Four activations times `factor`, rounded to the nearest integer, ties to even. */
// @ts-ignore: decorator
@inline
function integersAt(x: usize, factor: v128, rounder: v128): v128 {
  return i32x4.sub(f32x4.add(f32x4.mul(v128.load(x), factor), rounder), rounder)
}

/** A block's integers as digits. */
// @ts-ignore: decorator
@inline
function splitBlock(block: usize, width: i32, inverse: f32, digits: usize): void {
  const factor = f32x4.splat(inverse)
  const rounder = v128.load(ROUNDER_LANES)
  const zero = v128.load(DIGITS_ZERO)
  const mask = v128.load(DIGIT_MASK)
  for (let k = 0; k < width; k += 8) {
    const integers = i16x8.narrow_i32x4_s(integersAt(at(block, k), factor, rounder), integersAt(at(block, k + 4), factor, rounder))
    const raised = i16x8.add(integers, zero)
    const bytes = i8x16.narrow_i16x8_u(i16x8.shr_u(raised, 7), v128.and(raised, mask))
    v128.store(digits + (k << 1), i8x16.shuffle(bytes, bytes, 0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15))
  }
}

/** Returns the sum of a block's integers. */
// @ts-ignore: decorator
@inline
function quantizeBlock(block: usize, width: i32, inverse: f32, integers: usize): i32 {
  let sum = 0
  if (ASC_FEATURE_SIMD) {
    const factor = f32x4.splat(inverse)
    const rounder = v128.load(ROUNDER_LANES)
    let sums = i32x4.splat(0)
    for (let k = 0; k < width; k += 8) {
      const low = integersAt(at(block, k), factor, rounder)
      const high = integersAt(at(block, k + 4), factor, rounder)
      v128.store(integers + (k << 1), i16x8.narrow_i32x4_s(low, high))
      sums = i32x4.add(sums, i32x4.add(low, high))
    }
    sums = i32x4.add(sums, i32x4.shuffle(sums, sums, 2, 3, 0, 1))
    sum = i32x4.extract_lane(i32x4.add(sums, i32x4.shuffle(sums, sums, 1, 0, 3, 2)), 0)
  } else {
    for (let k = 0; k < width; k++) {
      const integer = reinterpret<i32>(load<f32>(at(block, k)) * inverse + ROUNDER) - ROUNDER_BITS
      store<i16>(integers + (k << 1), <i16>integer)
      sum += integer
    }
  }
  return sum
}
