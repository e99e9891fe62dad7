/**
 * Linear on quantized panels: q8_0 and q4_0 by one kernel. For each block of 32 inputs the integer sums are exact,
 * then out += sum · (weight scale · activation scale), blocks in sequence.
 */

import {
  FORMAT_Q8_0, LINEAR_FORMAT, LINEAR_N_IN, LINEAR_WEIGHT, LINEAR_X, LINEAR_X_STRIDE, PANEL_ROWS, QUANT_BLOCK
} from '../abi'
import { at, pointer, scratchOf, word } from '../control'
import { blockBytes, blockPanelBytes, isQ8, quantizeRows, scaleLanes, scaleOf, storedWeight, weightsOf } from '../formats/blocks'
import { multiplyAdd } from '../math/multiply-add'
import { storeOutput, storePanel } from './linear-panel'

/** Quantizes rows [block, block + count) into the thread's scratch and returns its address: see quantizeRows. */
export function quantizeInputs(control: usize, op: usize, thread: i32, block: i32, count: i32): usize {
  const stride = word(op, LINEAR_X_STRIDE)
  const inputs = scratchOf(control, thread)
  quantizeRows(at(pointer(op, LINEAR_X), block * stride), stride, count, word(op, LINEAR_N_IN), inputs)
  return inputs
}

// @ts-ignore: decorator
@inline
function panelAt(op: usize, panel: i32): usize {
  return pointer(op, LINEAR_WEIGHT) + <usize>panel * blockPanelBytes(word(op, LINEAR_FORMAT), word(op, LINEAR_N_IN))
}

/** Integers of a row. */
// @ts-ignore: decorator
@inline
function integersOf(inputs: usize, row: i32, nIn: i32): usize {
  return inputs + (<usize>(row * nIn) << 1)
}

/** Scales of a row's blocks; −8 · sums stand as many elements on as all rows have blocks. */
// @ts-ignore: decorator
@inline
function scalesOf(inputs: usize, count: i32, row: i32, nIn: i32): usize {
  return at(integersOf(inputs, count, nIn), row * (nIn / QUANT_BLOCK))
}

/** Where a block's integer sum starts: q4_0's weights are stored with 8 added, which −8 · Σ x takes off. */
// @ts-ignore: decorator
@inline
function startOf<F>(scales: usize, nBlocks: i32): v128 {
  return isQ8<F>() ? i32x4.splat(0) : v128.load32_splat(at(scales, nBlocks))
}

/** Bytes of four inputs of a panel. */
// @ts-ignore: decorator
@inline
function quadBytes<F>(): usize {
  return isQ8<F>() ? 32 : 16
}

/** 15 in every 16-bit lane, in memory: see CONSTANTS in assembly/math/exp.ts. */
const LOW_NIBBLES: usize = memory.data<u16>([15, 15, 15, 15, 15, 15, 15, 15], 16)

/** Four inputs of q4_0, read once. */
// @ts-ignore: decorator
@inline
function packedOf<F>(quad: usize): v128 {
  return isQ8<F>() ? i32x4.splat(0) : v128.load(quad)
}

/** Inputs k and k + 1 of four inputs: rows 0–3, then rows 4–7. */
// @ts-ignore: decorator
@inline
function lowFirst<F>(quad: usize, packed: v128): v128 {
  return isQ8<F>() ? v128.load8x8_s(quad) : v128.and(packed, v128.load(LOW_NIBBLES))
}

// @ts-ignore: decorator
@inline
function highFirst<F>(quad: usize, packed: v128): v128 {
  return isQ8<F>() ? v128.load8x8_s(quad, 8) : v128.and(i16x8.shr_u(packed, 4), v128.load(LOW_NIBBLES))
}

/** Inputs k + 2 and k + 3. */
// @ts-ignore: decorator
@inline
function lowSecond<F>(quad: usize, packed: v128): v128 {
  return isQ8<F>() ? v128.load8x8_s(quad, 16) : v128.and(i16x8.shr_u(packed, 8), v128.load(LOW_NIBBLES))
}

// @ts-ignore: decorator
@inline
function highSecond<F>(quad: usize, packed: v128): v128 {
  return isQ8<F>() ? v128.load8x8_s(quad, 24) : i16x8.shr_u(packed, 12)
}

