/** Many rows of quantized activations times a panel: its integers are unpacked once for all of them, and one kernel serves every form. */

import { LINEAR_FORMAT, LINEAR_N_IN } from '../abi'
import { at, word } from '../control'
import { afterActivations, integersOf, scalesOf } from '../formats/activations'
import { blockBytes, blockInputs, formatOf, hasMinima, integersIn, isBytes, minimaOf, zeroOf } from '../formats/blocks'
import { highMask, highQuad, lowMask, quadBytes, secondInputs } from '../formats/unpack'
import { multiplyAdd } from '../math/multiply-add'
import { storePanel } from './linear-panel'
import { addDot, panelAt } from './linear-quantized'

/**
 * A panel's integers in 16 bits, after the activations in scratch: row 0: k, k + 1, …, row 7: k, k + 1, then k + 2 …: 16 · nIn bytes in L1 for
 * all rows of a block. Rows 4–7 of nibbles are 16 times as large, as their scales have it.
 */
export function panelInI16<F>(op: usize, inputs: usize, count: i32, panel: i32): usize {
  const nIn = word(op, LINEAR_N_IN)
  const low = lowMask<F>()
  const high = highMask<F>()
  const zero = zeroOf(formatOf<F>())
  const lowZero = i16x8.splat(<i16>zero)
  const highZero = i16x8.splat(<i16>(isBytes(formatOf<F>()) ? zero : zero << 4))
  const start = afterActivations(inputs, count, nIn, nIn / blockInputs(formatOf<F>()))
  let out = start
  let weights = panelAt(op, panel)
  for (const end = start + (<usize>nIn << 4); out < end; ) {
    weights = integersIn(formatOf<F>(), weights)
    for (const blockEnd = out + (blockInputs(formatOf<F>()) << 4); out < blockEnd; out += 64) {
      const lanes = v128.load(weights)
      const highLanes = highQuad<F>(weights, lanes)
      v128.store(out, i16x8.sub(v128.and(lanes, low), lowZero))
      v128.store(out, i16x8.sub(v128.and(highLanes, high), highZero), 16)
      v128.store(out, i16x8.sub(secondInputs<F>(lanes, low), lowZero), 32)
      v128.store(out, i16x8.sub(secondInputs<F>(highLanes, high), highZero), 48)
      weights += quadBytes<F>()
    }
  }
  return start
}

/** The sum of a block's activations, given the address of their scale. */
// @ts-ignore: decorator
@inline
function scaledSum(scale: usize, nBlocks: i32): v128 {
  return f32x4.mul(f32x4.convert_i32x4_s(v128.load32_splat(at(scale, nBlocks))), v128.load32_splat(scale))
}

/**
 * Four rows times one panel, its integers at `weights`: eight integer sums in registers; the eight float totals are touched once a block.
 * The panel's own memory gives scales and minima. One pair of inputs a turn: with more of them V8 of Node 20 spills; and the check at its end
 * saves a jump of thirty instructions.
 */
export function fourRowsQuantized(op: usize, inputs: usize, block: i32, count: i32, row: i32, panel: i32, weights: usize): void {
  const nIn = word(op, LINEAR_N_IN)
  const format = word(op, LINEAR_FORMAT)
  const stride = blockBytes(format)
  const hasMin = hasMinima(format)
  const blockWidth = <usize>blockInputs(format) << 1
  const rowBytes = <usize>nIn << 1
  const rowBlocks = nIn / blockInputs(format)
  const nBlocks = count * rowBlocks
  let x0 = integersOf(inputs, row, nIn)
  let x1 = x0 + rowBytes
  let x2 = x1 + rowBytes
  let x3 = x2 + rowBytes
  let scales = scalesOf(inputs, count, row, nIn, rowBlocks)
  let own = panelAt(op, panel)
  let a0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  let b0 = f32x4.splat(0)
  let b1 = f32x4.splat(0)
  let c0 = f32x4.splat(0)
  let c1 = f32x4.splat(0)
  let d0 = f32x4.splat(0)
  let d1 = f32x4.splat(0)
  for (const stop = x0 + rowBytes; x0 < stop; ) {
    let s0 = i32x4.splat(0)
    let s1 = s0
    let t0 = s0
    let t1 = s0
    let u0 = s0
    let u1 = s0
    let v0 = s0
    let v1 = s0
    const blockStop = x0 + blockWidth
    do {
      const w0 = v128.load(weights)
      const w1 = v128.load(weights, 16)
      let x = v128.load32_splat(x0)
      s0 = addDot(s0, x, w0)
      s1 = addDot(s1, x, w1)
      x = v128.load32_splat(x1)
      t0 = addDot(t0, x, w0)
      t1 = addDot(t1, x, w1)
      x = v128.load32_splat(x2)
      u0 = addDot(u0, x, w0)
      u1 = addDot(u1, x, w1)
      x = v128.load32_splat(x3)
      v0 = addDot(v0, x, w0)
      v1 = addDot(v1, x, w1)
      weights += 32
      x0 += 4
      x1 += 4
      x2 += 4
      x3 += 4
    } while (x0 < blockStop)
    const low = v128.load(own)
    const high = v128.load(own, 16)
    let scale = v128.load32_splat(scales)
    a0 = multiplyAdd(f32x4.convert_i32x4_s(s0), f32x4.mul(low, scale), a0)
    a1 = multiplyAdd(f32x4.convert_i32x4_s(s1), f32x4.mul(high, scale), a1)
    scale = v128.load32_splat(at(scales, rowBlocks))
    b0 = multiplyAdd(f32x4.convert_i32x4_s(t0), f32x4.mul(low, scale), b0)
    b1 = multiplyAdd(f32x4.convert_i32x4_s(t1), f32x4.mul(high, scale), b1)
    scale = v128.load32_splat(at(scales, 2 * rowBlocks))
    c0 = multiplyAdd(f32x4.convert_i32x4_s(u0), f32x4.mul(low, scale), c0)
    c1 = multiplyAdd(f32x4.convert_i32x4_s(u1), f32x4.mul(high, scale), c1)
    scale = v128.load32_splat(at(scales, 3 * rowBlocks))
    d0 = multiplyAdd(f32x4.convert_i32x4_s(v0), f32x4.mul(low, scale), d0)
    d1 = multiplyAdd(f32x4.convert_i32x4_s(v1), f32x4.mul(high, scale), d1)
    if (hasMin) {
      const lowMin = v128.load(minimaOf(own))
      const highMin = v128.load(minimaOf(own), 16)
      let sum = scaledSum(scales, nBlocks)
      a0 = multiplyAdd(lowMin, sum, a0)
      a1 = multiplyAdd(highMin, sum, a1)
      sum = scaledSum(at(scales, rowBlocks), nBlocks)
      b0 = multiplyAdd(lowMin, sum, b0)
      b1 = multiplyAdd(highMin, sum, b1)
      sum = scaledSum(at(scales, 2 * rowBlocks), nBlocks)
      c0 = multiplyAdd(lowMin, sum, c0)
      c1 = multiplyAdd(highMin, sum, c1)
      sum = scaledSum(at(scales, 3 * rowBlocks), nBlocks)
      d0 = multiplyAdd(lowMin, sum, d0)
      d1 = multiplyAdd(highMin, sum, d1)
    }
    scales += 4
    own += stride
  }
  storePanel(op, block + row, panel, a0, a1)
  storePanel(op, block + row + 1, panel, b0, b1)
  storePanel(op, block + row + 2, panel, c0, c1)
  storePanel(op, block + row + 3, panel, d0, d1)
}
