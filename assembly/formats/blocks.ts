/**
 * Panels of quantized weights. GGUF's blocks are moved to their places, never requantized: src/backend/wasm/panel-blocks.ts says which
 * of these forms each of its types takes. For PANEL_ROWS rows and 32 inputs (16 in Bytes16):
 *
 *   │ scales of rows 0–7, f32 │ minima of rows 0–7, f32, where the form has them │ integers │
 *
 *   Bytes, BytesMin, Bytes16    │ row 0: k, k + 2, k + 1, k + 3 │ … │ row 7 │ k + 4 …   32 bytes four inputs
 *   Nibbles, NibblesMin         │ row 0: k │ row 0: k + 1 │ … │ row 3: k + 1 │ k + 4 …  16 bytes four inputs: in each 16-bit lane,
 *                               from the low end, the row's k, row + 4's k, the row's k + 2, row + 4's k + 2
 *
 * weight = scale · integer + minimum. Without minima the integers have either sign and are stored plus 128 or 8. So a mask and a shift take
 * two inputs of four rows from 16 bytes, unsigned. Of nibbles, rows 4 to 7 come out 16 times as large, and their scales are stored 16 times
 * as small. Scales are f32 although GGUF's are halves or products of them: converting halves in the kernel cost a tenth of its time.
 *
 * SignedBytes and SignedNibbles are Bytes and Nibbles for the builds that multiply bytes (ops/linear-dot.ts): integers as they are, in two's
 * complement; of nibbles all rows come out 16 times as large; and a scale's lowest SUM_BITS bits, zeros in a half float, hold the sum of its 32 integers.
 *
 * Activations meet them as integers with a scale for each block. `i32x4.dot_i16x8_s` takes 16-bit operands anyway, so 16 bits are free, and a block's
 * sum is exact in 32 bits: 32 · 255 · 32767 < 2^28. Products of bytes take two digits of 7 bits each: where there are such, every build has 14 bits.
 */

import {
  FORMAT_Q4, FORMAT_Q4_DOT, FORMAT_Q4_MIN, FORMAT_Q8, FORMAT_Q8_DOT, FORMAT_Q8_HALF, FORMAT_Q8_MIN, HALF_QUANT_BLOCK, HIGH_ROWS_FACTOR, PANEL_ROWS,
  Q4_BLOCK_BYTES, Q4_MIN_BLOCK_BYTES, Q4_ZERO, Q8_BLOCK_BYTES, Q8_HALF_BLOCK_BYTES, Q8_MIN_BLOCK_BYTES, Q8_ZERO, QUANT_BLOCK, SUM_BITS
} from '../abi'
import { at } from '../control'

/** Forms as types, so that a kernel's branches on them vanish at compile time; what follows takes the format's code for the other kernels. */
export class Bytes {}
export class Nibbles {}
export class BytesMin {}
export class NibblesMin {}
export class Bytes16 {}
export class SignedBytes {}
export class SignedNibbles {}

// @ts-ignore: decorator
@inline
export function formatOf<F>(): i32 {
  if (idof<F>() == idof<Bytes>()) return FORMAT_Q8
  if (idof<F>() == idof<Nibbles>()) return FORMAT_Q4
  if (idof<F>() == idof<BytesMin>()) return FORMAT_Q8_MIN
  if (idof<F>() == idof<SignedBytes>()) return FORMAT_Q8_DOT
  if (idof<F>() == idof<SignedNibbles>()) return FORMAT_Q4_DOT
  return idof<F>() == idof<NibblesMin>() ? FORMAT_Q4_MIN : FORMAT_Q8_HALF
}

// @ts-ignore: decorator
@inline
export function isBytes(format: i32): bool {
  return format != FORMAT_Q4 && format != FORMAT_Q4_MIN && format != FORMAT_Q4_DOT
}

/** Made for products of bytes. */
// @ts-ignore: decorator
@inline
export function isSigned(format: i32): bool {
  return format == FORMAT_Q8_DOT || format == FORMAT_Q4_DOT
}