// @ts-ignore: decorator
@inline
function addDot(sum: v128, x: v128, w: v128): v128 {
  return i32x4.add(sum, i32x4.dot_i16x8_s(x, w))
}

/** total + integer sum · scale. */
// @ts-ignore: decorator
@inline
function addScaled(total: v128, sum: v128, scale: v128): v128 {
  return multiplyAdd(f32x4.convert_i32x4_s(sum), scale, total)
}

/** One row times panels [first, end), taken in pairs half the range apart: two streams that the prefetcher follows. */
export function oneRowQuantized<F>(op: usize, inputs: usize, block: i32, count: i32, row: i32, first: i32, end: i32): void {
  const half = (end - first) >> 1
  for (let panel = first; panel < first + half; panel++) twoPanels<F>(op, inputs, block, count, row, panel, panel + half)
  if (first + 2 * half < end) twoPanels<F>(op, inputs, block, count, row, end - 1, end - 1)
}

function twoPanels<F>(op: usize, inputs: usize, block: i32, count: i32, row: i32, nearPanel: i32, farPanel: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const nBlocks = count * nIn / QUANT_BLOCK
  let x = integersOf(inputs, row, nIn)
  let scales = scalesOf(inputs, count, row, nIn)
  let near = panelAt(op, nearPanel)
  let far = panelAt(op, farPanel)
  let a0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  let b0 = f32x4.splat(0)
  let b1 = f32x4.splat(0)
  for (const stop = x + (<usize>nIn << 1); x < stop; ) {
    let s0 = startOf<F>(scales, nBlocks)
    let s1 = s0
    let t0 = s0
    let t1 = s0
    let nearQuad = weightsOf(near)
    let farQuad = weightsOf(far)
    for (const blockStop = x + (QUANT_BLOCK << 1); x < blockStop; x += 8) {
      const nearPacked = packedOf<F>(nearQuad)
      const farPacked = packedOf<F>(farQuad)
      const pair = v128.load32_splat(x)
      s0 = addDot(s0, pair, lowFirst<F>(nearQuad, nearPacked))
      s1 = addDot(s1, pair, highFirst<F>(nearQuad, nearPacked))
      t0 = addDot(t0, pair, lowFirst<F>(farQuad, farPacked))
      t1 = addDot(t1, pair, highFirst<F>(farQuad, farPacked))
      const next = v128.load32_splat(x, 4)
      s0 = addDot(s0, next, lowSecond<F>(nearQuad, nearPacked))
      s1 = addDot(s1, next, highSecond<F>(nearQuad, nearPacked))
      t0 = addDot(t0, next, lowSecond<F>(farQuad, farPacked))
      t1 = addDot(t1, next, highSecond<F>(farQuad, farPacked))
      nearQuad += quadBytes<F>()
      farQuad += quadBytes<F>()
    }
    const scale = v128.load32_splat(scales)
    a0 = addScaled(a0, s0, f32x4.mul(scaleLanes(near, 0), scale))
    a1 = addScaled(a1, s1, f32x4.mul(scaleLanes(near, 8), scale))
    b0 = addScaled(b0, t0, f32x4.mul(scaleLanes(far, 0), scale))
    b1 = addScaled(b1, t1, f32x4.mul(scaleLanes(far, 8), scale))
    scales += 4
    near = nearQuad
    far = farQuad
  }
  storePanel(op, block + row, nearPanel, a0, a1)
  if (farPanel != nearPanel) storePanel(op, block + row, farPanel, b0, b1)
}

