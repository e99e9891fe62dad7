/**
 * Panels of quantized weights, GGUF's q8_0 and q4_0 moved to their places, never requantized. For PANEL_ROWS rows and 32 inputs:
 *
 *   │ scales of rows 0–7, f32 │ weights │
 *
 *   q8_0 weights, 8 bits    │ row 0: k, k + 2, k + 1, k + 3 │ … │ row 7 │ k + 4 …     32 bytes four inputs; 128 is zero
 *   q4_0 weights, 4 bits    │ row 0: k │ row 0: k + 1 │ … │ row 3: k + 1 │ k + 4 …    16 bytes four inputs: in each 16-bit lane,
 *                           from the low end, the row's k, row + 4's k, the row's k + 2, row + 4's k + 2; 8 is zero
 *
 * So a mask and a shift take two inputs of four rows from 16 bytes of q8_0: unsigned, which is why zero is 128. q4_0's rows 4 to 7 come out
 * 16 times as large, and their scales are stored 16 times as small. Scales are f32 although the file's are halves: converting those in the
 * kernel cost a tenth of its time.
 *
 * Activations meet them as 16-bit integers with a scale for each 32 inputs: `i32x4.dot_i16x8_s` takes 16-bit operands anyway, so the
 * extra precision is free, and a block's sum is exact in 32 bits: 32 · 255 · 32767 < 2^28.
 */

import { FORMAT_Q8_0, HIGH_ROWS_FACTOR, PANEL_ROWS, Q4_0_BLOCK_BYTES, Q8_0_BLOCK_BYTES, QUANT_BLOCK } from '../abi'
import { at } from '../control'

export class Q8_0 {}
export class Q4_0 {}

const SCALES_BYTES: usize = <usize>PANEL_ROWS << 2

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

/** The integer weight of a row and an input within a block. */
// @ts-ignore: decorator
@inline
export function integerWeight(format: i32, block: usize, row: i32, k: i32): i32 {
  const place = weightsOf(block)
  if (format == FORMAT_Q8_0) return <i32>load<u8>(place + (k >> 2) * 32 + row * 4 + (k & 1) * 2 + ((k & 2) >> 1)) - 128
  const lane = <i32>load<u16>(place + (k >> 2) * 16 + (row & 3) * 4 + (k & 1) * 2)
  return ((lane >> ((row & 4) + ((k & 2) << 2))) & 15) - 8
}

/** The scale of a row's integers. */
// @ts-ignore: decorator
@inline
export function scaleOf(format: i32, block: usize, row: i32): f32 {
  const stored = load<f32>(at(block, row))
  return format == FORMAT_Q8_0 || row < 4 ? stored : stored * <f32>HIGH_ROWS_FACTOR
}

/** One weight of a panel, as a number. */
// @ts-ignore: decorator
@inline
export function blockWeight(format: i32, panel: usize, row: i32, k: i32): f32 {
  const block = panel + <usize>(k / QUANT_BLOCK) * blockBytes(format)
  return <f32>integerWeight(format, block, row, k % QUANT_BLOCK) * scaleOf(format, block, row)
}
