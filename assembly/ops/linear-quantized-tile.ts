/** A few rows of quantized activations times panels as they are stored: see linear-quantized-rows.ts for many. */

import { LINEAR_N_IN } from '../abi'
import { at, word } from '../control'
import { integersOf, scalesOf } from '../formats/activations'
import { blockBytes, blockInputs, formatOf, hasMinima, integersIn } from '../formats/blocks'
import { highMask, highQuad, lowMask, quadBytes, secondInputs } from '../formats/unpack'
import { storePanel } from './linear-panel'
import { addBlock, addDot, highStart, lowStart, panelAt } from './linear-quantized'
import { countOf } from './linear-tile'

/** The sums of the integers of a block of activations, given the address of their scale. */
// @ts-ignore: decorator
@inline
function sumsAt(scale: usize, nBlocks: i32): v128 {
  return v128.load32_splat(at(scale, nBlocks))
}

/** Adds a block's part to four outputs of a row, given the address of its scale: `addBlock`. */
// @ts-ignore: decorator
@inline
function addRow<F>(total: v128, sum: v128, block: usize, offset: usize, scale: usize, nBlocks: i32): v128 {
  return addBlock<F>(total, sum, block, offset, v128.load32_splat(scale), hasMinima(formatOf<F>()) ? sumsAt(scale, nBlocks) : sum)
}

/**
 * R rows, two to four, from `row` on times a panel: eight integer sums in registers, each two vectors of unpacked weights for all of them; the
 * float totals are touched once a block. The check in the middle is never true: it keeps V8 from holding the weights of both halves at once,
 * for which it has no registers.
 */
export function tileQuantized<F, R>(op: usize, inputs: usize, first: i32, count: i32, row: i32, panel: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const blockWidth = <usize>blockInputs(formatOf<F>()) << 1
  const rowBytes = <usize>nIn << 1
  const rowBlocks = nIn / blockInputs(formatOf<F>())
  const nBlocks = count * rowBlocks
  const low = lowMask<F>()
  const high = highMask<F>()
  let x0 = integersOf(inputs, row, nIn)
  let x1 = x0 + rowBytes
  let x2 = x1 + rowBytes
  let x3 = x2 + rowBytes
  let scales = scalesOf(inputs, count, row, nIn, rowBlocks)
  let weights = panelAt(op, panel)
  let a0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  let b0 = f32x4.splat(0)
  let b1 = f32x4.splat(0)
  let c0 = f32x4.splat(0)
  let c1 = f32x4.splat(0)
  let d0 = f32x4.splat(0)
  let d1 = f32x4.splat(0)
  for (const stop = x0 + rowBytes; x0 < stop; ) {
    const sums = sumsAt(scales, nBlocks)
    let s0 = lowStart<F>(sums)
    let s1 = highStart<F>(sums)
    const sumsB = sumsAt(at(scales, rowBlocks), nBlocks)
    let t0 = lowStart<F>(sumsB)
    let t1 = highStart<F>(sumsB)
    const sumsC = countOf<R>() > 2 ? sumsAt(at(scales, 2 * rowBlocks), nBlocks) : sums
    let u0 = lowStart<F>(sumsC)
    let u1 = highStart<F>(sumsC)
    const sumsD = countOf<R>() > 3 ? sumsAt(at(scales, 3 * rowBlocks), nBlocks) : sums
    let v0 = lowStart<F>(sumsD)
    let v1 = highStart<F>(sumsD)
    weights = integersIn(formatOf<F>(), weights)
    const blockStop = x0 + blockWidth
    do {
      let lanes = v128.load(weights)
      let highLanes = highQuad<F>(weights, lanes)
      let w0 = v128.and(lanes, low)
      let w1 = v128.and(highLanes, high)
      let x = v128.load32_splat(x0)
      s0 = addDot(s0, x, w0)
      s1 = addDot(s1, x, w1)
      x = v128.load32_splat(x1)
      t0 = addDot(t0, x, w0)
      t1 = addDot(t1, x, w1)
      if (countOf<R>() > 2) {
        x = v128.load32_splat(x2)
        u0 = addDot(u0, x, w0)
        u1 = addDot(u1, x, w1)
      }
      if (countOf<R>() > 3) {
        x = v128.load32_splat(x3)
        v0 = addDot(v0, x, w0)
        v1 = addDot(v1, x, w1)
      }
      if (x0 >= blockStop) break
      lanes = v128.load(weights)
      highLanes = highQuad<F>(weights, lanes)
      w0 = secondInputs<F>(lanes, low)
      w1 = secondInputs<F>(highLanes, high)
      x = v128.load32_splat(x0, 4)
      s0 = addDot(s0, x, w0)
      s1 = addDot(s1, x, w1)
      x = v128.load32_splat(x1, 4)
      t0 = addDot(t0, x, w0)
      t1 = addDot(t1, x, w1)
      if (countOf<R>() > 2) {
        x = v128.load32_splat(x2, 4)
        u0 = addDot(u0, x, w0)
        u1 = addDot(u1, x, w1)
      }
      if (countOf<R>() > 3) {
        x = v128.load32_splat(x3, 4)
        v0 = addDot(v0, x, w0)
        v1 = addDot(v1, x, w1)
      }
      weights += quadBytes<F>()
      x0 += 8
      x1 += 8
      if (countOf<R>() > 2) x2 += 8
      if (countOf<R>() > 3) x3 += 8
    } while (x0 < blockStop)
    const block = weights - blockBytes(formatOf<F>())
    a0 = addRow<F>(a0, s0, block, 0, scales, nBlocks)
    a1 = addRow<F>(a1, s1, block, 16, scales, nBlocks)
    b0 = addRow<F>(b0, t0, block, 0, at(scales, rowBlocks), nBlocks)
    b1 = addRow<F>(b1, t1, block, 16, at(scales, rowBlocks), nBlocks)
    if (countOf<R>() > 2) {
      c0 = addRow<F>(c0, u0, block, 0, at(scales, 2 * rowBlocks), nBlocks)
      c1 = addRow<F>(c1, u1, block, 16, at(scales, 2 * rowBlocks), nBlocks)
    }
    if (countOf<R>() > 3) {
      d0 = addRow<F>(d0, v0, block, 0, at(scales, 3 * rowBlocks), nBlocks)
      d1 = addRow<F>(d1, v1, block, 16, at(scales, 3 * rowBlocks), nBlocks)
    }
    scales += 4
  }
  storePanel(op, first + row, panel, a0, a1)
  storePanel(op, first + row + 1, panel, b0, b1)
  if (countOf<R>() > 2) storePanel(op, first + row + 2, panel, c0, c1)
  if (countOf<R>() > 3) storePanel(op, first + row + 3, panel, d0, d1)
}
