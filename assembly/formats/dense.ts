/**
 * Panels of floating-point weights: PANEL_ROWS output rows, inputs in sequence.
 *
 *   f32         │ k: rows 0–7 │ k + 1: rows 0–7 │ …                       32 bytes an input
 *   bf16, f16   │ row 0: k, k + 1 │ … │ row 7: k, k + 1 │ k + 2 …         32 bytes two inputs: each row's pair in one 32-bit lane
 *
 * All are exact in f32, so the same values give the same results in every format.
 */

import { FORMAT_F16, FORMAT_F32, PANEL_ROWS } from '../abi'
import { at } from '../control'
import { halfMask, halfToFloat, highHalves, lowHalves } from '../math/half'

/** Formats as types, so that a kernel's branches on them vanish at compile time. */
export class F32 {}
export class Bf16 {}
export class F16 {}

// @ts-ignore: decorator
@inline
export function isF32<F>(): bool {
  return idof<F>() == idof<F32>()
}

const HIGH_MASK: usize = memory.data<u32>([0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000], 16)

/** What the two below take, to be loaded before a loop. */
// @ts-ignore: decorator
@inline
export function maskOf<F>(): v128 {
  return idof<F>() == idof<F16>() ? halfMask() : v128.load(HIGH_MASK)
}

/** Weights of input k, from the lanes that hold k and k + 1. */
// @ts-ignore: decorator
@inline
export function evenWeights<F>(pairs: v128, mask: v128, scale: v128): v128 {
  return idof<F>() == idof<Bf16>() ? i32x4.shl(pairs, 16) : lowHalves(pairs, mask, scale)
}

/** Weights of input k + 1. */
// @ts-ignore: decorator
@inline
export function oddWeights<F>(pairs: v128, mask: v128, scale: v128): v128 {
  return idof<F>() == idof<Bf16>() ? v128.and(pairs, mask) : highHalves(pairs, mask, scale)
}

/** Bytes of a panel. */
// @ts-ignore: decorator
@inline
export function densePanelBytes(format: i32, nIn: i32): usize {
  return <usize>nIn * PANEL_ROWS * (format == FORMAT_F32 ? 4 : 2)
}

/** One weight of a panel. */
// @ts-ignore: decorator
@inline
export function denseWeight(format: i32, panel: usize, row: i32, k: i32): f32 {
  if (format == FORMAT_F32) return load<f32>(at(panel, k * PANEL_ROWS + row))
  const bits = load<u16>(at(panel, (k >> 1) * PANEL_ROWS + row) + (<usize>(k & 1) << 1))
  return format == FORMAT_F16 ? halfToFloat(bits) : reinterpret<f32>(<u32>bits << 16)
}
