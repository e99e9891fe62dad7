/**
 * exp, log and log1p in float64, the same bits in every JavaScript engine.
 *
 * Math.exp and its kin are left to the engine by the language, and Node, Deno and Bun differ in the last digit;
 * + − × ÷ are not. Whatever decides a bit of a result (A = −exp(A_log), the sampler's softmax) goes through here.
 * The method and the minimax coefficients are those of Sun's fdlibm (Copyright 1993 Sun Microsystems, Inc.; freely granted).
 */

/** ln 2 in two parts: the first has 32 significant bits, so its product with an exponent is exact. */
const LN2_HIGH = 6.93147180369123816490e-1
const LN2_LOW = 1.90821492927058770002e-10

/** Above it exp overflows; below the second it rounds to zero. */
const EXP_OVERFLOW = 7.09782712893383973096e2
const EXP_UNDERFLOW = -7.45133219101941108420e2

const TWO_TO_MINUS_1000 = 9.332636185032189e-302

/** r coth(r/2) ≈ 2 + r² (P1 + r² (P2 + …)) on |r| ≤ ln 2 / 2. */
const P1 = 1.66666666666666019037e-1
const P2 = -2.77777777770155933842e-3
const P3 = 6.61375632143793436117e-5
const P4 = -1.65339022054652515390e-6
const P5 = 4.13813679705723846039e-8

/** log((1 + s) / (1 − s)) ≈ 2 s + s (L1 s² + L2 s⁴ + …) on 0 ≤ s ≤ 3 − 2√2. */
const L1 = 6.666666666666735130e-1
const L2 = 3.999999999940941908e-1
const L3 = 2.857142874366239149e-1
const L4 = 2.222219843214978396e-1
const L5 = 1.818357216161805012e-1
const L6 = 1.531383769920937332e-1
const L7 = 1.479819860511658591e-1

/** High word of √2/2: adding the distance from it to 1 puts the mantissa's range at [√2/2, √2). */
const HIGH_OF_ONE = 0x3ff00000
const HIGH_OF_SQRT_HALF = 0x3fe6a09e

// Views of one float64 each; words are little-endian, as on every host of WebAssembly this package supports.
const power = new Float64Array(1)
const powerWords = new Int32Array(power.buffer)
const parts = new Float64Array(1)
const partsWords = new Int32Array(parts.buffer)

/**
 * e to the x. Error below 1 ulp (0.83 measured), subnormal results included; −∞ → 0, ∞ and overflow → ∞, NaN → NaN.
 */
export function exp(x: number): number {
  if (!(x <= EXP_OVERFLOW)) return x > 0 ? Infinity : NaN
  if (x < EXP_UNDERFLOW) return 0
  // x = k ln 2 + r, |r| ≤ ln 2 / 2; r = high − low carries more bits than one float64.
  const k = Math.floor(x * Math.LOG2E + 0.5)
  const high = x - k * LN2_HIGH
  const low = k * LN2_LOW
  const r = high - low
  const t = r * r
  const c = r - t * (P1 + t * (P2 + t * (P3 + t * (P4 + t * P5))))
  return scale(1 - (low - (r * c) / (2 - c) - high), k)
}

/** y 2^k for y in [0.7, 1.5] and −1075 ≤ k ≤ 1024: in two steps where 2^k itself is no normal number. */
function scale(y: number, k: number): number {
  if (k > 1023) return y * 2 * powerOfTwo(1023)
  if (k < -1022) return y * powerOfTwo(k + 1000) * TWO_TO_MINUS_1000
  return y * powerOfTwo(k)
}

/** 2^k for a normal result, by its bits: the language leaves the last digit of `**` to the engine. */
function powerOfTwo(k: number): number {
  powerWords[1] = (k + 1023) << 20
  return power[0]
}

/**
 * The natural logarithm. Error below 1 ulp (0.74 measured); ±0 → −∞, below 0 → NaN, ∞ → ∞, NaN → NaN.
 */
