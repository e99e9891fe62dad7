/**
 * Elementwise ops: `activation`, out = f(x) or f(x) · by, and `scaledAdd`, out = factor · x or out + factor · x. Both write exactly their width.
 * Threads share the columns of an activation as those of the linear op before it, SHARE at a time: what a thread reads it has written itself;
 * they share the rows of a scaled sum, as the norms do.
 */

import {
  ACTIVATION_BY, ACTIVATION_BY_STRIDE, ACTIVATION_FUNCTION, ACTIVATION_OUT, ACTIVATION_OUT_STRIDE, ACTIVATION_WIDTH, ACTIVATION_X,
  ACTIVATION_X_STRIDE, FUNCTION_GELU, FUNCTION_SILU, LANES, SCALED_ACCUMULATE, SCALED_FACTOR, SCALED_OUT, SCALED_OUT_STRIDE, SCALED_WIDTH,
  SCALED_X, SCALED_X_STRIDE, SHARE
} from '../abi'
import { at, firstOf, pointer, rowsOf, word } from '../control'
import { Gelu, lanesOf, Silu, valueOf } from '../math/elementwise'
import { multiplyAdd } from '../math/multiply-add'

class Relu2 {}

export function activation(control: usize, op: usize, thread: i32): void {
  switch (word(op, ACTIVATION_FUNCTION)) {
    case FUNCTION_SILU: activate<Silu>(control, op, thread); break
    case FUNCTION_GELU: activate<Gelu>(control, op, thread); break
    default: activate<Relu2>(control, op, thread)
  }
}

function activate<F>(control: usize, op: usize, thread: i32): void {
  const nRows = rowsOf(control, op)
  const width = word(op, ACTIVATION_WIDTH)
  const nShares = (width + SHARE - 1) / SHARE
  const first = firstOf(control, nShares, thread) * SHARE
  const end = min(width, firstOf(control, nShares, thread + 1) * SHARE)
  const factors = pointer(op, ACTIVATION_BY)
  for (let row = 0; row < nRows; row++) {
    const x = at(pointer(op, ACTIVATION_X), row * word(op, ACTIVATION_X_STRIDE))
    const by = at(factors, row * word(op, ACTIVATION_BY_STRIDE))
    const out = at(pointer(op, ACTIVATION_OUT), row * word(op, ACTIVATION_OUT_STRIDE))
    let i = first
    if (ASC_FEATURE_SIMD) {
      for (; i + LANES <= end; i += LANES) {
        const value = activatedLanes<F>(v128.load(at(x, i)))
        v128.store(at(out, i), factors ? f32x4.mul(value, v128.load(at(by, i))) : value)
      }
    }
    for (; i < end; i++) {
      const value = activated<F>(load<f32>(at(x, i)))
      store<f32>(at(out, i), factors ? value * load<f32>(at(by, i)) : value)
    }
  }
}

// @ts-ignore: decorator
@inline
function activatedLanes<F>(x: v128): v128 {
  if (idof<F>() != idof<Relu2>()) return lanesOf<F>(x)
  const positive = f32x4.max(x, f32x4.splat(0))
  return f32x4.mul(positive, positive)
}

// @ts-ignore: decorator
@inline
function activated<F>(x: f32): f32 {
  if (idof<F>() != idof<Relu2>()) return valueOf<F>(x)
  const positive = max<f32>(x, 0)
  return positive * positive
}

export function scaledAdd(control: usize, op: usize, thread: i32): void {
  const nRows = rowsOf(control, op)
  const width = word(op, SCALED_WIDTH)
  const factor = load<f32>(at(op, SCALED_FACTOR))
  const accumulate = word(op, SCALED_ACCUMULATE)
  const end = firstOf(control, nRows, thread + 1)
  for (let row = firstOf(control, nRows, thread); row < end; row++) {
    const x = at(pointer(op, SCALED_X), row * word(op, SCALED_X_STRIDE))
    const out = at(pointer(op, SCALED_OUT), row * word(op, SCALED_OUT_STRIDE))
    let i = 0
    if (ASC_FEATURE_SIMD) {
      const factors = f32x4.splat(factor)
      for (; i + LANES <= width; i += LANES) {
        const value = v128.load(at(x, i))
        v128.store(at(out, i), accumulate ? multiplyAdd(factors, value, v128.load(at(out, i))) : f32x4.mul(factors, value))
      }
    }
    for (; i < width; i++) {
      const value = factor * load<f32>(at(x, i))
      store<f32>(at(out, i), accumulate ? value + load<f32>(at(out, i)) : value)
    }
  }
}
