/** Linear on floating-point panels: f32, bf16 and f16 by one kernel, whose branches on the format vanish at compile time. */

import { LINEAR_FORMAT, LINEAR_N_IN, LINEAR_WEIGHT, LINEAR_X, LINEAR_X_STRIDE, PANEL_ROWS } from '../abi'
import { at, pointer, word } from '../control'
import { densePanelBytes, denseWeight, evenWeights, isF32, maskOf, oddWeights } from '../formats/dense'
import { halfScale } from '../math/half'
import { multiplyAdd } from '../math/multiply-add'
import { stepAt, STEPS, storeOutput, storePanel } from './linear-panel'
import { countOf } from './linear-tile'

// @ts-ignore: decorator
@inline
export function densePanelAt(op: usize, panel: i32): usize {
  return pointer(op, LINEAR_WEIGHT) + <usize>panel * densePanelBytes(word(op, LINEAR_FORMAT), word(op, LINEAR_N_IN))
}

/** Two inputs of a panel: 64 bytes in f32, 32 in the half formats. */
// @ts-ignore: decorator
@inline
function pairBytes<F>(): usize {
  return isF32<F>() ? 64 : 32
}

/** Rows 0–3 of input k at `weights`; the odd input k + 1 is in the same lanes, or in f32 behind. */
// @ts-ignore: decorator
@inline
function lowEven<F>(weights: usize, mask: v128, scale: v128): v128 {
  return isF32<F>() ? v128.load(weights) : evenWeights<F>(v128.load(weights), mask, scale)
}

// @ts-ignore: decorator
@inline
function highEven<F>(weights: usize, mask: v128, scale: v128): v128 {
  return isF32<F>() ? v128.load(weights, 16) : evenWeights<F>(v128.load(weights, 16), mask, scale)
}

// @ts-ignore: decorator
@inline
function lowOdd<F>(weights: usize, mask: v128, scale: v128): v128 {
  return isF32<F>() ? v128.load(weights, 32) : oddWeights<F>(v128.load(weights), mask, scale)
}

// @ts-ignore: decorator
@inline
function highOdd<F>(weights: usize, mask: v128, scale: v128): v128 {
  return isF32<F>() ? v128.load(weights, 48) : oddWeights<F>(v128.load(weights, 16), mask, scale)
}

/** One row times steps [from, to) of panels [first, end), taken in fours a quarter of the range apart: four streams that the prefetcher follows. */
export function oneRowDense<F>(op: usize, row: i32, first: i32, end: i32, from: i32, to: i32): void {
  const quarter = (end - first) >> 2
  for (let panel = first + stepAt(quarter, from); panel < first + stepAt(quarter, to); panel++) fourPanels<F>(op, row, panel, quarter)
  if (to < STEPS) return
  for (let panel = first + 4 * quarter; panel < end; panel++) onePanel<F>(op, row, panel)
}

