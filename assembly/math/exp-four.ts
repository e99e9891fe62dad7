/**
 * exp2, exp, softplus and silu of whole vectors in memory, four of them in step: the bits of exp.ts. One vector after the other would fill the processor's
 * queues with one chain of dependent operations before it meets the next; in step, four chains advance together, and a constant is loaded once for four.
 */

import { LANES } from '../abi'
import {
  C6, constant, D0, D4, exp, exp2, exp2Lanes, expLanes, HIGH, INFINITE, LEAST, LIMIT, LOW, LOWER, NORMAL, ONE, SCALE, SHIFT, silu, siluLanes, softplus,
  softplusLanes, TWO, UPPER
} from './exp'
import { multiplyAdd } from './multiply-add'

const VECTOR_BYTES: usize = <usize>LANES << 2
const FOUR_BYTES: usize = 4 * VECTOR_BYTES

export class Exp2 {}
export class Exp {}
export class Softplus {}
export class Silu {}

/** F of the vectors [x, end), stored from `out` on, which may be `x`. */
export function mapVectors<F>(x: usize, end: usize, out: usize): void {
  if (!ASC_FEATURE_SIMD) {
    for (; x < end; x += 4, out += 4) store<f32>(out, valueOf<F>(load<f32>(x)))
    return
  }
  for (; x + FOUR_BYTES <= end; x += FOUR_BYTES) {
    const x0 = v128.load(x)
    const x1 = v128.load(x, 16)
    const x2 = v128.load(x, 32)
    const x3 = v128.load(x, 48)
    if (idof<F>() == idof<Exp2>()) exp2FourLanes(x0, x1, x2, x3, out)
    else if (idof<F>() == idof<Exp>()) expFourLanes(x0, x1, x2, x3, out)
    else if (idof<F>() == idof<Softplus>()) softplusFourLanes(x0, x1, x2, x3, out)
    else siluFourLanes(x0, x1, x2, x3, out)
    out += FOUR_BYTES
  }
  for (; x < end; x += VECTOR_BYTES) {
    const value = v128.load(x)
    if (idof<F>() == idof<Exp2>()) v128.store(out, exp2Lanes(value))
    else if (idof<F>() == idof<Exp>()) v128.store(out, expLanes(value))
    else if (idof<F>() == idof<Softplus>()) v128.store(out, softplusLanes(value))
    else v128.store(out, siluLanes(value))
    out += VECTOR_BYTES
  }
}

// @ts-ignore: decorator
@inline
function valueOf<F>(x: f32): f32 {
  if (idof<F>() == idof<Exp2>()) return exp2(x)
  if (idof<F>() == idof<Exp>()) return exp(x)
  return idof<F>() == idof<Softplus>() ? softplus(x) : silu(x)
}

/** 2^y of four vectors, stored at `out`. */
// @ts-ignore: decorator
@inline
export function exp2FourLanes(y0: v128, y1: v128, y2: v128, y3: v128, out: usize): void {
  const limit = constant(LIMIT)
  const shift = constant(SHIFT)
  const f0 = f32x4.pmin(y0, limit)
  const f1 = f32x4.pmin(y1, limit)
  const f2 = f32x4.pmin(y2, limit)
  const f3 = f32x4.pmin(y3, limit)
  const rounded0 = f32x4.add(f0, shift)
  const rounded1 = f32x4.add(f1, shift)
  const rounded2 = f32x4.add(f2, shift)
  const rounded3 = f32x4.add(f3, shift)
  hornerFour(
    f32x4.sub(f0, f32x4.sub(rounded0, shift)), f32x4.sub(f1, f32x4.sub(rounded1, shift)), f32x4.sub(f2, f32x4.sub(rounded2, shift)),
    f32x4.sub(f3, f32x4.sub(rounded3, shift)), C6, ONE, out
  )
  const least = constant(LEAST)
  v128.store(out, v128.andnot(scaled(out, rounded0), f32x4.lt(y0, least)))
  v128.store(out, v128.andnot(scaled(out + 16, rounded1), f32x4.lt(y1, least)), 16)
  v128.store(out, v128.andnot(scaled(out + 32, rounded2), f32x4.lt(y2, least)), 32)
  v128.store(out, v128.andnot(scaled(out + 48, rounded3), f32x4.lt(y3, least)), 48)
}

