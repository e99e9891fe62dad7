/** Products of matrices, a tile of 4 rows × 8 columns at a time: eight sums in registers, which share the loads of both operands. */

import { FLUSH_LANES } from './flush'
import { multiplyAdd } from './multiply-add'

export const ROWS: i32 = 4
export const COLUMNS: i32 = 8
/** Bytes of a row where a tile, or a panel of a right operand, lies by itself. */
export const TILE_ROW: usize = <usize>COLUMNS << 2

/**
 * tile[i, c] = scale[c] · tile[i, c] + Σ_k left[i, k] · right[k, c], k ascending, of ROWS rows and COLUMNS columns, flushed; scale 0: the sum alone.
 * The rows of left and of the tile are leftRow and tileRow bytes apart, 0 for one row; its k leftStep.
 */
export function multiply(left: usize, leftRow: usize, leftStep: usize, right: usize, count: i32, tile: usize, tileRow: usize, scale: usize): void {
  const tile1 = tile + tileRow
  const tile2 = tile1 + tileRow
  const tile3 = tile2 + tileRow
  let a0 = f32x4.splat(0)
  let a1 = a0
  let b0 = a0
  let b1 = a0
  let c0 = a0
  let c1 = a0
  let d0 = a0
  let d1 = a0
  if (scale) {
    const scale0 = v128.load(scale)
    const scale1 = v128.load(scale, 16)
    a0 = f32x4.mul(v128.load(tile), scale0)
    a1 = f32x4.mul(v128.load(tile, 16), scale1)
    b0 = f32x4.mul(v128.load(tile1), scale0)
    b1 = f32x4.mul(v128.load(tile1, 16), scale1)
    c0 = f32x4.mul(v128.load(tile2), scale0)
    c1 = f32x4.mul(v128.load(tile2, 16), scale1)
    d0 = f32x4.mul(v128.load(tile3), scale0)
    d1 = f32x4.mul(v128.load(tile3, 16), scale1)
  }
  const row2 = leftRow << 1
  const row3 = row2 + leftRow
  const end = right + <usize>count * TILE_ROW
  for (; right < end; right += TILE_ROW) {
    const right0 = v128.load(right)
    const right1 = v128.load(right, 16)
    const a = v128.load32_splat(left)
    a0 = multiplyAdd(a, right0, a0)
    a1 = multiplyAdd(a, right1, a1)
    const b = v128.load32_splat(left + leftRow)
    b0 = multiplyAdd(b, right0, b0)
    b1 = multiplyAdd(b, right1, b1)
    const c = v128.load32_splat(left + row2)
    c0 = multiplyAdd(c, right0, c0)
    c1 = multiplyAdd(c, right1, c1)
    const d = v128.load32_splat(left + row3)
    d0 = multiplyAdd(d, right0, d0)
    d1 = multiplyAdd(d, right1, d1)
    left += leftStep
  }
  storeFlushed(tile, a0, a1)
  storeFlushed(tile1, b0, b1)
  storeFlushed(tile2, c0, c1)
  storeFlushed(tile3, d0, d1)
}

// @ts-ignore: decorator
@inline
function storeFlushed(place: usize, low: v128, high: v128): void {
  const flush = v128.load(FLUSH_LANES)
  v128.store(place, f32x4.sub(f32x4.add(low, flush), flush))
  v128.store(place, f32x4.sub(f32x4.add(high, flush), flush), 16)
}

/** The columns of four rows that lie TILE_ROW apart, one after the other. */
// @ts-ignore: decorator
@inline
export function turn(from: usize, to: usize): void {
  const a = v128.load(from)
  const b = v128.load(from, TILE_ROW)
  const c = v128.load(from, 2 * TILE_ROW)
  const d = v128.load(from, 3 * TILE_ROW)
  const abLow = v128.shuffle<f32>(a, b, 0, 4, 1, 5)
  const abHigh = v128.shuffle<f32>(a, b, 2, 6, 3, 7)
  const cdLow = v128.shuffle<f32>(c, d, 0, 4, 1, 5)
  const cdHigh = v128.shuffle<f32>(c, d, 2, 6, 3, 7)
  v128.store(to, v128.shuffle<f32>(abLow, cdLow, 0, 1, 4, 5))
  v128.store(to, v128.shuffle<f32>(abLow, cdLow, 2, 3, 6, 7), 16)
  v128.store(to, v128.shuffle<f32>(abHigh, cdHigh, 0, 1, 4, 5), 32)
  v128.store(to, v128.shuffle<f32>(abHigh, cdHigh, 2, 3, 6, 7), 48)
}
