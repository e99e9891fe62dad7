/** exp, log, log1p, sine and cosine against evaluations in fixed point with 1400 bits after the point (BigInt), over the whole range. */
import { describe, expect, it } from 'vitest'
import { exp, log, log1p, sinCos } from '../src/elementary.ts'
import { createRandom } from '../src/random.ts'

const BITS = 1400n
const ONE = 1n << BITS
const LN2 = 2n * fixedArtanh(ONE / 3n)

/** A float64 as a fixed-point number: exact for |x| ≥ 2^-1347, hence for every float64. */
function toFixed(x: number): bigint {
  const view = new DataView(new ArrayBuffer(8))
  view.setFloat64(0, x)
  const bits = view.getBigUint64(0)
  const exponent = (bits >> 52n) & 0x7ffn
  const mantissa = (bits & 0xfffffffffffffn) | (exponent === 0n ? 0n : 1n << 52n)
  const shift = BITS - 1074n + (exponent === 0n ? 0n : exponent - 1n)
  return (bits >> 63n === 1n ? -mantissa : mantissa) << shift
}

/** The unit in the last place of x, in fixed point. */
function ulpOf(x: number): bigint {
  const view = new DataView(new ArrayBuffer(8))
  view.setFloat64(0, Math.abs(x))
  const exponent = view.getBigUint64(0) >> 52n
  return 1n << (BITS - 1074n + (exponent === 0n ? 0n : exponent - 1n))
}

function errorInUlps(got: number, exact: bigint): number {
  return Math.abs(Number(((toFixed(got) - exact) << 30n) / ulpOf(got)) / 2 ** 30)
}

/** Powers of two out, the argument halved eight times, the Taylor series, squared eight times. */
function fixedExp(x: bigint): bigint {
  const k = x / LN2
  const r = (x - k * LN2) / 256n
  let term = ONE
  let total = ONE
  for (let n = 1n; term !== 0n; n++) {
    term = (term * r) / (n * ONE)
    total += term
  }
  for (let i = 0; i < 8; i++) total = (total * total) >> BITS
  return k >= 0n ? total << k : total >> -k
}

/** 2 artanh((x − 1) / (x + 1)), after taking powers of two out of x. */
function fixedLog(x: bigint): bigint {
  const k = BigInt(x.toString(2).length) - BITS - 1n
  const reduced = k >= 0n ? x >> k : x << -k
  return k * LN2 + 2n * fixedArtanh(((reduced - ONE) * ONE) / (reduced + ONE))
}

/** Without forming 1 + x where x is small. */
function fixedLog1p(x: bigint): bigint {
  return 2n * x < ONE && 2n * x > -ONE ? 2n * fixedArtanh((x * ONE) / (2n * ONE + x)) : fixedLog(ONE + x)
}

function fixedArtanh(s: bigint): bigint {
  const square = (s * s) / ONE
  let power = s
  let total = 0n
  for (let n = 1n; power !== 0n; n += 2n) {
    total += power / n
    power = (power * square) / ONE
  }
  return total
}

const random = createRandom(20)
const uniform = (low: number, high: number) => low + (high - low) * random.next()
const sample = (count: number, draw: () => number) => Array.from({ length: count }, draw)

function worst(f: (x: number) => number, exact: (x: bigint) => bigint, xs: number[]): number {
  return xs.reduce((most, x) => Math.max(most, errorInUlps(f(x), exact(toFixed(x)))), 0)
}

describe('exp', () => {
  it('is within 1 ulp', () => {
    const xs = [
      ...sample(200, () => uniform(-1, 1)), ...sample(200, () => uniform(-40, 40)), ...sample(100, () => uniform(-708, 709)),
      ...sample(50, () => uniform(-745, -708)), ...sample(50, () => uniform(-1e-9, 1e-9)), 709.782712893384, -745.1332191019411, -708.4, Math.LN2 / 2
    ]
    expect(worst(exp, fixedExp, xs)).toBeLessThan(1)
  })

  it('has the limits of the exponential', () => {
    expect([0, -0, -Infinity, -746, -1e300].map(exp)).toEqual([1, 1, 0, 0, 0])
    expect([Infinity, 709.79, 1e300].map(exp)).toEqual([Infinity, Infinity, Infinity])
    expect(exp(NaN)).toBeNaN()
    expect(exp(-745.13)).toBe(Number.MIN_VALUE)
  })
})