export function log(x: number): number {
  if (!(x > 0)) return x === 0 ? -Infinity : NaN
  if (x === Infinity) return x
  // A subnormal has no exponent of its own to read: scale it up first.
  return x < 2.2250738585072014e-308 ? logOfNormal(x * 18014398509481984, -54, 0) : logOfNormal(x, 0, 0)
}

/**
 * log(1 + x), exact where 1 + x is not. Error below 1 ulp (0.77 measured); −1 → −∞, below −1 → NaN, ∞ → ∞, NaN → NaN, −0 → −0.
 */
export function log1p(x: number): number {
  if (!(x > -1)) return x === -1 ? -Infinity : NaN
  if (x === Infinity) return x
  if (x > -1.1102230246251565e-16 && x < 1.1102230246251565e-16) return x
  if (x > -0.29289 && x < 0.41421) return logOfReduced(x, 0, 0)
  const u = 1 + x
  // What rounding 1 + x lost, relative to u; beyond 2^54 it is below half a bit of the result.
  const lost = x >= 1 ? 1 - (u - x) : x - (u - 1)
  return logOfNormal(u, 0, x < 18014398509481984 ? lost / u : 0)
}

/** log(x) + k ln 2 + correction, for a normal positive x. */
function logOfNormal(x: number, k: number, correction: number): number {
  parts[0] = x
  const shifted = partsWords[1] + (HIGH_OF_ONE - HIGH_OF_SQRT_HALF)
  partsWords[1] = (shifted & 0xfffff) + HIGH_OF_SQRT_HALF
  return logOfReduced(parts[0] - 1, k + (shifted >> 20) - 1023, correction)
}

/** log(1 + f) + k ln 2 + correction, for 1 + f in [√2/2, √2): with s = f / (2 + f), log(1 + f) = f − f²/2 + s (f²/2 + R(s)). */
function logOfReduced(f: number, k: number, correction: number): number {
  const s = f / (2 + f)
  const z = s * s
  const w = z * z
  const remainder = z * (L1 + w * (L3 + w * (L5 + w * L7))) + w * (L2 + w * (L4 + w * L6))
  const half = 0.5 * f * f
  return s * (half + remainder) + (k * LN2_LOW + correction) - half + f + k * LN2_HIGH
}

/** π/2 in three parts: the first two have 33 significant bits, so their products with an integer below 2^20 are exact. */
const HALF_PI_1 = 1.57079632673412561417e0
const HALF_PI_2 = 6.07710050630396597660e-11
const HALF_PI_3 = 2.02226624879595063154e-21

/** sin r ≈ r + r³ (S1 + r² (S2 + …)), cos r ≈ 1 − r²/2 + r⁴ (C1 + r² (C2 + …)) on |r| ≤ π/4. */
const S1 = -1.66666666666666324348e-1
const S2 = 8.33333333332248946124e-3
const S3 = -1.98412698298579493134e-4
const S4 = 2.75573137070700676789e-6
const S5 = -2.50507602534068634195e-8
const S6 = 1.58969099521155010221e-10
const C1 = 4.16666666666666019037e-2
const C2 = -1.38888888888741095749e-3
const C3 = 2.48015872894767294178e-5
const C4 = -2.75573143513906633035e-7
const C5 = 2.08757232129817482790e-9
const C6 = -1.13596475577881948265e-11

/** Sine and cosine of 0 ≤ x < 1.6e6. Absolute error below 2e-16 (measured against 50 digits in test/elementary.test.ts). */
export function sinCos(x: number): readonly [sin: number, cos: number] {
  const k = Math.floor(x / HALF_PI_1 + 0.5)
  const r = x - k * HALF_PI_1 - k * HALF_PI_2 - k * HALF_PI_3
  const z = r * r
  const sin = r + r * z * (S1 + z * (S2 + z * (S3 + z * (S4 + z * (S5 + z * S6)))))
  const cos = 1 - (0.5 * z - z * z * (C1 + z * (C2 + z * (C3 + z * (C4 + z * (C5 + z * C6))))))
  switch (k & 3) {
    case 0: return [sin, cos]
    case 1: return [cos, -sin]
    case 2: return [-sin, -cos]
    default: return [-cos, sin]
  }
}