/** The largest magnitude of the activations' integers: the same in all builds. */
// @ts-ignore: decorator
@inline
export function activationLimit(format: i32): i32 {
  return format == FORMAT_Q8 || format == FORMAT_Q4 || isSigned(format) ? 8191 : 32767
}

// @ts-ignore: decorator
@inline
export function hasMinima(format: i32): bool {
  return format == FORMAT_Q8_MIN || format == FORMAT_Q4_MIN
}

/** What was added to the integers. */
// @ts-ignore: decorator
@inline
export function zeroOf(format: i32): i32 {
  return hasMinima(format) ? 0 : isBytes(format) ? Q8_ZERO : Q4_ZERO
}

/** Inputs of a block. */
// @ts-ignore: decorator
@inline
export function blockInputs(format: i32): i32 {
  return format == FORMAT_Q8_HALF ? HALF_QUANT_BLOCK : QUANT_BLOCK
}

// @ts-ignore: decorator
@inline
export function blockBytes(format: i32): usize {
  switch (format) {
    case FORMAT_Q8:
    case FORMAT_Q8_DOT: return Q8_BLOCK_BYTES
    case FORMAT_Q4:
    case FORMAT_Q4_DOT: return Q4_BLOCK_BYTES
    case FORMAT_Q8_MIN: return Q8_MIN_BLOCK_BYTES
    case FORMAT_Q4_MIN: return Q4_MIN_BLOCK_BYTES
    default: return Q8_HALF_BLOCK_BYTES
  }
}

// @ts-ignore: decorator
@inline
export function blockPanelBytes(format: i32, nIn: i32): usize {
  return <usize>(nIn / blockInputs(format)) * blockBytes(format)
}

const SCALES_BYTES: usize = <usize>PANEL_ROWS << 2

/** The minima of a block, after its scales. */
// @ts-ignore: decorator
@inline
export function minimaOf(block: usize): usize {
  return block + SCALES_BYTES
}

/** The integers of a block. */
// @ts-ignore: decorator
@inline
export function integersIn(format: i32, block: usize): usize {
  return block + (hasMinima(format) ? 2 * SCALES_BYTES : SCALES_BYTES)
}

/** The integer of a row and an input within a block. */
// @ts-ignore: decorator
@inline
export function integerWeight(format: i32, block: usize, row: i32, k: i32): i32 {
  const place = integersIn(format, block)
  if (isBytes(format)) {
    const byte = place + (k >> 2) * 32 + row * 4 + (k & 1) * 2 + ((k & 2) >> 1)
    return isSigned(format) ? <i32>load<i8>(byte) : <i32>load<u8>(byte) - zeroOf(format)
  }
  const lane = <i32>load<u16>(place + (k >> 2) * 16 + (row & 3) * 4 + (k & 1) * 2)
  const nibble = (lane >> ((row & 4) + ((k & 2) << 2))) & 15
  return isSigned(format) ? (nibble << 28) >> 28 : nibble - zeroOf(format)
}

/** The scale of a row's integers. */
// @ts-ignore: decorator
@inline
export function scaleOf(format: i32, block: usize, row: i32): f32 {
  const stored = load<i32>(at(block, row))
  const scale = reinterpret<f32>(isSigned(format) ? stored >> SUM_BITS << SUM_BITS : stored)
  return isBytes(format) || (row < 4 && !isSigned(format)) ? scale : scale * <f32>HIGH_ROWS_FACTOR
}

/** A row's minimum, where the form has them. */
// @ts-ignore: decorator
@inline
export function minimumOf(block: usize, row: i32): f32 {
  return load<f32>(at(minimaOf(block), row))
}

/** One weight of a panel, as a number. */
export function blockWeight(format: i32, panel: usize, row: i32, k: i32): f32 {
  const block = panel + <usize>(k / blockInputs(format)) * blockBytes(format)
  const product = <f32>integerWeight(format, block, row, k % blockInputs(format)) * scaleOf(format, block, row)
  return hasMinima(format) ? product + minimumOf(block, row) : product
}
