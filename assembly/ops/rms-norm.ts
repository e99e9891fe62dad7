/**
 * RMSNorm: out = x / sqrt(mean(x²) + eps) · weight.
 * The squares go to 8 partial sums, element i to sum i mod 8, added up pairwise in a fixed order: the same bits in both builds.
 * Threads share the rows; a row stays in L1 between its two passes.
 */

import { NORM_EPS, NORM_OUT, NORM_OUT_STRIDE, NORM_WEIGHT, NORM_WIDTH, NORM_X, NORM_X_STRIDE } from '../abi'
import { at, firstOf, pointer, rowsOf, scratchOf, word } from '../control'

const PARTIALS: i32 = 8

export function rmsNorm(control: usize, op: usize, thread: i32): void {
  const nRows = rowsOf(control, op)
  const width = word(op, NORM_WIDTH)
  const weight = pointer(op, NORM_WEIGHT)
  const eps = load<f32>(at(op, NORM_EPS))
  const partials = scratchOf(control, thread)
  const end = firstOf(control, nRows, thread + 1)
  for (let row = firstOf(control, nRows, thread); row < end; row++) {
    const x = at(pointer(op, NORM_X), row * word(op, NORM_X_STRIDE))
    const out = at(pointer(op, NORM_OUT), row * word(op, NORM_OUT_STRIDE))
    const scale = <f32>1 / sqrt<f32>(sumOfSquares(x, width, partials) / <f32>width + eps)
    let i = 0
    if (ASC_FEATURE_SIMD) {
      const scales = f32x4.splat(scale)
      for (; i + 4 <= width; i += 4) {
        v128.store(at(out, i), f32x4.mul(f32x4.mul(v128.load(at(x, i)), scales), v128.load(at(weight, i))))
      }
    }
    for (; i < width; i++) store<f32>(at(out, i), load<f32>(at(x, i)) * scale * load<f32>(at(weight, i)))
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