function fourPanels<F>(op: usize, row: i32, panel: i32, distance: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const mask = maskOf<F>()
  const scale = halfScale()
  let a = densePanelAt(op, panel)
  let b = densePanelAt(op, panel + distance)
  let c = densePanelAt(op, panel + 2 * distance)
  let d = densePanelAt(op, panel + 3 * distance)
  let a0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  let b0 = f32x4.splat(0)
  let b1 = f32x4.splat(0)
  let c0 = f32x4.splat(0)
  let c1 = f32x4.splat(0)
  let d0 = f32x4.splat(0)
  let d1 = f32x4.splat(0)
  let x = at(pointer(op, LINEAR_X), row * word(op, LINEAR_X_STRIDE))
  for (const stop = at(x, nIn & ~1); x < stop; x += 8) {
    const even = v128.load32_splat(x)
    const odd = v128.load32_splat(x, 4)
    a0 = multiplyAdd(odd, lowOdd<F>(a, mask, scale), multiplyAdd(even, lowEven<F>(a, mask, scale), a0))
    a1 = multiplyAdd(odd, highOdd<F>(a, mask, scale), multiplyAdd(even, highEven<F>(a, mask, scale), a1))
    b0 = multiplyAdd(odd, lowOdd<F>(b, mask, scale), multiplyAdd(even, lowEven<F>(b, mask, scale), b0))
    b1 = multiplyAdd(odd, highOdd<F>(b, mask, scale), multiplyAdd(even, highEven<F>(b, mask, scale), b1))
    c0 = multiplyAdd(odd, lowOdd<F>(c, mask, scale), multiplyAdd(even, lowEven<F>(c, mask, scale), c0))
    c1 = multiplyAdd(odd, highOdd<F>(c, mask, scale), multiplyAdd(even, highEven<F>(c, mask, scale), c1))
    d0 = multiplyAdd(odd, lowOdd<F>(d, mask, scale), multiplyAdd(even, lowEven<F>(d, mask, scale), d0))
    d1 = multiplyAdd(odd, highOdd<F>(d, mask, scale), multiplyAdd(even, highEven<F>(d, mask, scale), d1))
    a += pairBytes<F>()
    b += pairBytes<F>()
    c += pairBytes<F>()
    d += pairBytes<F>()
  }
  // Only f32 has odd numbers of inputs.
  if (isF32<F>() && nIn & 1) {
    const even = v128.load32_splat(x)
    a0 = multiplyAdd(even, v128.load(a), a0)
    a1 = multiplyAdd(even, v128.load(a, 16), a1)
    b0 = multiplyAdd(even, v128.load(b), b0)
    b1 = multiplyAdd(even, v128.load(b, 16), b1)
    c0 = multiplyAdd(even, v128.load(c), c0)
    c1 = multiplyAdd(even, v128.load(c, 16), c1)
    d0 = multiplyAdd(even, v128.load(d), d0)
    d1 = multiplyAdd(even, v128.load(d, 16), d1)
  }
  storePanel(op, row, panel, a0, a1)
  storePanel(op, row, panel + distance, b0, b1)
  storePanel(op, row, panel + 2 * distance, c0, c1)
  storePanel(op, row, panel + 3 * distance, d0, d1)
}

function onePanel<F>(op: usize, row: i32, panel: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const mask = maskOf<F>()
  const scale = halfScale()
  let x = at(pointer(op, LINEAR_X), row * word(op, LINEAR_X_STRIDE))
  let weights = densePanelAt(op, panel)
  let a0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  for (const stop = at(x, nIn & ~1); x < stop; x += 8) {
    const even = v128.load32_splat(x)
    const odd = v128.load32_splat(x, 4)
    a0 = multiplyAdd(odd, lowOdd<F>(weights, mask, scale), multiplyAdd(even, lowEven<F>(weights, mask, scale), a0))
    a1 = multiplyAdd(odd, highOdd<F>(weights, mask, scale), multiplyAdd(even, highEven<F>(weights, mask, scale), a1))
    weights += pairBytes<F>()
  }
  if (isF32<F>() && nIn & 1) {
    const even = v128.load32_splat(x)
    a0 = multiplyAdd(even, v128.load(weights), a0)
    a1 = multiplyAdd(even, v128.load(weights, 16), a1)
  }
  storePanel(op, row, panel, a0, a1)
}

/** A panel as f32: where it lies, or expanded to `scratch` (nIn · 32 bytes), which pays for itself from a few rows on. */
export function panelInF32<F>(op: usize, panel: i32, scratch: usize): usize {
  let weights = densePanelAt(op, panel)
  if (isF32<F>()) return weights
  const mask = maskOf<F>()
  const scale = halfScale()
  const end = scratch + (<usize>word(op, LINEAR_N_IN) << 5)
  for (let out = scratch; out < end; out += 64) {
    v128.store(out, lowEven<F>(weights, mask, scale))
    v128.store(out, highEven<F>(weights, mask, scale), 16)
    v128.store(out, lowOdd<F>(weights, mask, scale), 32)
    v128.store(out, highOdd<F>(weights, mask, scale), 48)
    weights += pairBytes<F>()
  }
  return scratch
}

/**
 * R rows, two to four, from `row` on times the panel at `weights`, and two rows also times the panel `distance` further on, where P is Two:
 * eight sums in registers, two weight vectors for each input. The checks in the middle end a row of an odd number of inputs, and keep V8 from
 * holding the weights of two inputs at once: with four rows it would run out of registers, and be a third slower.
 */
