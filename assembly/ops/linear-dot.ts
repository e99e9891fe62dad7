/**
 * Linear on quantized panels by products of bytes: `i32x4.relaxed_dot_i8x16_i7x16_add_s` multiplies and adds four inputs of four rows, in one instruction
 * where the machine has it (AVX-VNNI, Arm's dot products). Its second operand is defined for 7 bits without a sign, and within them it gives the same
 * everywhere. So an activation's integer is two digits, x + 2^13 = 2^7 · upper + lower (formats/activations.ts), and
 *
 *   Σ w · x = 2^7 · Σ w · upper + Σ w · lower − 2^13 · Σ w
 *
 * where the panel has Σ w. All of it is exact in 32 bits: the sums, and the bits, are those of the other builds.
 */

import { LINEAR_N_IN, SUM_BITS } from '../abi'
import { at, word } from '../control'
import { afterActivations, integersOf, scalesOf } from '../formats/activations'
import { blockBytes, blockInputs, formatOf, isBytes } from '../formats/blocks'
import { quadBytes } from '../formats/unpack'
import { multiplyAdd } from '../math/multiply-add'
import { stepAt, STEPS, storePanel } from './linear-panel'
import { panelAt } from './linear-quantized'
import { countOf, One, Two } from './linear-tile'

/** In memory: see CONSTANTS in assembly/math/exp.ts. */
const SCALE_BITS: usize = memory.data<i32>([-8192, -8192, -8192, -8192], 16)
const UPPER_NIBBLES: usize = memory.data<u16>([0xf0f0, 0xf0f0, 0xf0f0, 0xf0f0, 0xf0f0, 0xf0f0, 0xf0f0, 0xf0f0], 16)

/** Scales of eight rows. */
const SCALES_BYTES: usize = 32
/** Digits of a block of activations. */
const BLOCK_DIGITS: usize = 64
/** Totals of eight rows. */
const TOTAL_BYTES: usize = 32
/**
 * Inputs from which on a row is long: four streams are 1.08 to 1.25 times as fast as two there (2048 → 8192, 4096 → 2048, weights from memory), and slower for shorter
 * rows and for nibbles, which arithmetic holds.
 */
const LONG_ROW: i32 = 2048

/** Four inputs of rows 0–3; nibbles 16 times as large. */
// @ts-ignore: decorator
@inline
function lowRows<F>(quad: usize, nibbles: v128): v128 {
  return isBytes(formatOf<F>()) ? v128.load(quad) : v128.and(i16x8.shl(v128.load(quad), 4), nibbles)
}

/** Of rows 4–7. */
// @ts-ignore: decorator
@inline
function highRows<F>(quad: usize, nibbles: v128): v128 {
  return isBytes(formatOf<F>()) ? v128.load(quad, 16) : v128.and(v128.load(quad), nibbles)
}

// @ts-ignore: decorator
@inline
function addDot(weights: v128, digits: v128, sum: v128): v128 {
  return i32x4.relaxed_dot_i8x16_i7x16_add_s(weights, digits, sum)
}

/** −2^13 · Σ w, of nibbles 16 times as large, given scales with the sums in their low bits. */
// @ts-ignore: decorator
@inline
function start<F>(scales: v128): v128 {
  const up = 32 - SUM_BITS
  return i32x4.neg(i32x4.shr_s(i32x4.shl(scales, up), up - (isBytes(formatOf<F>()) ? 13 : 17)))
}

/** Adds a block's part to the totals of four rows. */
// @ts-ignore: decorator
@inline
function addBlock(total: v128, upper: v128, lower: v128, scales: v128, scale: v128): v128 {
  const sum = i32x4.add(i32x4.shl(upper, 7), lower)
  return multiplyAdd(f32x4.convert_i32x4_s(sum), f32x4.mul(v128.and(scales, v128.load(SCALE_BITS)), scale), total)
}

/**
 * One row times steps [from, to) of panels [first, end), two at a time that lie half the range apart: two streams that the prefetcher follows; of long rows of 8-bit weights four.
 * Two streams at equal places of their pages, as panels at a multiple of eight are, are slower: in Q8_0 1536 → 768 1.02 to 1.06 times from memory.
 */
