/**
 * out[row][o] = Σ_k W[o][k] · x[row][k], k ascending from the first product, + bias[o], + out[row][o] where it accumulates.
 *
 * W (nOut, nIn) lies in panels of PANEL_ROWS output rows, inputs in sequence, the last panel padded with zeros:
 *
 *   panel p: │ W[8p][0] … W[8p+7][0] │ W[8p][1] … W[8p+7][1] │ …        8 outputs are two vectors, no sum crosses lanes
 *
 * One order of summation for one row and for many: the same bits for prefill, chunks, steps and batches.
 * Threads share the panels. Memory levels, for many rows: a block of ROW_BLOCK rows of x in L2, one panel (nIn · 32 bytes) in L1,
 * ROW_TILE rows × 8 outputs in registers. For one row: the weights stream from DRAM once, two distant panels at a time.
 */

import {
  LINEAR_ACCUMULATE, LINEAR_BIAS, LINEAR_N_IN, LINEAR_N_OUT, LINEAR_OUT, LINEAR_OUT_STRIDE, LINEAR_WEIGHT, LINEAR_X, LINEAR_X_STRIDE,
  PANEL_ROWS
} from '../abi'
import { at, firstOf, pointer, rowsOf, word } from '../control'

const ROW_TILE: i32 = 4
const ROW_BLOCK: i32 = 64

export function linear(control: usize, op: usize, thread: i32): void {
  const nRows = rowsOf(control, op)
  const nPanels = (word(op, LINEAR_N_OUT) + PANEL_ROWS - 1) / PANEL_ROWS
  const first = firstOf(control, nPanels, thread)
  const end = firstOf(control, nPanels, thread + 1)
  if (!ASC_FEATURE_SIMD) {
    for (let row = 0; row < nRows; row++) {
      for (let panel = first; panel < end; panel++) oneRowScalar(op, row, panel)
    }
    return
  }
  for (let block = 0; block < nRows; block += ROW_BLOCK) {
    const blockEnd = min(nRows, block + ROW_BLOCK)
    const tiled = block + (blockEnd - block) / ROW_TILE * ROW_TILE
    if (tiled > block) {
      for (let panel = first; panel < end; panel++) {
        for (let row = block; row < tiled; row += ROW_TILE) fourRows(op, row, panel)
      }
    }
    for (let row = tiled; row < blockEnd; row++) oneRow(op, row, first, end)
  }
}

/** Address of a panel. */
// @ts-ignore: decorator
@inline
function panelAt(op: usize, panel: i32): usize {
  return pointer(op, LINEAR_WEIGHT) + ((<usize>panel * word(op, LINEAR_N_IN) * PANEL_ROWS) << 2)
}

/** Adds bias and the old output and stores eight outputs of one row. The output is padded to PANEL_ROWS. */
// @ts-ignore: decorator
@inline
function storePanel(op: usize, row: i32, panel: i32, low: v128, high: v128): void {
  const out = at(pointer(op, LINEAR_OUT), row * word(op, LINEAR_OUT_STRIDE) + panel * PANEL_ROWS)
  const bias = pointer(op, LINEAR_BIAS)
  if (bias) {
    low = f32x4.add(low, v128.load(at(bias, panel * PANEL_ROWS)))
    high = f32x4.add(high, v128.load(at(bias, panel * PANEL_ROWS), 16))
  }
  if (word(op, LINEAR_ACCUMULATE)) {
    low = f32x4.add(low, v128.load(out))
    high = f32x4.add(high, v128.load(out, 16))
  }
  v128.store(out, low)
  v128.store(out, high, 16)
}