describe('log', () => {
  it('is within 1 ulp', () => {
    const xs = [
      ...sample(200, () => uniform(0.5, 2)), ...sample(100, () => 1 + uniform(-1e-6, 1e-6)), ...sample(100, () => uniform(0, 1e6)),
      ...sample(50, () => 2 ** -1022 * random.next()), ...sample(50, () => 1.7e308 * random.next()), Number.MIN_VALUE, Number.MAX_VALUE
    ]
    expect(worst(log, fixedLog, xs)).toBeLessThan(1)
  })

  it('has the limits of the logarithm', () => {
    expect([1, 0, -0, Infinity].map(log)).toEqual([0, -Infinity, -Infinity, Infinity])
    expect([-1, -Infinity, NaN].map(log)).toEqual([NaN, NaN, NaN])
  })
})

describe('log1p', () => {
  it('is within 1 ulp', () => {
    const xs = [
      ...sample(200, () => uniform(-0.5, 1)), ...sample(100, () => uniform(-1e-8, 1e-8)), ...sample(50, () => uniform(-1, -0.99)),
      ...sample(50, () => uniform(1, 1e18)), ...sample(50, () => uniform(-1e-17, 1e-17)), ...sample(50, () => uniform(-1e-300, 1e-300)), Number.MAX_VALUE
    ]
    expect(worst(log1p, fixedLog1p, xs)).toBeLessThan(1)
  })

  it('has the limits of log(1 + x)', () => {
    expect([0, -0, -1, Infinity].map(log1p)).toEqual([0, -0, -Infinity, Infinity])
    expect([-1.5, -Infinity, NaN].map(log1p)).toEqual([NaN, NaN, NaN])
  })
})

/** arctan(1 / n) by its series. */
function fixedArctanOfInverse(n: bigint): bigint {
  let power = ONE / n
  let total = 0n
  for (let i = 1n; power !== 0n; i += 2n) {
    total += (i % 4n === 1n ? power : -power) / i
    power /= n * n
  }
  return total
}

/** Machin's formula. */
const HALF_PI = 2n * (4n * fixedArctanOfInverse(5n) - fixedArctanOfInverse(239n))

/** Whole quarters of a turn out, then the Taylor series. */
function fixedSinCos(x: bigint): readonly [bigint, bigint] {
  const quarters = x / HALF_PI
  const r = x - quarters * HALF_PI
  const sums = [0n, 0n]
  for (let n = 0n, term = ONE; term !== 0n; n++, term = (term * r) / (n * ONE)) sums[n % 2n === 1n ? 0 : 1] += n % 4n < 2n ? term : -term
  const [sin, cos] = sums
  return ([[sin, cos], [cos, -sin], [-sin, -cos], [-cos, sin]] as const)[Number(quarters % 4n)]
}

describe('sinCos', () => {
  it('is within 2e-16', () => {
    const halfPi = Math.PI / 2
    const xs = [
      ...sample(200, () => uniform(0, 8)), ...sample(200, () => uniform(0, 4096)), ...sample(200, () => uniform(0, 1.6e6)), ...sample(50, () => uniform(0, 1e-9)),
      // Next to where one of them is zero.
      ...[1, 2, 3, 4, 5, 1001, 2002, 800_003, 1_000_000].flatMap((k) => [k * halfPi, Math.fround(k * halfPi)]), halfPi / 2, 1.5 * halfPi, 0, 1.6e6
    ]
    let worstError = 0
    for (const x of xs) {
      const exact = fixedSinCos(toFixed(x))
      sinCos(x).forEach((got, i) => {
        const error = Math.abs(Number(((toFixed(got) - exact[i]) << 80n) >> BITS) / 2 ** 80)
        worstError = Math.max(worstError, error)
      })
    }
    expect(worstError).toBeLessThan(2e-16)
  })

  it('knows zero', () => expect(sinCos(0)).toEqual([0, 1]))
})

it('gives the same bits everywhere: a checksum of many results', () => {
  const draws = createRandom(3)
  let checksum = 0
  const words = new Int32Array(2)
  const value = new Float64Array(words.buffer)
  for (let i = 0; i < 20_000; i++) {
    const x = draws.next()
    for (const y of [exp(40 * x - 20), log(x), log1p(x - 0.5)]) {
      value[0] = y
      checksum = (Math.imul(checksum, 31) + (words[0] ^ words[1])) | 0
    }
  }
  expect(checksum).toBe(1994325441)
})