export function oneRowDot<F>(op: usize, inputs: usize, block: i32, count: i32, row: i32, first: i32, end: i32, from: i32, to: i32): void {
  const isLong = isBytes(formatOf<F>()) && word(op, LINEAR_N_IN) >= LONG_ROW
  const half = (end - first) >> 1
  const distance = isLong ? half >> 1 : half % 8 == 0 ? max(0, half - 1) : half
  for (let panel = first + stepAt(distance, from); panel < first + stepAt(distance, to); panel++) {
    if (isLong) fourStreams<F>(op, inputs, block, count, row, panel, distance)
    else tileDot<F, One, Two>(op, inputs, block, count, row, panel, distance)
  }
  if (to < STEPS) return
  for (let panel = first + distance * (isLong ? 4 : 2); panel < end; panel++) tileDot<F, One, One>(op, inputs, block, count, row, panel, 0)
}

/**
 * One row times four panels `distance` apart, block by block: a long row's digits do not stay in L1 beside the weights that run through it, so each is read
 * for four panels. Two of them at a time, since registers hold the sums of no more; the totals lie in scratch.
 */
function fourStreams<F>(op: usize, inputs: usize, block: i32, count: i32, row: i32, panel: i32, distance: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const rowBlocks = nIn / blockInputs(formatOf<F>())
  const nibbles = v128.load(UPPER_NIBBLES)
  const totals = afterActivations(inputs, count, nIn, rowBlocks)
  const totalsEnd = totals + 4 * TOTAL_BYTES
  memory.fill(totals, 0, totalsEnd - totals)
  let x = integersOf(inputs, row, nIn)
  let scales = scalesOf(inputs, count, row, nIn, rowBlocks)
  let weights = panelAt(op, panel)
  const step = panelAt(op, panel + distance) - weights
  for (const stop = x + (<usize>nIn << 1); x < stop; x += BLOCK_DIGITS) {
    const blockStop = x + BLOCK_DIGITS
    const scale = v128.load32_splat(scales)
    let own = weights
    for (let total = totals; total < totalsEnd; total += 2 * TOTAL_BYTES) {
      const other = own + step
      let s0 = i32x4.splat(0)
      let s1 = s0
      let t0 = s0
      let t1 = s0
      let s0Lower = start<F>(v128.load(own))
      let s1Lower = start<F>(v128.load(own, 16))
      let t0Lower = start<F>(v128.load(other))
      let t1Lower = start<F>(v128.load(other, 16))
      let quad = own + SCALES_BYTES
      let otherQuad = other + SCALES_BYTES
      let digits = x
      do {
        let low = lowRows<F>(quad, nibbles)
        let high = highRows<F>(quad, nibbles)
        const upper = v128.load32_splat(digits)
        const lower = v128.load32_splat(digits, 4)
        s0 = addDot(low, upper, s0)
        s1 = addDot(high, upper, s1)
        s0Lower = addDot(low, lower, s0Lower)
        s1Lower = addDot(high, lower, s1Lower)
        low = lowRows<F>(otherQuad, nibbles)
        high = highRows<F>(otherQuad, nibbles)
        t0 = addDot(low, upper, t0)
        t1 = addDot(high, upper, t1)
        t0Lower = addDot(low, lower, t0Lower)
        t1Lower = addDot(high, lower, t1Lower)
        digits += 8
        quad += quadBytes<F>()
        otherQuad += quadBytes<F>()
      } while (digits < blockStop)
      v128.store(total, addBlock(v128.load(total), s0, s0Lower, v128.load(own), scale))
      v128.store(total, addBlock(v128.load(total, 16), s1, s1Lower, v128.load(own, 16), scale), 16)
      v128.store(total, addBlock(v128.load(total, 32), t0, t0Lower, v128.load(other), scale), 32)
      v128.store(total, addBlock(v128.load(total, 48), t1, t1Lower, v128.load(other, 16), scale), 48)
      own = other + step
    }
    scales += 4
    weights += blockBytes(formatOf<F>())
  }
  for (let i = 0; i < 4; i++) {
    const total = totals + <usize>i * TOTAL_BYTES
    storePanel(op, block + row, panel + i * distance, v128.load(total), v128.load(total, 16))
  }
}

