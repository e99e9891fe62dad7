/**
 * Half floats (IEEE 754 binary16): sign, 5 bits of exponent, 10 of fraction.
 */

/** The value of every half, by its bits: a lookup of 256 KiB is faster than arithmetic, and plainly exact. */
export const F16_VALUES: Float32Array = new Float32Array(2 ** 16).map((_, bits) => halfValue(bits))

function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = bits & 0x3ff
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  // Subnormals have the exponent of the smallest normals and no hidden one.
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25)
}
