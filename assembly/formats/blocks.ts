/**
 * Panels of quantized weights, GGUF's q8_0 and q4_0 moved to their places, never requantized. For PANEL_ROWS rows and 32 inputs:
 *
 *   │ scales of rows 0–7 · 2^SCALE_SHIFT, f16 │ weights │
 *
 *   q8_0 weights, 8 bits    │ row 0: k, k + 1 │ … │ row 7: k, k + 1 │ k + 2 …           16 bytes two inputs
 *   q4_0 weights, 4 bits    │ row 0: k │ row 0: k + 1 │ … │ row 3: k + 1 │ k + 4 …    16 bytes four inputs: in each 16-bit lane,
 *                           from the low end, the row's k, row + 4's k, the row's k + 2, row + 4's k + 2; 8 is zero
 *
 * Activations meet them as 16-bit integers with a scale for each 32 inputs: `i32x4.dot_i16x8_s` takes 16-bit operands anyway, so the
 * extra precision is free, and a block's sum is exact in 32 bits: 32 · 127 · 32767 < 2^27.
 */

import { FORMAT_Q8_0, PANEL_ROWS, Q4_0_BLOCK_BYTES, Q8_0_BLOCK_BYTES, QUANT_BLOCK, SCALE_SHIFT } from '../abi'
import { at } from '../control'
import { halfToFloat, lowHalves } from '../math/half'

export class Q8_0 {}
export class Q4_0 {}

/** 2^-SCALE_SHIFT */
const SHIFT_BACK: f32 = 1.0 / <f32>(1 << SCALE_SHIFT)
const SCALES_BYTES: usize = <usize>PANEL_ROWS << 1

// @ts-ignore: decorator
@inline
export function isQ8<F>(): bool {
  return idof<F>() == idof<Q8_0>()
}

// @ts-ignore: decorator
@inline
export function blockBytes(format: i32): usize {
  return format == FORMAT_Q8_0 ? Q8_0_BLOCK_BYTES : Q4_0_BLOCK_BYTES
}

// @ts-ignore: decorator
@inline
export function blockPanelBytes(format: i32, nIn: i32): usize {
  return <usize>(nIn / QUANT_BLOCK) * blockBytes(format)
}

/** The weights of a block, after its scales. */
// @ts-ignore: decorator
@inline
export function weightsOf(block: usize): usize {
  return block + SCALES_BYTES
}

/** Scales of rows 0–3 or, with offset 8, of rows 4–7. */
// @ts-ignore: decorator
@inline
export function scaleLanes(block: usize, offset: usize): v128 {
  return lowHalves(v128.load16x4_u(block + offset))
}

/** The integer weight of a row and an input within a block; q4_0's without its 8 taken off. */
// @ts-ignore: decorator
@inline
export function storedWeight(format: i32, block: usize, row: i32, k: i32): i32 {
  if (format == FORMAT_Q8_0) return load<i8>(weightsOf(block) + (k >> 1) * 16 + row * 2 + (k & 1))
  const lane = <i32>load<u16>(weightsOf(block) + (k >> 2) * 16 + (row & 3) * 4 + (k & 1) * 2)
  return (lane >> ((row & 4) + ((k & 2) << 2))) & 15
}

// @ts-ignore: decorator
@inline
export function scaleOf(block: usize, row: i32): f32 {
  return halfToFloat(load<u16>(block + (<usize>row << 1)))
}

/** One weight of a panel, as a number. */
// @ts-ignore: decorator
@inline
export function blockWeight(format: i32, panel: usize, row: i32, k: i32): f32 {
  const block = panel + <usize>(k / QUANT_BLOCK) * blockBytes(format)
  const stored = storedWeight(format, block, row, k % QUANT_BLOCK)
  return <f32>(format == FORMAT_Q8_0 ? stored : stored - 8) * (scaleOf(block, row) * SHIFT_BACK)
}

/**
 * Activations of nRows rows as 16-bit integers, in scratch:
 *
 *   │ integers (nRows, nIn), i16 │ scales (nRows, nIn / 32), f32 │ −8 · sums of the integers (nRows, nIn / 32), i32 │
 *
 * The scale is the largest magnitude of a block over 32767, times 2^-SCALE_SHIFT; a block below 1e-30 counts as zero. NaN makes the scale NaN.
 */
export function quantizeRows(x: usize, stride: i32, nRows: i32, nIn: i32, scratch: usize): void {
  const nBlocks = nRows * nIn / QUANT_BLOCK
  let scales = scratch + (<usize>(nRows * nIn) << 1)
  let integers = scratch
  for (let row = 0; row < nRows; row++) {
    for (let k = 0; k < nIn; k += QUANT_BLOCK) {
      const block = at(x, row * stride + k)
      const largest = largestOf(block)
      const isZero = largest < 1e-30
      const inverse: f32 = isZero ? 0 : <f32>32767 / largest
      store<f32>(scales, isZero ? 0 : largest / 32767 * SHIFT_BACK)
      store<i32>(at(scales, nBlocks), -8 * quantizeBlock(block, inverse, integers))
      scales += 4
      integers += QUANT_BLOCK << 1
    }
  }
}

function largestOf(block: usize): f32 {
  let largest: f32 = 0
  if (ASC_FEATURE_SIMD) {
    let lanes = f32x4.abs(v128.load(block))
    for (let k = 4; k < QUANT_BLOCK; k += 4) lanes = f32x4.max(lanes, f32x4.abs(v128.load(at(block, k))))
    largest = max<f32>(
      max<f32>(f32x4.extract_lane(lanes, 0), f32x4.extract_lane(lanes, 1)),
      max<f32>(f32x4.extract_lane(lanes, 2), f32x4.extract_lane(lanes, 3))
    )
  } else {
    for (let k = 0; k < QUANT_BLOCK; k++) largest = max<f32>(largest, abs<f32>(load<f32>(at(block, k))))
  }
  return largest
}

/** Rounds to the nearest integer, ties to even; returns the integers' sum. */
function quantizeBlock(block: usize, inverse: f32, integers: usize): i32 {
  let sum = 0
  if (ASC_FEATURE_SIMD) {
    const factor = f32x4.splat(inverse)
    let sums = i32x4.splat(0)
    for (let k = 0; k < QUANT_BLOCK; k += 8) {
      const low = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(at(block, k)), factor)))
      const high = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(at(block, k), 16), factor)))
      v128.store(integers + (k << 1), i16x8.narrow_i32x4_s(low, high))
      sums = i32x4.add(sums, i32x4.add(low, high))
    }
    sum = i32x4.extract_lane(sums, 0) + i32x4.extract_lane(sums, 1) + i32x4.extract_lane(sums, 2) + i32x4.extract_lane(sums, 3)
  } else {
    for (let k = 0; k < QUANT_BLOCK; k++) {
      const integer = <i32>nearest<f32>(load<f32>(at(block, k)) * inverse)
      store<i16>(integers + (k << 1), <i16>integer)
      sum += integer
    }
  }
  return sum
}
