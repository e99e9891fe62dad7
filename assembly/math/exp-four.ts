/**
 * exp2, exp, softplus, silu and gelu as types, of numbers and of vectors in memory, these but for gelu four in step: the bits of exp.ts. One vector after the other would fill the processor's
 * queues with one chain of dependent operations before it meets the next; in step, four chains advance together, and a constant is loaded once for four.
 */

import { LANES } from '../abi'
import {
  atanhArgument, C6, constant, D0, D4, exp, exp2, exp2Fraction, exp2Lanes, exp2Power, expBounded, expFraction, expLanes, expPower, gated, LIMIT, ONE, SCALE, SHIFT,
  silu, siluLanes, softplus, softplusLanes, softplusSum
} from './exp'
import { gelu, geluLanes } from './gelu'
import { multiplyAdd } from './multiply-add'

const VECTOR_BYTES: usize = <usize>LANES << 2
const FOUR_BYTES: usize = 4 * VECTOR_BYTES

export class Exp2 {}
export class Exp {}
export class Softplus {}
export class Silu {}
export class Gelu {}

/** F of the vectors [x, end), stored from `out` on, which may be `x`. */
export function mapVectors<F>(x: usize, end: usize, out: usize): void {
  if (!ASC_FEATURE_SIMD) {
    for (; x < end; x += 4, out += 4) store<f32>(out, valueOf<F>(load<f32>(x)))
    return
  }
  if (idof<F>() != idof<Gelu>()) {
    for (; x + FOUR_BYTES <= end; x += FOUR_BYTES, out += FOUR_BYTES) fourLanes<F>(v128.load(x), v128.load(x, 16), v128.load(x, 32), v128.load(x, 48), out)
  }
  for (; x < end; x += VECTOR_BYTES, out += VECTOR_BYTES) v128.store(out, lanesOf<F>(v128.load(x)))
}

/** F of one number. */
// @ts-ignore: decorator
@inline
export function valueOf<F>(x: f32): f32 {
  if (idof<F>() == idof<Exp2>()) return exp2(x)
  if (idof<F>() == idof<Exp>()) return exp(x)
  if (idof<F>() == idof<Softplus>()) return softplus(x)
  return idof<F>() == idof<Gelu>() ? gelu(x) : silu(x)
}

/** F of a vector. */
// @ts-ignore: decorator
@inline
export function lanesOf<F>(x: v128): v128 {
  if (idof<F>() == idof<Exp2>()) return exp2Lanes(x)
  if (idof<F>() == idof<Exp>()) return expLanes(x)
  if (idof<F>() == idof<Softplus>()) return softplusLanes(x)
  return idof<F>() == idof<Gelu>() ? geluLanes(x) : siluLanes(x)
}

/** F of four vectors, stored at `out`. */
// @ts-ignore: decorator
@inline
function fourLanes<F>(x0: v128, x1: v128, x2: v128, x3: v128, out: usize): void {
  if (idof<F>() == idof<Exp2>()) exp2FourLanes(x0, x1, x2, x3, out)
  else if (idof<F>() == idof<Exp>()) expFourLanes(x0, x1, x2, x3, out)
  else if (idof<F>() == idof<Softplus>()) softplusFourLanes(x0, x1, x2, x3, out)
  else siluFourLanes(x0, x1, x2, x3, out)
}

/** 2^y of four vectors, stored at `out`. */
// @ts-ignore: decorator
@inline
export function exp2FourLanes(y0: v128, y1: v128, y2: v128, y3: v128, out: usize): void {
  const limit = constant(LIMIT)
  const shift = constant(SHIFT)
  const clamped0 = f32x4.pmin(y0, limit)
  const clamped1 = f32x4.pmin(y1, limit)
  const clamped2 = f32x4.pmin(y2, limit)
  const clamped3 = f32x4.pmin(y3, limit)
  const rounded0 = f32x4.add(clamped0, shift)
  const rounded1 = f32x4.add(clamped1, shift)
  const rounded2 = f32x4.add(clamped2, shift)
  const rounded3 = f32x4.add(clamped3, shift)
  hornerFour(exp2Fraction(clamped0, rounded0), exp2Fraction(clamped1, rounded1), exp2Fraction(clamped2, rounded2), exp2Fraction(clamped3, rounded3), C6, ONE, out)
  v128.store(out, exp2Power(v128.load(out), rounded0, y0))
  v128.store(out, exp2Power(v128.load(out, 16), rounded1, y1), 16)
  v128.store(out, exp2Power(v128.load(out, 32), rounded2, y2), 32)
  v128.store(out, exp2Power(v128.load(out, 48), rounded3, y3), 48)
}

