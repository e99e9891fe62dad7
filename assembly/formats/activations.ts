/**
 * Activations as the quantized products take them: 16-bit integers with a scale for each block of inputs, 32 or 16 as the weights have it,
 * in scratch:
 *
 *   │ integers (nRows, nIn), i16 │ scales (nRows, nBlocks), f32 │ sums of the integers (nRows, nBlocks), i32 │
 */

import { at } from '../control'

const MAGNITUDE: i32 = 0x7fffffff
/** 1.5 · 2^23: what is added to it is rounded to an integer, ties to even, which its low bits then hold. */
const ROUNDER: f32 = 12582912
const ROUNDER_BITS: i32 = 0x4b400000
/** Vectors in memory: see CONSTANTS in assembly/math/exp.ts. */
const MAGNITUDE_LANES: usize = memory.data<i32>([MAGNITUDE, MAGNITUDE, MAGNITUDE, MAGNITUDE], 16)
const ROUNDER_LANES: usize = memory.data<f32>([ROUNDER, ROUNDER, ROUNDER, ROUNDER], 16)

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
 * Quantizes nRows rows in blocks of `width` inputs, a multiple of 8. The scale is the largest magnitude of a block over 32767; a block below 1e-30 counts as zero. A block with an
 * infinity or a NaN has a NaN for its scale.
 */
export function quantizeRows(x: usize, stride: i32, nRows: i32, nIn: i32, width: i32, scratch: usize): void {
  const nBlocks = nRows * (nIn / width)
  let scales = scalesOf(scratch, nRows, 0, nIn, 0)
  let integers = scratch
  for (let row = 0; row < nRows; row++) {
    let block = at(x, row * stride)
    for (const end = at(block, nIn); block < end; block += width << 2) {
      const largest = reinterpret<f32>(largestBits(block, width))
      const isZero = largest < 1e-30
      const inverse: f32 = isZero ? 0 : <f32>32767 / largest
      store<f32>(scales, isZero ? 0 : largest / 32767 + (largest - largest))
      store<i32>(at(scales, nBlocks), quantizeBlock(block, width, inverse, integers))
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

/** Rounds to the nearest integer, ties to even; returns the integers' sum. */
// @ts-ignore: decorator
@inline
function quantizeBlock(block: usize, width: i32, inverse: f32, integers: usize): i32 {
  let sum = 0
  if (ASC_FEATURE_SIMD) {
    const factor = f32x4.splat(inverse)
    const rounder = v128.load(ROUNDER_LANES)
    let sums = i32x4.splat(0)
    for (let k = 0; k < width; k += 8) {
      const low = i32x4.sub(f32x4.add(f32x4.mul(v128.load(at(block, k)), factor), rounder), rounder)
      const high = i32x4.sub(f32x4.add(f32x4.mul(v128.load(at(block, k), 16), factor), rounder), rounder)
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
