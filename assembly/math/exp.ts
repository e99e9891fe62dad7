/**
 * exp, softplus and silu of four lanes and of one. Both forms do the same f32 operations in the same order,
 * so the scalar and the SIMD build give the same bits. WebAssembly fuses nothing, so neither may differ.
 *
 * Largest errors against float64, measured over the floats of the stated ranges (test/assembly/math.test.ts), relative, in units of 2^-23:
 *   exp2      (-125.5, 128) 0.88
 *   exp       [-87, 88]     1.06
 *   softplus  [-80, 80]     2.45
 *   silu      [-80, 80]     1.49
 */

import { multiplyAdd } from './multiply-add'

/** 2^f − 1 = f · (E1 + E2 · f + … + E6 · f⁵) on [-1/2, 1/2]: minimax, 2.0e-9. */
const E1: f32 = 0.6931471824645996
const E2: f32 = 0.24022647738456726
const E3: f32 = 0.055503323674201965
const E4: f32 = 0.00961843691766262
const E5: f32 = 0.0013398873852565885
const E6: f32 = 0.00015353361959569156
/** 1.5 · 2^23: adding it rounds to an integer, ties to even, and leaves that integer in the low bits. */
const ROUND: f32 = 12582912.0
/** The least n = round(y) for which 2^(n − 1/2) is normal, with ROUND: from -125.5 down 2^y is zero. */
const LEAST: f32 = ROUND - 125
/** 2^-126: no result is below it but zero. */
const LEAST_NORMAL: f32 = 1.1754943508222875e-38
const LOG2_E: f32 = 1.4426950408889634
/** ln 2 in two parts; the first has 9 trailing zero bits, so n · LN2_HI is exact for |n| < 512. */
const LN2_HI: f32 = 0.693359375
const LN2_LO: f32 = -2.12194440e-4
/** atanh(s) / s = 1 + s² · (L1 + s² · (L2 + …)) for s² ≤ 1/9: minimax, 4.0e-9. */
const L1: f32 = 0.33333155512809753
const L2: f32 = 0.20012472569942474
const L3: f32 = 0.13980095088481903
const L4: f32 = 0.1408998966217041

/**
 * The constants as vectors in memory. V8 of Node 24 builds a v128.const anew inside a loop; a load it keeps cheap:
 * 1.56 against 1.17 G exp2/s there, one vector after the other, alike on Node 20.
 */
const CONSTANTS: usize = memory.data<f32>([
  128, 128, 128, 128,
  ROUND, ROUND, ROUND, ROUND,
  E6, E6, E6, E6,
  E5, E5, E5, E5,
  E4, E4, E4, E4,
  E3, E3, E3, E3,
  E2, E2, E2, E2,
  E1, E1, E1, E1,
  1, 1, 1, 1,
  LEAST, LEAST, LEAST, LEAST,
  89, 89, 89, 89,
  -88, -88, -88, -88,
  LOG2_E, LOG2_E, LOG2_E, LOG2_E,
  LN2_HI, LN2_HI, LN2_HI, LN2_HI,
  LN2_LO, LN2_LO, LN2_LO, LN2_LO,
  f32.POSITIVE_INFINITY, f32.POSITIVE_INFINITY, f32.POSITIVE_INFINITY, f32.POSITIVE_INFINITY,
  2, 2, 2, 2,
  L4, L4, L4, L4,
  L3, L3, L3, L3,
  L2, L2, L2, L2,
  L1, L1, L1, L1,
  1, 1, 1, 1,
  LEAST_NORMAL, LEAST_NORMAL, LEAST_NORMAL, LEAST_NORMAL
], 16)
const LIMIT: usize = 0
const SHIFT: usize = 16
const C6: usize = 32
const C5: usize = 48
const C4: usize = 64
const C3: usize = 80
const C2: usize = 96
const C1: usize = 112
const ONE: usize = 128
const LEAST_ROUNDED: usize = 144
const UPPER: usize = 160
const LOWER: usize = 176
const SCALE: usize = 192
const HIGH: usize = 208
const LOW: usize = 224
const INFINITE: usize = 240
const TWO: usize = 256
const D4: usize = 272
const D3: usize = 288
const D2: usize = 304
const D1: usize = 320
const D0: usize = 336
const NORMAL: usize = 352

