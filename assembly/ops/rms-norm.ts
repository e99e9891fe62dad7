/**
 * RMSNorm: out = x / sqrt(mean(x²) + eps) · weight, with a mean for each group of columns; with a gate, x · silu(gate) stands for x.
 * Reads x, gate (nRows, width), weight (width); writes out (nRows, width), exactly its width.
 * The squares go to 8 partial sums, element i of a group to sum i mod 8, added up pairwise in a fixed order: the same bits in both builds.
 * Threads share the rows, and each does a token's alone; a row stays in L1 between its two passes.
 */

import {
  NORM_EPS, NORM_GATE, NORM_GATE_STRIDE, NORM_GROUP_WIDTH, NORM_OUT, NORM_OUT_STRIDE, NORM_WEIGHT, NORM_WIDTH, NORM_X, NORM_X_STRIDE
} from '../abi'
import { at, endRowOf, firstRowOf, pointer, scratchOf, word } from '../control'
import { silu, siluLanes } from '../math/exp'

const PARTIALS: i32 = 8

export function rmsNorm(control: usize, op: usize, thread: i32): void {
  const width = word(op, NORM_WIDTH)
  const groupWidth = word(op, NORM_GROUP_WIDTH)
  const weight = pointer(op, NORM_WEIGHT)
  const gate = pointer(op, NORM_GATE)
  const eps = load<f32>(at(op, NORM_EPS))
  const partials = scratchOf(control, thread)
  const end = endRowOf(control, op, thread)
  for (let row = firstRowOf(control, op, thread); row < end; row++) {
    const out = at(pointer(op, NORM_OUT), row * word(op, NORM_OUT_STRIDE))
    let x = at(pointer(op, NORM_X), row * word(op, NORM_X_STRIDE))
    if (gate) {
      multiplyBySilu(x, at(gate, row * word(op, NORM_GATE_STRIDE)), out, width)
      x = out
    }
    for (let first = 0; first < width; first += groupWidth) {
      const source = at(x, first)
      const factor = <f32>1 / sqrt<f32>(sumOfSquares(source, groupWidth, partials) / <f32>groupWidth + eps)
      scale(source, factor, weight ? at(weight, first) : 0, at(out, first), groupWidth)
    }
  }
}

/** out = x · silu(gate) */
function multiplyBySilu(x: usize, gate: usize, out: usize, width: i32): void {
  let i = 0
  if (ASC_FEATURE_SIMD) {
    for (; i + 4 <= width; i += 4) v128.store(at(out, i), f32x4.mul(v128.load(at(x, i)), siluLanes(v128.load(at(gate, i)))))
  }
  for (; i < width; i++) store<f32>(at(out, i), load<f32>(at(x, i)) * silu(load<f32>(at(gate, i))))
}

/** out = x · factor · weight, or x · factor where there is no weight. */
function scale(x: usize, factor: f32, weight: usize, out: usize, width: i32): void {
  let i = 0
  if (ASC_FEATURE_SIMD) {
    const factors = f32x4.splat(factor)
    for (; i + 4 <= width; i += 4) {
      let value = f32x4.mul(v128.load(at(x, i)), factors)
      if (weight) value = f32x4.mul(value, v128.load(at(weight, i)))
      v128.store(at(out, i), value)
    }
  }
  for (; i < width; i++) {
    let value = load<f32>(at(x, i)) * factor
    if (weight) value = value * load<f32>(at(weight, i))
    store<f32>(at(out, i), value)
  }
}

function sumOfSquares(x: usize, width: i32, partials: usize): f32 {
  let i = 0
  if (ASC_FEATURE_SIMD) {
    let low = f32x4.splat(0)
    let high = f32x4.splat(0)
    for (; i + PARTIALS <= width; i += PARTIALS) {
      const a = v128.load(at(x, i))
      const b = v128.load(at(x, i), 16)
      low = f32x4.add(low, f32x4.mul(a, a))
      high = f32x4.add(high, f32x4.mul(b, b))
    }
    v128.store(partials, low)
    v128.store(partials, high, 16)
  } else {
    memory.fill(partials, 0, PARTIALS << 2)
  }
  for (; i < width; i++) {
    const partial = at(partials, i % PARTIALS)
    const value = load<f32>(at(x, i))
    store<f32>(partial, load<f32>(partial) + value * value)
  }
  return (
    load<f32>(partials) + load<f32>(partials, 4) + (load<f32>(partials, 8) + load<f32>(partials, 12)) +
    (load<f32>(partials, 16) + load<f32>(partials, 20) + (load<f32>(partials, 24) + load<f32>(partials, 28)))
  )
}
