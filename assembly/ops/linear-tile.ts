/**
 * How many rows of activations a kernel takes at a time, as types, so that its branches on them vanish at compile time. Each sum is added up
 * in the same order whatever the tile, so tiles decide no bit.
 */

import { isF32, F16 } from '../formats/dense'
import { Bytes, Bytes16, BytesMin } from '../formats/blocks'

export class One {}
export class Two {}
export class Three {}
export class Four {}

// @ts-ignore: decorator
@inline
export function countOf<N>(): i32 {
  if (idof<N>() == idof<One>()) return 1
  if (idof<N>() == idof<Two>()) return 2
  return idof<N>() == idof<Three>() ? 3 : 4
}

/** The formats whose weights come out of memory with one mask or none. */
// @ts-ignore: decorator
@inline
function isSimple<F>(): bool {
  return isF32<F>() || idof<F>() == idof<Bytes>() || idof<F>() == idof<BytesMin>() || idof<F>() == idof<Bytes16>()
}

/**
 * Rows of a tile at most, on weights as they are stored. Four rows take eight registers for their sums; with masks and weights on top V8 of
 * Node 20 has too few, and four rows are slower than three: by 26 % in bf16, by 19 % in q4_0.
 */
// @ts-ignore: decorator
@inline
export function mostRows<F>(): i32 {
  return isSimple<F>() ? 4 : 3
}

/**
 * From so many rows on a panel is unpacked once for all of them, which costs a store, and a load for each tile: f16 is unpacked by a product,
 * bytes by a mask. Tried with 4, 8, 16, 32 and 64 rows.
 */
// @ts-ignore: decorator
@inline
export function manyRows<F>(): i32 {
  return idof<F>() == idof<F16>() ? 4 : isSimple<F>() ? 48 : 32
}

/** Rows of the next tile, of two rows or more: as many as it takes, but never so that one is left over. */
// @ts-ignore: decorator
@inline
export function tileRows(left: i32, most: i32): i32 {
  return left == most + 1 ? (left + 1) >> 1 : min(left, most)
}

/**
 * Panels that a few rows go over tile by tile stay in L2 meanwhile. One panel at a time interrupts the stream from memory at its end: eight
 * rows in q8_0 were an eighth slower than four, and are as fast.
 */
const GROUP_BYTES: usize = 131072

// @ts-ignore: decorator
@inline
export function groupPanels(panelBytes: usize): i32 {
  return <i32>max<usize>(1, GROUP_BYTES / panelBytes)
}