/** One row times panels [first, end), taken in pairs half the range apart: two streams that the prefetcher follows. */
function oneRow(op: usize, row: i32, first: i32, end: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const x = at(pointer(op, LINEAR_X), row * word(op, LINEAR_X_STRIDE))
  const half = (end - first) >> 1
  for (let panel = first; panel < first + half; panel++) {
    let near = panelAt(op, panel)
    let far = panelAt(op, panel + half)
    let a0 = f32x4.splat(0)
    let a1 = f32x4.splat(0)
    let b0 = f32x4.splat(0)
    let b1 = f32x4.splat(0)
    for (let k = x, stop = at(x, nIn); k < stop; k += 4) {
      const value = v128.load32_splat(k)
      a0 = f32x4.add(a0, f32x4.mul(value, v128.load(near)))
      a1 = f32x4.add(a1, f32x4.mul(value, v128.load(near, 16)))
      b0 = f32x4.add(b0, f32x4.mul(value, v128.load(far)))
      b1 = f32x4.add(b1, f32x4.mul(value, v128.load(far, 16)))
      near += 32
      far += 32
    }
    storePanel(op, row, panel, a0, a1)
    storePanel(op, row, panel + half, b0, b1)
  }
  if (first + 2 * half < end) {
    let weights = panelAt(op, end - 1)
    let a0 = f32x4.splat(0)
    let a1 = f32x4.splat(0)
    for (let k = x, stop = at(x, nIn); k < stop; k += 4) {
      const value = v128.load32_splat(k)
      a0 = f32x4.add(a0, f32x4.mul(value, v128.load(weights)))
      a1 = f32x4.add(a1, f32x4.mul(value, v128.load(weights, 16)))
      weights += 32
    }
    storePanel(op, row, end - 1, a0, a1)
  }
}

/** ROW_TILE rows times one panel: eight sums in registers, two weight vectors read for each input. */
function fourRows(op: usize, row: i32, panel: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const stride = word(op, LINEAR_X_STRIDE)
  let x0 = at(pointer(op, LINEAR_X), row * stride)
  let x1 = at(x0, stride)
  let x2 = at(x1, stride)
  let x3 = at(x2, stride)
  let weights = panelAt(op, panel)
  let a0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  let b0 = f32x4.splat(0)
  let b1 = f32x4.splat(0)
  let c0 = f32x4.splat(0)
  let c1 = f32x4.splat(0)
  let d0 = f32x4.splat(0)
  let d1 = f32x4.splat(0)
  for (const stop = at(x0, nIn); x0 < stop; x0 += 4) {
    const w0 = v128.load(weights)
    const w1 = v128.load(weights, 16)
    let value = v128.load32_splat(x0)
    a0 = f32x4.add(a0, f32x4.mul(value, w0))
    a1 = f32x4.add(a1, f32x4.mul(value, w1))
    value = v128.load32_splat(x1)
    b0 = f32x4.add(b0, f32x4.mul(value, w0))
    b1 = f32x4.add(b1, f32x4.mul(value, w1))
    value = v128.load32_splat(x2)
    c0 = f32x4.add(c0, f32x4.mul(value, w0))
    c1 = f32x4.add(c1, f32x4.mul(value, w1))
    value = v128.load32_splat(x3)
    d0 = f32x4.add(d0, f32x4.mul(value, w0))
    d1 = f32x4.add(d1, f32x4.mul(value, w1))
    x1 += 4
    x2 += 4
    x3 += 4
    weights += 32
  }
  storePanel(op, row, panel, a0, a1)
  storePanel(op, row + 1, panel, b0, b1)
  storePanel(op, row + 2, panel, c0, c1)
  storePanel(op, row + 3, panel, d0, d1)
}

/** The scalar form: one row times one panel, the same sums in the same order. */
function oneRowScalar(op: usize, row: i32, panel: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const x = at(pointer(op, LINEAR_X), row * word(op, LINEAR_X_STRIDE))
  const bias = pointer(op, LINEAR_BIAS)
  for (let lane = 0; lane < PANEL_ROWS; lane++) {
    const o = panel * PANEL_ROWS + lane
    const weights = at(panelAt(op, panel), lane)
    const out = at(pointer(op, LINEAR_OUT), row * word(op, LINEAR_OUT_STRIDE) + o)
    let sum: f32 = 0
    for (let k = 0; k < nIn; k++) sum += load<f32>(at(x, k)) * load<f32>(at(weights, k * PANEL_ROWS))
    if (bias) sum += load<f32>(at(bias, o))
    if (word(op, LINEAR_ACCUMULATE)) sum += load<f32>(out)
    store<f32>(out, sum)
  }
}