// @ts-ignore: decorator
@inline
function expFourLanes(x0: v128, x1: v128, x2: v128, x3: v128, out: usize): void {
  const bounded0 = expBounded(x0)
  const bounded1 = expBounded(x1)
  const bounded2 = expBounded(x2)
  const bounded3 = expBounded(x3)
  const scale = constant(SCALE)
  const y0 = f32x4.mul(bounded0, scale)
  const y1 = f32x4.mul(bounded1, scale)
  const y2 = f32x4.mul(bounded2, scale)
  const y3 = f32x4.mul(bounded3, scale)
  hornerFour(expFraction(bounded0, y0), expFraction(bounded1, y1), expFraction(bounded2, y2), expFraction(bounded3, y3), C6, ONE, out)
  v128.store(out, expPower(v128.load(out), y0))
  v128.store(out, expPower(v128.load(out, 16), y1), 16)
  v128.store(out, expPower(v128.load(out, 32), y2), 32)
  v128.store(out, expPower(v128.load(out, 48), y3), 48)
}

// @ts-ignore: decorator
@inline
function softplusFourLanes(x0: v128, x1: v128, x2: v128, x3: v128, out: usize): void {
  expFourLanes(f32x4.neg(f32x4.abs(x0)), f32x4.neg(f32x4.abs(x1)), f32x4.neg(f32x4.abs(x2)), f32x4.neg(f32x4.abs(x3)), out)
  const s0 = atanhArgument(v128.load(out))
  const s1 = atanhArgument(v128.load(out, 16))
  const s2 = atanhArgument(v128.load(out, 32))
  const s3 = atanhArgument(v128.load(out, 48))
  hornerFour(f32x4.mul(s0, s0), f32x4.mul(s1, s1), f32x4.mul(s2, s2), f32x4.mul(s3, s3), D4, D0, out)
  v128.store(out, softplusSum(x0, s0, v128.load(out)))
  v128.store(out, softplusSum(x1, s1, v128.load(out, 16)), 16)
  v128.store(out, softplusSum(x2, s2, v128.load(out, 32)), 32)
  v128.store(out, softplusSum(x3, s3, v128.load(out, 48)), 48)
}

// @ts-ignore: decorator
@inline
function siluFourLanes(x0: v128, x1: v128, x2: v128, x3: v128, out: usize): void {
  expFourLanes(f32x4.neg(x0), f32x4.neg(x1), f32x4.neg(x2), f32x4.neg(x3), out)
  v128.store(out, gated(x0, v128.load(out)))
  v128.store(out, gated(x1, v128.load(out, 16)), 16)
  v128.store(out, gated(x2, v128.load(out, 32)), 32)
  v128.store(out, gated(x3, v128.load(out, 48)), 48)
}

/**
 * A polynomial at four vectors, stored at `out`; its coefficients lie among the constants, the highest at `first`. A loop, since wasm's optimizer
 * would sort straight code chain by chain.
 */
// @ts-ignore: decorator
@inline
function hornerFour(f0: v128, f1: v128, f2: v128, f3: v128, first: usize, last: usize, out: usize): void {
  let p0 = constant(first)
  let p1 = p0
  let p2 = p0
  let p3 = p0
  for (let i = first + VECTOR_BYTES; i <= last; i += VECTOR_BYTES) {
    const coefficient = constant(i)
    p0 = multiplyAdd(f0, p0, coefficient)
    p1 = multiplyAdd(f1, p1, coefficient)
    p2 = multiplyAdd(f2, p2, coefficient)
    p3 = multiplyAdd(f3, p3, coefficient)
  }
  v128.store(out, p0)
  v128.store(out, p1, 16)
  v128.store(out, p2, 32)
  v128.store(out, p3, 48)
}
