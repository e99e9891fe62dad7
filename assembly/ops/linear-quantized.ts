/**
 * Linear on quantized panels: every form by one kernel for a row, one for a few (linear-quantized-tile.ts) and one for many
 * (linear-quantized-rows.ts). For each block of inputs the integer sums are exact, then
 * out += sum · (weight scale · activation scale) and, where the weights have minima, out += minimum · (sum of the activations), blocks in
 * sequence.
 */

import { LINEAR_FORMAT, LINEAR_N_IN, LINEAR_WEIGHT, LINEAR_X, LINEAR_X_STRIDE, PANEL_ROWS } from '../abi'
import { at, pointer, word } from '../control'
import { integersOf, quantizeRows, scalesOf } from '../formats/activations'
import {
  blockBytes, blockInputs, blockPanelBytes, formatOf, hasMinima, integersIn, integerWeight, isBytes, minimaOf, minimumOf, scaleOf
} from '../formats/blocks'
import { highMask, highQuad, lowMask, quadBytes, secondInputs } from '../formats/unpack'
import { multiplyAdd } from '../math/multiply-add'
import { stepAt, STEPS, storeOutput, storePanel } from './linear-panel'

/** Quantizes `count` rows from `row` on. */
export function quantizeInputs(op: usize, row: i32, count: i32, inputs: usize): void {
  const stride = word(op, LINEAR_X_STRIDE)
  quantizeRows(at(pointer(op, LINEAR_X), row * stride), stride, count, word(op, LINEAR_N_IN), word(op, LINEAR_FORMAT), inputs)
}

// @ts-ignore: decorator
@inline
export function panelAt(op: usize, panel: i32): usize {
  return pointer(op, LINEAR_WEIGHT) + <usize>panel * blockPanelBytes(word(op, LINEAR_FORMAT), word(op, LINEAR_N_IN))
}

// @ts-ignore: decorator
@inline
export function addDot(sum: v128, x: v128, w: v128): v128 {
  return i32x4.add(sum, i32x4.dot_i16x8_s(x, w))
}

/** Four inputs of four rows: `first` and `second` are two inputs each, the same in all lanes. */
// @ts-ignore: decorator
@inline
function addQuad<F>(sum: v128, first: v128, second: v128, lanes: v128, mask: v128): v128 {
  return addDot(addDot(sum, first, v128.and(lanes, mask)), second, secondInputs<F>(lanes, mask))
}

/** Where integer sums of rows 0–3 start, given Σ x: stored integers are 128 too large, or 8, or as they are. */
// @ts-ignore: decorator
@inline
export function lowStart<F>(sums: v128): v128 {
  if (hasMinima(formatOf<F>())) return i32x4.splat(0)
  return i32x4.neg(i32x4.shl(sums, isBytes(formatOf<F>()) ? 7 : 3))
}

/** Of rows 4–7. */
// @ts-ignore: decorator
@inline
export function highStart<F>(sums: v128): v128 {
  return hasMinima(formatOf<F>()) ? i32x4.splat(0) : i32x4.neg(i32x4.shl(sums, 7))
}

/** Adds a block's part of rows 0–3 or, with offset 16, of rows 4–7: `scale` and `sums` are those of the activations. */
// @ts-ignore: decorator
@inline
export function addBlock<F>(total: v128, sum: v128, block: usize, offset: usize, scale: v128, sums: v128): v128 {
  total = multiplyAdd(f32x4.convert_i32x4_s(sum), f32x4.mul(v128.load(block + offset), scale), total)
  return hasMinima(formatOf<F>()) ? multiplyAdd(v128.load(minimaOf(block) + offset), f32x4.mul(f32x4.convert_i32x4_s(sums), scale), total) : total
}

/**
 * One row times steps [from, to) of panels [first, end), taken in fours a quarter of the range apart: four streams that the prefetcher follows.
 * Four inputs a turn: with eight, V8 reads all of them ahead and runs out of registers (5 % slower in Node 24, 10 % in Node 20).
 */
export function oneRowQuantized<F>(op: usize, inputs: usize, block: i32, count: i32, row: i32, first: i32, end: i32, from: i32, to: i32): void {
  const quarter = (end - first) >> 2
  for (let panel = first + stepAt(quarter, from); panel < first + stepAt(quarter, to); panel++) fourPanels<F>(op, inputs, block, count, row, panel, quarter)
  if (to < STEPS) return
  for (let panel = first + 4 * quarter; panel < end; panel++) onePanel<F>(op, inputs, block, count, row, panel)
}