/** Four rows times one panel: eight integer sums in registers; the eight float totals are touched once a block. */
export function fourRowsQuantized<F>(op: usize, inputs: usize, block: i32, count: i32, row: i32, panel: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const rowBytes = <usize>nIn << 1
  const rowBlocks = nIn / QUANT_BLOCK
  const nBlocks = count * rowBlocks
  let x0 = integersOf(inputs, row, nIn)
  let x1 = x0 + rowBytes
  let x2 = x1 + rowBytes
  let x3 = x2 + rowBytes
  let scales = scalesOf(inputs, count, row, nIn)
  let weights = panelAt(op, panel)
  let a0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  let b0 = f32x4.splat(0)
  let b1 = f32x4.splat(0)
  let c0 = f32x4.splat(0)
  let c1 = f32x4.splat(0)
  let d0 = f32x4.splat(0)
  let d1 = f32x4.splat(0)
  for (const stop = x1; x0 < stop; ) {
    let s0 = startOf<F>(scales, nBlocks)
    let s1 = s0
    let t0 = startOf<F>(at(scales, rowBlocks), nBlocks)
    let t1 = t0
    let u0 = startOf<F>(at(scales, 2 * rowBlocks), nBlocks)
    let u1 = u0
    let v0 = startOf<F>(at(scales, 3 * rowBlocks), nBlocks)
    let v1 = v0
    let quad = weightsOf(weights)
    for (const blockStop = x0 + (QUANT_BLOCK << 1); x0 < blockStop; ) {
      const packed = packedOf<F>(quad)
      let w0 = lowFirst<F>(quad, packed)
      let w1 = highFirst<F>(quad, packed)
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
      w0 = lowSecond<F>(quad, packed)
      w1 = highSecond<F>(quad, packed)
      x = v128.load32_splat(x0, 4)
      s0 = addDot(s0, x, w0)
      s1 = addDot(s1, x, w1)
      x = v128.load32_splat(x1, 4)
      t0 = addDot(t0, x, w0)
      t1 = addDot(t1, x, w1)
      x = v128.load32_splat(x2, 4)
      u0 = addDot(u0, x, w0)
      u1 = addDot(u1, x, w1)
      x = v128.load32_splat(x3, 4)
      v0 = addDot(v0, x, w0)
      v1 = addDot(v1, x, w1)
      quad += quadBytes<F>()
      x0 += 8
      x1 += 8
      x2 += 8
      x3 += 8
    }
    const low = scaleLanes(weights, 0)
    const high = scaleLanes(weights, 8)
    let scale = v128.load32_splat(scales)
    a0 = addScaled(a0, s0, f32x4.mul(low, scale))
    a1 = addScaled(a1, s1, f32x4.mul(high, scale))
    scale = v128.load32_splat(at(scales, rowBlocks))
    b0 = addScaled(b0, t0, f32x4.mul(low, scale))
    b1 = addScaled(b1, t1, f32x4.mul(high, scale))
    scale = v128.load32_splat(at(scales, 2 * rowBlocks))
    c0 = addScaled(c0, u0, f32x4.mul(low, scale))
    c1 = addScaled(c1, u1, f32x4.mul(high, scale))
    scale = v128.load32_splat(at(scales, 3 * rowBlocks))
    d0 = addScaled(d0, v0, f32x4.mul(low, scale))
    d1 = addScaled(d1, v1, f32x4.mul(high, scale))
    scales += 4
    weights = quad
  }
  storePanel(op, block + row, panel, a0, a1)
  storePanel(op, block + row + 1, panel, b0, b1)
  storePanel(op, block + row + 2, panel, c0, c1)
  storePanel(op, block + row + 3, panel, d0, d1)
}

/** The scalar form: the same sums in the same order. */
export function rowsQuantizedScalar(op: usize, inputs: usize, block: i32, count: i32, first: i32, end: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const format = word(op, LINEAR_FORMAT)
  for (let row = 0; row < count; row++) {
    for (let output = first * PANEL_ROWS; output < end * PANEL_ROWS; output++) {
      const panel = panelAt(op, output / PANEL_ROWS)
      let total: f32 = 0
      for (let i = 0; i < nIn / QUANT_BLOCK; i++) {
        const weights = panel + <usize>i * blockBytes(format)
        const integers = integersOf(inputs, row, nIn) + (<usize>(i * QUANT_BLOCK) << 1)
        const scale = at(scalesOf(inputs, count, row, nIn), i)
        total += <f32>dotScalar(format, weights, output % PANEL_ROWS, integers, load<i32>(at(scale, count * nIn / QUANT_BLOCK))) *
          (scaleOf(weights, output % PANEL_ROWS) * load<f32>(scale))
      }
      storeOutput(op, block + row, output, total)
    }
  }
}

function dotScalar(format: i32, weights: usize, row: i32, integers: usize, minusEightSums: i32): i32 {
  let sum = format == FORMAT_Q8_0 ? 0 : minusEightSums
  for (let k = 0; k < QUANT_BLOCK; k++) sum += storedWeight(format, weights, row, k) * load<i16>(integers + (<usize>k << 1))
  return sum
}
