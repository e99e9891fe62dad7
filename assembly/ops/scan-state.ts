/** Moves the scan's state between its slot (dInner, dState) and tiles of LANES channels: transposes of four by four. */

import { LANES } from '../abi'
import { at } from '../control'

/** Slot (channel, dState) → tile (dState, LANES). Unused lanes are zero. */
export function loadState(slot: usize, state: usize, dState: i32, nLanes: i32): void {
  let n = 0
  if (ASC_FEATURE_SIMD && nLanes == LANES) {
    for (; n + 4 <= dState; n += 4) transpose(at(slot, n), dState, at(state, n * LANES), LANES)
  }
  for (; n < dState; n++) {
    for (let lane = 0; lane < LANES; lane++) {
      store<f32>(at(state, n * LANES + lane), lane < nLanes ? load<f32>(at(slot, lane * dState + n)) : 0)
    }
  }
}

/** Tile (dState, LANES) → slot (channel, dState). */
export function storeState(slot: usize, state: usize, dState: i32, nLanes: i32): void {
  let n = 0
  if (ASC_FEATURE_SIMD && nLanes == LANES) {
    for (; n + 4 <= dState; n += 4) transpose(at(state, n * LANES), LANES, at(slot, n), dState)
  }
  for (; n < dState; n++) {
    for (let lane = 0; lane < nLanes; lane++) store<f32>(at(slot, lane * dState + n), load<f32>(at(state, n * LANES + lane)))
  }
}

/** Four rows of four, `fromStride` elements apart, to their transpose: at one token a sequence, moving the state costs more than the step. */
// @ts-ignore: decorator
@inline
function transpose(from: usize, fromStride: i32, to: usize, toStride: i32): void {
  const a = v128.load(from)
  const b = v128.load(at(from, fromStride))
  const c = v128.load(at(from, 2 * fromStride))
  const d = v128.load(at(from, 3 * fromStride))
  storeTransposed(a, b, c, d, to, <usize>toStride << 2)
}

/** The columns of four rows, `rowBytes` apart. */
// @ts-ignore: decorator
@inline
export function storeTransposed(a: v128, b: v128, c: v128, d: v128, to: usize, rowBytes: usize): void {
  const abLow = lowPairs(a, b)
  const cdLow = lowPairs(c, d)
  const abHigh = highPairs(a, b)
  const cdHigh = highPairs(c, d)
  v128.store(to, firstHalves(abLow, cdLow))
  v128.store(to + rowBytes, secondHalves(abLow, cdLow))
  v128.store(to + 2 * rowBytes, firstHalves(abHigh, cdHigh))
  v128.store(to + 3 * rowBytes, secondHalves(abHigh, cdHigh))
}

/** a0 b0 a1 b1 */
// @ts-ignore: decorator
@inline
export function lowPairs(a: v128, b: v128): v128 {
  return v128.shuffle<f32>(a, b, 0, 4, 1, 5)
}

/** a2 b2 a3 b3 */
// @ts-ignore: decorator
@inline
export function highPairs(a: v128, b: v128): v128 {
  return v128.shuffle<f32>(a, b, 2, 6, 3, 7)
}

/** a0 a1 b0 b1 */
// @ts-ignore: decorator
@inline
export function firstHalves(a: v128, b: v128): v128 {
  return v128.shuffle<f32>(a, b, 0, 1, 4, 5)
}

/** a2 a3 b2 b3 */
// @ts-ignore: decorator
@inline
export function secondHalves(a: v128, b: v128): v128 {
  return v128.shuffle<f32>(a, b, 2, 3, 6, 7)
}