// @ts-ignore: decorator
@inline
function constant(offset: usize): v128 {
  return v128.load(CONSTANTS + offset)
}

/**
 * 2^y. Zero from y = -125.5 down: no result is subnormal. Infinity from y = 128. NaN stays NaN, as arithmetic makes it (its low bits zero).
 */
// @ts-ignore: decorator
@inline
export function exp2Lanes(y: v128): v128 {
  const clamped = exp2Bounded(y)
  const rounded = exp2Rounded(clamped)
  return exp2Power(exp2Fraction(clamped, rounded), rounded)
}

// @ts-ignore: decorator
@inline
export function exp2Bounded(y: v128): v128 {
  return f32x4.pmin(y, constant(LIMIT))
}

/** The nearest integer of a bounded y, in the low bits. */
// @ts-ignore: decorator
@inline
export function exp2Rounded(bounded: v128): v128 {
  return f32x4.add(bounded, constant(SHIFT))
}

/** What a bounded y has beside its nearest integer. */
// @ts-ignore: decorator
@inline
export function exp2Fraction(bounded: v128, rounded: v128): v128 {
  return f32x4.sub(bounded, f32x4.sub(rounded, constant(SHIFT)))
}

/** 2^y from its two parts. */
// @ts-ignore: decorator
@inline
export function exp2Power(fraction: v128, rounded: v128): v128 {
  return v128.andnot(scaled(polynomialLanes(fraction), rounded), f32x4.lt(rounded, constant(LEAST_ROUNDED)))
}

/** value · 2^n, n in the low bits of `rounded`. */
// @ts-ignore: decorator
@inline
function scaled(value: v128, rounded: v128): v128 {
  return i32x4.add(value, i32x4.shl(rounded, 23))
}

// @ts-ignore: decorator
@inline
export function exp2(y: f32): f32 {
  const bounded: f32 = y > 128 ? 128 : y
  const rounded = bounded + ROUND
  const power = reinterpret<f32>(reinterpret<i32>(polynomial(bounded - (rounded - ROUND))) + (reinterpret<i32>(rounded) << 23))
  return rounded < LEAST ? 0 : power
}

/** e^x by 2^n · 2^f with n = round(x · log2 e) and f from x − n · ln 2 in two parts. Zero where that is below 2^-126, at x ≈ -87.3. */
// @ts-ignore: decorator
@inline
export function expLanes(x: v128): v128 {
  const bounded = expBounded(x)
  const y = expScaled(bounded)
  return expPower(expFraction(bounded, y), y)
}

// @ts-ignore: decorator
@inline
export function expBounded(x: v128): v128 {
  return f32x4.pmax(f32x4.pmin(x, constant(UPPER)), constant(LOWER))
}

/** y = x · log2 e */
// @ts-ignore: decorator
@inline
export function expScaled(bounded: v128): v128 {
  return f32x4.mul(bounded, constant(SCALE))
}

/** f of a bounded x and its y. */
// @ts-ignore: decorator
@inline
export function expFraction(bounded: v128, y: v128): v128 {
  const n = f32x4.sub(f32x4.add(y, constant(SHIFT)), constant(SHIFT))
  return f32x4.mul(f32x4.sub(f32x4.sub(bounded, f32x4.mul(n, constant(HIGH))), f32x4.mul(n, constant(LOW))), constant(SCALE))
}

/** e^x from f and y. */
// @ts-ignore: decorator
@inline
export function expPower(f: v128, y: v128): v128 {
  const power = scaled(polynomialLanes(f), f32x4.add(y, constant(SHIFT)))
  const positive = v128.andnot(power, f32x4.lt(power, constant(NORMAL)))
  return v128.bitselect(constant(INFINITE), positive, f32x4.ge(y, constant(LIMIT)))
}