/**
 * R rows, one or two, from `row` on times a panel, or one row times it and the panel `distance` further on, where P is Two: eight integer sums in registers, two for each vector
 * of outputs; the float totals are touched once a block.
 */
export function tileDot<F, R, P>(op: usize, inputs: usize, block: i32, count: i32, row: i32, panel: i32, distance: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const rowBytes = <usize>nIn << 1
  const rowBlocks = nIn / blockInputs(formatOf<F>())
  const nibbles = v128.load(UPPER_NIBBLES)
  let x0 = integersOf(inputs, row, nIn)
  let x1 = x0 + rowBytes
  let scales = scalesOf(inputs, count, row, nIn, rowBlocks)
  let weights = panelAt(op, panel)
  let other = panelAt(op, panel + distance)
  let a0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  let b0 = f32x4.splat(0)
  let b1 = f32x4.splat(0)
  for (const stop = x0 + rowBytes; x0 < stop; ) {
    let s0 = i32x4.splat(0)
    let s1 = s0
    let t0 = s0
    let t1 = s0
    let s0Lower = start<F>(v128.load(weights))
    let s1Lower = start<F>(v128.load(weights, 16))
    let t0Lower = countOf<P>() > 1 ? start<F>(v128.load(other)) : s0Lower
    let t1Lower = countOf<P>() > 1 ? start<F>(v128.load(other, 16)) : s1Lower
    weights += SCALES_BYTES
    if (countOf<P>() > 1) other += SCALES_BYTES
    const blockStop = x0 + BLOCK_DIGITS
    do {
      let low = lowRows<F>(weights, nibbles)
      let high = highRows<F>(weights, nibbles)
      let upper = v128.load32_splat(x0)
      let lower = v128.load32_splat(x0, 4)
      s0 = addDot(low, upper, s0)
      s1 = addDot(high, upper, s1)
      s0Lower = addDot(low, lower, s0Lower)
      s1Lower = addDot(high, lower, s1Lower)
      if (countOf<R>() > 1) {
        upper = v128.load32_splat(x1)
        lower = v128.load32_splat(x1, 4)
        x1 += 8
      }
      if (countOf<P>() > 1) {
        low = lowRows<F>(other, nibbles)
        high = highRows<F>(other, nibbles)
        other += quadBytes<F>()
      }
      if (countOf<R>() > 1 || countOf<P>() > 1) {
        t0 = addDot(low, upper, t0)
        t1 = addDot(high, upper, t1)
        t0Lower = addDot(low, lower, t0Lower)
        t1Lower = addDot(high, lower, t1Lower)
      }
      x0 += 8
      weights += quadBytes<F>()
    } while (x0 < blockStop)
    const own = weights - blockBytes(formatOf<F>())
    const scale = v128.load32_splat(scales)
    a0 = addBlock(a0, s0, s0Lower, v128.load(own), scale)
    a1 = addBlock(a1, s1, s1Lower, v128.load(own, 16), scale)
    if (countOf<R>() > 1 || countOf<P>() > 1) {
      const ownOther = countOf<P>() > 1 ? other - blockBytes(formatOf<F>()) : own
      const scaleOther = countOf<R>() > 1 ? v128.load32_splat(at(scales, rowBlocks)) : scale
      b0 = addBlock(b0, t0, t0Lower, v128.load(ownOther), scaleOther)
      b1 = addBlock(b1, t1, t1Lower, v128.load(ownOther, 16), scaleOther)
    }
    scales += 4
  }
  storePanel(op, block + row, panel, a0, a1)
  if (countOf<R>() > 1) storePanel(op, block + row + 1, panel, b0, b1)
  if (countOf<P>() > 1) storePanel(op, block + row, panel + distance, b0, b1)
}
