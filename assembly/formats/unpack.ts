/** Two inputs of four rows at a time, as 16-bit lanes, out of the panels that formats/blocks.ts draws. */

import { formatOf, isBytes } from './blocks'

/** Bytes of four inputs of a panel. */
// @ts-ignore: decorator
@inline
export function quadBytes<F>(): usize {
  return isBytes(formatOf<F>()) ? 32 : 16
}

/** In memory: see CONSTANTS in assembly/math/exp.ts. */
const LOW_BYTES: usize = memory.data<u16>([255, 255, 255, 255, 255, 255, 255, 255], 16)
const LOW_NIBBLES: usize = memory.data<u16>([15, 15, 15, 15, 15, 15, 15, 15], 16)
const HIGH_NIBBLES: usize = memory.data<u16>([240, 240, 240, 240, 240, 240, 240, 240], 16)

/** Picks the first two inputs of rows 0–3 out of the lanes of four; the second two are 8 bits further up. */
// @ts-ignore: decorator
@inline
export function lowMask<F>(): v128 {
  return isBytes(formatOf<F>()) ? v128.load(LOW_BYTES) : v128.load(LOW_NIBBLES)
}

/** The same of rows 4–7, where nibbles are 16 times as large. */
// @ts-ignore: decorator
@inline
export function highMask<F>(): v128 {
  return isBytes(formatOf<F>()) ? v128.load(LOW_BYTES) : v128.load(HIGH_NIBBLES)
}

/** The 16 bytes with rows 4–7 of four inputs, given those with rows 0–3: of nibbles they are the same. */
// @ts-ignore: decorator
@inline
export function highQuad<F>(quad: usize, low: v128): v128 {
  return isBytes(formatOf<F>()) ? v128.load(quad, 16) : low
}

// @ts-ignore: decorator
@inline
export function secondInputs<F>(lanes: v128, mask: v128): v128 {
  return isBytes(formatOf<F>()) ? i16x8.shr_u(lanes, 8) : v128.and(i16x8.shr_u(lanes, 8), mask)
}