// @ts-ignore: decorator
@inline
export function exp(x: f32): f32 {
  const below: f32 = x > 89 ? 89 : x
  const bounded: f32 = below < -88 ? -88 : below
  const y = bounded * LOG2_E
  const rounded = y + ROUND
  const n = rounded - ROUND
  const r = bounded - n * LN2_HI - n * LN2_LO
  const power = reinterpret<f32>(reinterpret<i32>(polynomial(r * LOG2_E)) + (reinterpret<i32>(rounded) << 23))
  if (power < LEAST_NORMAL) return 0
  return y >= 128 ? f32.POSITIVE_INFINITY : power
}

/** log(1 + e^x) = max(x, 0) + log(1 + e^-|x|): above PyTorch's threshold of 20 the second term vanishes in f32. */
// @ts-ignore: decorator
@inline
export function softplusLanes(x: v128): v128 {
  return softplusSum(x, expLanes(softplusExponent(x)))
}

/** -|x| */
// @ts-ignore: decorator
@inline
export function softplusExponent(x: v128): v128 {
  return f32x4.neg(f32x4.abs(x))
}

/** max(x, 0) + log(1 + u), u = e^-|x|: log(1 + u) = 2 · atanh(s), s = u / (u + 2). */
// @ts-ignore: decorator
@inline
export function softplusSum(x: v128, u: v128): v128 {
  const s = f32x4.div(u, f32x4.add(u, constant(TWO)))
  const s2 = f32x4.mul(s, s)
  let q = multiplyAdd(s2, constant(D4), constant(D3))
  q = multiplyAdd(s2, q, constant(D2))
  q = multiplyAdd(s2, q, constant(D1))
  q = multiplyAdd(s2, q, constant(D0))
  return f32x4.add(f32x4.pmax(x, f32x4.splat(0)), f32x4.mul(f32x4.add(s, s), q))
}

// @ts-ignore: decorator
@inline
export function softplus(x: f32): f32 {
  const u = exp(-abs<f32>(x))
  const s = u / (u + 2)
  const s2 = s * s
  const q = s2 * (s2 * (s2 * (s2 * L4 + L3) + L2) + L1) + 1
  return (x < 0 ? 0 : x) + (s + s) * q
}

/** x · sigmoid(x) = x / (1 + e^-x). */
// @ts-ignore: decorator
@inline
export function siluLanes(x: v128): v128 {
  return gated(x, expLanes(f32x4.neg(x)))
}

/** x / (1 + e^-x), given the power. */
// @ts-ignore: decorator
@inline
export function gated(x: v128, power: v128): v128 {
  return f32x4.div(x, f32x4.add(power, constant(ONE)))
}

// @ts-ignore: decorator
@inline
export function silu(x: f32): f32 {
  return x / (exp(-x) + 1)
}

/**
 * 2^f. The high half by pairs (Estrin), which makes a shorter chain of dependent operations than Horner's, of which the processor holds more at once;
 * the last two steps are Horner's, whose roundings are smaller.
 */
// @ts-ignore: decorator
@inline
function polynomialLanes(f: v128): v128 {
  const f2 = f32x4.mul(f, f)
  const high = multiplyAdd(f2, constant(C6), multiplyAdd(f, constant(C5), constant(C4)))
  const rest = multiplyAdd(high, f2, multiplyAdd(f, constant(C3), constant(C2)))
  return multiplyAdd(f, multiplyAdd(f, rest, constant(C1)), constant(ONE))
}

// @ts-ignore: decorator
@inline
function polynomial(f: f32): f32 {
  const f2 = f * f
  const rest = (f2 * E6 + (f * E5 + E4)) * f2 + (f * E3 + E2)
  return f * (f * rest + E1) + 1
}