function fourPanels<F>(op: usize, inputs: usize, block: i32, count: i32, row: i32, panel: i32, distance: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const width = blockInputs(formatOf<F>())
  const rowBlocks = nIn / width
  const nBlocks = count * rowBlocks
  const low = lowMask<F>()
  const high = highMask<F>()
  let x = integersOf(inputs, row, nIn)
  let scales = scalesOf(inputs, count, row, nIn, rowBlocks)
  let a = panelAt(op, panel)
  let b = panelAt(op, panel + distance)
  let c = panelAt(op, panel + 2 * distance)
  let d = panelAt(op, panel + 3 * distance)
  let a0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  let b0 = f32x4.splat(0)
  let b1 = f32x4.splat(0)
  let c0 = f32x4.splat(0)
  let c1 = f32x4.splat(0)
  let d0 = f32x4.splat(0)
  let d1 = f32x4.splat(0)
  for (const stop = x + (<usize>nIn << 1); x < stop; ) {
    const sums = v128.load32_splat(at(scales, nBlocks))
    let s0 = lowStart<F>(sums)
    let s1 = highStart<F>(sums)
    let t0 = s0
    let t1 = s1
    let u0 = s0
    let u1 = s1
    let v0 = s0
    let v1 = s1
    a = integersIn(formatOf<F>(), a)
    b = integersIn(formatOf<F>(), b)
    c = integersIn(formatOf<F>(), c)
    d = integersIn(formatOf<F>(), d)
    for (const blockStop = x + (width << 1); x < blockStop; x += 8) {
      const first = v128.load32_splat(x)
      const second = v128.load32_splat(x, 4)
      let lanes = v128.load(a)
      s0 = addQuad<F>(s0, first, second, lanes, low)
      s1 = addQuad<F>(s1, first, second, highQuad<F>(a, lanes), high)
      lanes = v128.load(b)
      t0 = addQuad<F>(t0, first, second, lanes, low)
      t1 = addQuad<F>(t1, first, second, highQuad<F>(b, lanes), high)
      lanes = v128.load(c)
      u0 = addQuad<F>(u0, first, second, lanes, low)
      u1 = addQuad<F>(u1, first, second, highQuad<F>(c, lanes), high)
      lanes = v128.load(d)
      v0 = addQuad<F>(v0, first, second, lanes, low)
      v1 = addQuad<F>(v1, first, second, highQuad<F>(d, lanes), high)
      a += quadBytes<F>()
      b += quadBytes<F>()
      c += quadBytes<F>()
      d += quadBytes<F>()
    }
    const scale = v128.load32_splat(scales)
    a0 = addBlock<F>(a0, s0, a - blockBytes(formatOf<F>()), 0, scale, sums)
    a1 = addBlock<F>(a1, s1, a - blockBytes(formatOf<F>()), 16, scale, sums)
    b0 = addBlock<F>(b0, t0, b - blockBytes(formatOf<F>()), 0, scale, sums)
    b1 = addBlock<F>(b1, t1, b - blockBytes(formatOf<F>()), 16, scale, sums)
    c0 = addBlock<F>(c0, u0, c - blockBytes(formatOf<F>()), 0, scale, sums)
    c1 = addBlock<F>(c1, u1, c - blockBytes(formatOf<F>()), 16, scale, sums)
    d0 = addBlock<F>(d0, v0, d - blockBytes(formatOf<F>()), 0, scale, sums)
    d1 = addBlock<F>(d1, v1, d - blockBytes(formatOf<F>()), 16, scale, sums)
    scales += 4
  }
  storePanel(op, block + row, panel, a0, a1)
  storePanel(op, block + row, panel + distance, b0, b1)
  storePanel(op, block + row, panel + 2 * distance, c0, c1)
  storePanel(op, block + row, panel + 3 * distance, d0, d1)
}

function onePanel<F>(op: usize, inputs: usize, block: i32, count: i32, row: i32, panel: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const width = blockInputs(formatOf<F>())
  const rowBlocks = nIn / width
  const nBlocks = count * rowBlocks
  const low = lowMask<F>()
  const high = highMask<F>()
  let x = integersOf(inputs, row, nIn)
  let scales = scalesOf(inputs, count, row, nIn, rowBlocks)
  let weights = panelAt(op, panel)
  let a0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  for (const stop = x + (<usize>nIn << 1); x < stop; ) {
    const sums = v128.load32_splat(at(scales, nBlocks))
    let s0 = lowStart<F>(sums)
    let s1 = highStart<F>(sums)
    weights = integersIn(formatOf<F>(), weights)
    for (const blockStop = x + (width << 1); x < blockStop; x += 8) {
      const first = v128.load32_splat(x)
      const second = v128.load32_splat(x, 4)
      const lanes = v128.load(weights)
      s0 = addQuad<F>(s0, first, second, lanes, low)
      s1 = addQuad<F>(s1, first, second, highQuad<F>(weights, lanes), high)
      weights += quadBytes<F>()
    }
    const scale = v128.load32_splat(scales)
    a0 = addBlock<F>(a0, s0, weights - blockBytes(formatOf<F>()), 0, scale, sums)
    a1 = addBlock<F>(a1, s1, weights - blockBytes(formatOf<F>()), 16, scale, sums)
    scales += 4
  }
  storePanel(op, block + row, panel, a0, a1)
}

/** The scalar form: the same sums in the same order. */
export function rowsQuantizedScalar(op: usize, inputs: usize, block: i32, count: i32, first: i32, end: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const format = word(op, LINEAR_FORMAT)
  const width = blockInputs(format)
  const rowBlocks = nIn / width
  for (let row = 0; row < count; row++) {
    for (let output = first * PANEL_ROWS; output < end * PANEL_ROWS; output++) {
      const lane = output % PANEL_ROWS
      let weights = panelAt(op, output / PANEL_ROWS)
      let integers = integersOf(inputs, row, nIn)
      let scales = scalesOf(inputs, count, row, nIn, rowBlocks)
      let total: f32 = 0
      for (let k = 0; k < nIn; k += width) {
        let sum = 0
        for (let i = 0; i < width; i++) sum += integerWeight(format, weights, lane, i) * load<i16>(integers + (<usize>i << 1))
        total += <f32>sum * (scaleOf(format, weights, lane) * load<f32>(scales))
        if (hasMinima(format)) total += minimumOf(weights, lane) * (<f32>load<i32>(at(scales, count * rowBlocks)) * load<f32>(scales))
        weights += blockBytes(format)
        integers += width << 1
        scales += 4
      }
      storeOutput(op, block + row, output, total)
    }
  }
}