// @ts-ignore: decorator
@inline
function expFourLanes(x0: v128, x1: v128, x2: v128, x3: v128, out: usize): void {
  const b0 = bounded(x0)
  const b1 = bounded(x1)
  const b2 = bounded(x2)
  const b3 = bounded(x3)
  const scale = constant(SCALE)
  const y0 = f32x4.mul(b0, scale)
  const y1 = f32x4.mul(b1, scale)
  const y2 = f32x4.mul(b2, scale)
  const y3 = f32x4.mul(b3, scale)
  hornerFour(fraction(b0, y0), fraction(b1, y1), fraction(b2, y2), fraction(b3, y3), C6, ONE, out)
  v128.store(out, whole(out, y0))
  v128.store(out, whole(out + 16, y1), 16)
  v128.store(out, whole(out + 32, y2), 32)
  v128.store(out, whole(out + 48, y3), 48)
}

// @ts-ignore: decorator
@inline
function bounded(x: v128): v128 {
  return f32x4.pmax(f32x4.pmin(x, constant(UPPER)), constant(LOWER))
}

/** log2 of what e^x has beside the power of two nearest to it, given x · log2 e. */
// @ts-ignore: decorator
@inline
function fraction(x: v128, y: v128): v128 {
  const n = f32x4.sub(f32x4.add(y, constant(SHIFT)), constant(SHIFT))
  return f32x4.mul(f32x4.sub(f32x4.sub(x, f32x4.mul(n, constant(HIGH))), f32x4.mul(n, constant(LOW))), constant(SCALE))
}

/** A polynomial's value in memory times 2^n, n in the low bits of `rounded`. */
// @ts-ignore: decorator
@inline
function scaled(value: usize, rounded: v128): v128 {
  return i32x4.add(v128.load(value), i32x4.shl(rounded, 23))
}

/** e^x from the polynomial's value in memory and x · log2 e. */
// @ts-ignore: decorator
@inline
function whole(value: usize, y: v128): v128 {
  const power = scaled(value, f32x4.add(y, constant(SHIFT)))
  return v128.bitselect(constant(INFINITE), v128.andnot(power, f32x4.lt(power, constant(NORMAL))), f32x4.ge(y, constant(LIMIT)))
}

// @ts-ignore: decorator
@inline
function softplusFourLanes(x0: v128, x1: v128, x2: v128, x3: v128, out: usize): void {
  expFourLanes(f32x4.neg(f32x4.abs(x0)), f32x4.neg(f32x4.abs(x1)), f32x4.neg(f32x4.abs(x2)), f32x4.neg(f32x4.abs(x3)), out)
  const s0 = atanhArgument(out)
  const s1 = atanhArgument(out + 16)
  const s2 = atanhArgument(out + 32)
  const s3 = atanhArgument(out + 48)
  hornerFour(f32x4.mul(s0, s0), f32x4.mul(s1, s1), f32x4.mul(s2, s2), f32x4.mul(s3, s3), D4, D0, out)
  v128.store(out, positivePlus(x0, s0, out))
  v128.store(out, positivePlus(x1, s1, out + 16), 16)
  v128.store(out, positivePlus(x2, s2, out + 32), 32)
  v128.store(out, positivePlus(x3, s3, out + 48), 48)
}

/** log(1 + u) = 2 · atanh(u / (u + 2)), of u in memory. */
// @ts-ignore: decorator
@inline
function atanhArgument(u: usize): v128 {
  const value = v128.load(u)
  return f32x4.div(value, f32x4.add(value, constant(TWO)))
}

/** max(x, 0) + 2 · s · q, q in memory. */
// @ts-ignore: decorator
@inline
function positivePlus(x: v128, s: v128, q: usize): v128 {
  return f32x4.add(f32x4.pmax(x, f32x4.splat(0)), f32x4.mul(f32x4.add(s, s), v128.load(q)))
}

// @ts-ignore: decorator
@inline
function siluFourLanes(x0: v128, x1: v128, x2: v128, x3: v128, out: usize): void {
  expFourLanes(f32x4.neg(x0), f32x4.neg(x1), f32x4.neg(x2), f32x4.neg(x3), out)
  v128.store(out, f32x4.div(x0, f32x4.add(v128.load(out), constant(ONE))))
  v128.store(out, f32x4.div(x1, f32x4.add(v128.load(out, 16), constant(ONE))), 16)
  v128.store(out, f32x4.div(x2, f32x4.add(v128.load(out, 32), constant(ONE))), 32)
  v128.store(out, f32x4.div(x3, f32x4.add(v128.load(out, 48), constant(ONE))), 48)
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
