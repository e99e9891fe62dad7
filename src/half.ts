/**
 * Half floats (IEEE 754 binary16): sign, 5 bits of exponent, 10 of fraction.
 */

const F16_INFINITY = 0x7c00

let values: Float32Array | undefined

/** The value of every half, by its bits: a lookup of 256 KiB is faster than arithmetic, and plainly exact. Made when first asked for. */
export function f16Values(): Float32Array {
  values ??= makeValues()
  return values
}

/** A half's exponent and fraction, in a float32's places, are 2^-112 times the half, whether it is normal or not. */
function makeValues(): Float32Array {
  const floats = new Float32Array(2 ** 16)
  const bits = new Int32Array(floats.buffer)
  for (let half = 0; half < 2 ** 16; half++) bits[half] = ((half & 0x8000) << 16) | ((half & 0x7fff) << 13)
  for (let half = 0; half < 2 ** 16; half++) floats[half] *= 2 ** 112
  // An exponent of ones: infinities, and what is no number.
  for (const sign of [0, 0x8000]) {
    floats.fill(NaN, sign | F16_INFINITY, (sign | 0x7fff) + 1)
    floats[sign | F16_INFINITY] = sign === 0 ? Infinity : -Infinity
  }
  return floats
}

/** The bits of one float32. */
const one = new Float32Array(1)
const oneBits = new Int32Array(one.buffer)

/** The half float nearest to the float32 of these bits; what is 65520 or more in size gives infinity. */
function f16OfF32Bits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000
  const size = bits & 0x7fffffff
  // Normal halves: drop 13 bits of fraction, rebase the exponent; a carry runs into the exponent, and to infinity, as it should.
  if (size >= 0x38800000) {
    if (size >= 0x47800000) return sign | (size > 0x7f800000 ? 0x7e00 : F16_INFINITY)
    return sign | ((size - 0x38000000 + 0xfff + ((size >>> 13) & 1)) >>> 13)
  }
  // Subnormal halves count in units of 2^-24; below half a unit nothing is left.
  const exponent = size >>> 23
  if (exponent < 102) return sign
  const significand = (size & 0x7fffff) | 0x800000
  const shift = 126 - exponent
  const whole = significand >>> shift
  const rest = significand & ((1 << shift) - 1)
  const half = 1 << (shift - 1)
  return sign | (whole + (rest > half || (rest === half && (whole & 1) === 1) ? 1 : 0))
}

/** The half float nearest to a number, through float32. */
export function f16Bits(value: number): number {
  one[0] = value
  return f16OfF32Bits(oneBits[0])
}

/** The nearest half of each value into `halves`; index of the first value that is not finite or too large, or -1. */
export function roundToHalves(values: Float32Array, halves: Uint16Array): number {
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length)
  for (let i = 0; i < bits.length; i++) {
    const half = f16OfF32Bits(bits[i])
    if ((half & F16_INFINITY) === F16_INFINITY) return i
    halves[i] = half
  }
  return -1
}