export function tileDense<F, R, P>(op: usize, row: i32, panel: i32, weights: usize, distance: i32): void {
  const stride = word(op, LINEAR_X_STRIDE)
  const mask = maskOf<F>()
  const scale = halfScale()
  let w = weights
  let other = densePanelAt(op, panel + distance)
  let x0 = at(pointer(op, LINEAR_X), row * stride)
  let x1 = at(x0, stride)
  let x2 = at(x1, stride)
  let x3 = at(x2, stride)
  let a0 = f32x4.splat(0)
  let a1 = f32x4.splat(0)
  let b0 = f32x4.splat(0)
  let b1 = f32x4.splat(0)
  let c0 = f32x4.splat(0)
  let c1 = f32x4.splat(0)
  let d0 = f32x4.splat(0)
  let d1 = f32x4.splat(0)
  const stop = at(x0, word(op, LINEAR_N_IN))
  for (;;) {
    if (x0 >= stop) break
    let low = lowEven<F>(w, mask, scale)
    let high = highEven<F>(w, mask, scale)
    let x = v128.load32_splat(x0)
    a0 = multiplyAdd(x, low, a0)
    a1 = multiplyAdd(x, high, a1)
    x = v128.load32_splat(x1)
    b0 = multiplyAdd(x, low, b0)
    b1 = multiplyAdd(x, high, b1)
    if (countOf<R>() > 2) {
      x = v128.load32_splat(x2)
      c0 = multiplyAdd(x, low, c0)
      c1 = multiplyAdd(x, high, c1)
    }
    if (countOf<R>() > 3) {
      x = v128.load32_splat(x3)
      d0 = multiplyAdd(x, low, d0)
      d1 = multiplyAdd(x, high, d1)
    }
    if (countOf<P>() > 1) {
      low = lowEven<F>(other, mask, scale)
      high = highEven<F>(other, mask, scale)
      x = v128.load32_splat(x0)
      c0 = multiplyAdd(x, low, c0)
      c1 = multiplyAdd(x, high, c1)
      x = v128.load32_splat(x1)
      d0 = multiplyAdd(x, low, d0)
      d1 = multiplyAdd(x, high, d1)
    }
    if (x0 + 4 >= stop) break
    low = lowOdd<F>(w, mask, scale)
    high = highOdd<F>(w, mask, scale)
    x = v128.load32_splat(x0, 4)
    a0 = multiplyAdd(x, low, a0)
    a1 = multiplyAdd(x, high, a1)
    x = v128.load32_splat(x1, 4)
    b0 = multiplyAdd(x, low, b0)
    b1 = multiplyAdd(x, high, b1)
    if (countOf<R>() > 2) {
      x = v128.load32_splat(x2, 4)
      c0 = multiplyAdd(x, low, c0)
      c1 = multiplyAdd(x, high, c1)
    }
    if (countOf<R>() > 3) {
      x = v128.load32_splat(x3, 4)
      d0 = multiplyAdd(x, low, d0)
      d1 = multiplyAdd(x, high, d1)
    }
    if (countOf<P>() > 1) {
      low = lowOdd<F>(other, mask, scale)
      high = highOdd<F>(other, mask, scale)
      x = v128.load32_splat(x0, 4)
      c0 = multiplyAdd(x, low, c0)
      c1 = multiplyAdd(x, high, c1)
      x = v128.load32_splat(x1, 4)
      d0 = multiplyAdd(x, low, d0)
      d1 = multiplyAdd(x, high, d1)
    }
    x0 += 8
    x1 += 8
    if (countOf<R>() > 2) x2 += 8
    if (countOf<R>() > 3) x3 += 8
    w += pairBytes<F>()
    if (countOf<P>() > 1) other += pairBytes<F>()
  }
  storePanel(op, row, panel, a0, a1)
  storePanel(op, row + 1, panel, b0, b1)
  if (countOf<P>() > 1) {
    storePanel(op, row, panel + distance, c0, c1)
    storePanel(op, row + 1, panel + distance, d0, d1)
  }
  if (countOf<R>() > 2) storePanel(op, row + 2, panel, c0, c1)
  if (countOf<R>() > 3) storePanel(op, row + 3, panel, d0, d1)
}

/** The scalar form: the same sums in the same order. */
export function rowsDenseScalar(op: usize, block: i32, count: i32, first: i32, end: i32): void {
  const nIn = word(op, LINEAR_N_IN)
  const format = word(op, LINEAR_FORMAT)
  for (let row = block; row < block + count; row++) {
    const x = at(pointer(op, LINEAR_X), row * word(op, LINEAR_X_STRIDE))
    for (let panel = first; panel < end; panel++) {
      for (let lane = 0; lane < PANEL_ROWS; lane++) {
        let sum: f32 = 0
        for (let k = 0; k < nIn; k++) sum += load<f32>(at(x, k)) * denseWeight(format, densePanelAt(op, panel), lane, k)
        storeOutput(op, row, panel * PANEL_ROWS + lane, sum)
      }
    }
  }
}
