/** How far numbers are apart. */
import { expect } from 'vitest'

/** Largest |got − want| over the largest |want|; Infinity where a number is not finite or the lengths differ. */
export function relativeError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  if (got.length !== want.length || want.length === 0) return Infinity
  let difference = 0
  let largest = 0
  for (let i = 0; i < want.length; i++) {
    if (!Number.isFinite(got[i])) return Infinity
    difference = Math.max(difference, Math.abs(got[i] - want[i]))
    largest = Math.max(largest, Math.abs(want[i]))
  }
  return largest === 0 ? difference : difference / largest
}

/** Index of the first element whose bits differ, or -1. NaNs are compared by their bits too, and −0 is not 0. */
export function firstDifference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length)
  const [aBits, bBits] = [new Int32Array(a.buffer, a.byteOffset, a.length), new Int32Array(b.buffer, b.byteOffset, b.length)]
  for (let i = 0; i < aBits.length; i++) if (aBits[i] !== bBits[i]) return i
  return -1
}

/** Fails unless both hold the same bits; says where they part. */
export function expectSameBits(got: Float32Array, want: Float32Array, place: string): void {
  const index = firstDifference(got, want)
  if (index >= 0) expect.fail(`${place}: element ${index} of ${want.length} is ${got[index]}, not ${want[index]}`)
}

/** An error as a table of results shows it. */
export function scientific(value: number): string {
  return value.toExponential(1)
}
