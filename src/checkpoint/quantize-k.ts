/**
 * float32 to ggml's Q4_K and Q6_K: superblocks of 256 (drawn in src/ggml-blocks.ts). The format says what bytes mean, not how to choose
 * them: here each group's scale, and minimum, are those of the least squared error, over a few step widths near the one that spans the
 * group; llama.cpp searches alike, with an error weighted by size. In float64, with + − × ÷ alone: the same bytes in every runtime.
 */
import { f16Bits, f16Values } from '../half.ts'

const WIDE = 256
const Q4_K_BYTES = 144
const Q6_K_BYTES = 210
const F16_INFINITY = 0x7c00
const MOST_6_BITS = 63

/** Steps of a group's range that are tried: with rather fewer the ends are cut off, with more the middle is coarser. */
const Q4_STEPS = [14.1, 14.4, 14.7, 15, 15.3, 15.6, 15.9]
const Q6_STEPS = [31.1, 31.4, 31.7, 32, 32.3, 32.6, 32.9]

interface Fit {
  scale: number
  minimum: number
}

/** The best scale and minimum (0 or less) of x ≈ scale · q + minimum with q from 0 to 15, over values [first, first + 32). */
function fitWithMinimum(values: Float32Array, first: number, fit: Fit): void {
  let [low, high, sumX, sumXX] = [0, -Infinity, 0, 0]
  for (let i = first; i < first + 32; i++) {
    const x = values[i]
    if (x < low) low = x
    if (x > high) high = x
    sumX += x
    sumXX += x * x
  }
  fit.scale = 0
  fit.minimum = low
  if (!(high > low)) return
  let least = Infinity
  for (const steps of Q4_STEPS) {
    const inverse = steps / (high - low)
    let [sumQ, sumQQ, sumQX] = [0, 0, 0]
    for (let i = first; i < first + 32; i++) {
      const x = values[i]
      const q = Math.min(15, ((x - low) * inverse + 0.5) | 0)
      sumQ += q
      sumQQ += q * q
      sumQX += q * x
    }
    // The least squares of two unknowns, or of one where the minimum would be above zero, which the format has no sign for.
    const determinant = 32 * sumQQ - sumQ * sumQ
    let scale = (32 * sumQX - sumQ * sumX) / determinant
    let minimum = (sumX * sumQQ - sumQ * sumQX) / determinant
    // All q are the same, and then none is 0, where they are of one value above zero.
    if (determinant === 0 || minimum > 0) {
      minimum = 0
      scale = sumQX / sumQQ
    }
    const error = scale * scale * sumQQ + 32 * minimum * minimum + sumXX + 2 * (scale * minimum * sumQ - scale * sumQX - minimum * sumX)
    if (error < least && scale > 0) {
      least = error
      fit.scale = scale
      fit.minimum = minimum
    }
  }
}

/** To the nearest integer from -32 to 31; Math.round is slower. */
function signedSix(value: number): number {
  return Math.max(0, Math.min(63, (value + 32.5) | 0)) - 32
}

/** The best scale, of either sign, of x ≈ scale · q with q from -32 to 31, over values [first, first + 16). */
function fitSigned(values: Float32Array, first: number): number {
  let largest = 0
  for (let i = first; i < first + 16; i++) if (Math.abs(values[i]) > Math.abs(largest)) largest = values[i]
  if (largest === 0) return 0
  let [best, gain] = [0, -1]
  for (const steps of Q6_STEPS) {
    const inverse = -steps / largest
    let [sumQQ, sumQX] = [0, 0]
    for (let i = first; i < first + 16; i++) {
      const q = signedSix(values[i] * inverse)
      sumQQ += q * q
      sumQX += q * values[i]
    }
    // The error is Σ x² less this.
    if (sumQX * sumQX > gain * sumQQ) {
      gain = (sumQX * sumQX) / sumQQ
      best = sumQX / sumQQ
    }
  }
  return best
}

/** Writes a half at `at` and gives its value; infinite for a number that no half holds. */
function storeHalf(out: Uint8Array, at: number, value: number): number {
  const bits = f16Bits(value)
  out[at] = bits
  out[at + 1] = bits >>> 8
  return (bits & F16_INFINITY) === F16_INFINITY ? Infinity : f16Values()[bits]
}

/** Index of the first value that is not finite, or else of the largest. */
function culprit(values: Float32Array, first: number): number {
  let largest = first
  for (let i = first; i < first + WIDE; i++) {
    if (!Number.isFinite(values[i])) return i
    if (Math.abs(values[i]) > Math.abs(values[largest])) largest = i
  }
  return largest
}

function allFinite(values: Float32Array, first: number): boolean {
  for (let i = first; i < first + WIDE; i++) if (!Number.isFinite(values[i])) return false
  return true
}

/** As `Encoder.encode` of quantize.ts. */
export function encodeQ4K(values: Float32Array, out: Uint8Array): number {
  const fit: Fit = { scale: 0, minimum: 0 }
  const scales = new Float64Array(8)
  const minima = new Float64Array(8)
  for (let start = 0, at = 0; start < values.length; start += WIDE, at += Q4_K_BYTES) {
    if (!allFinite(values, start)) return culprit(values, start)
    let [mostScale, mostMinimum] = [0, 0]
    for (let group = 0; group < 8; group++) {
      fitWithMinimum(values, start + 32 * group, fit)
      scales[group] = fit.scale
      minima[group] = -fit.minimum
      mostScale = Math.max(mostScale, fit.scale)
      mostMinimum = Math.max(mostMinimum, -fit.minimum)
    }
    const d = storeHalf(out, at, mostScale / MOST_6_BITS)
    const dMin = storeHalf(out, at + 2, mostMinimum / MOST_6_BITS)
    if (d === Infinity || dMin === Infinity) return culprit(values, start)
    out.fill(0, at + 4, at + Q4_K_BYTES)
    for (let group = 0; group < 8; group++) {
      const scale = sixBits(scales[group], d)
      const minimum = sixBits(minima[group], dMin)
      storeScales(out, at + 4, { group, scale, minimum })
      const inverse = scale === 0 || d === 0 ? 0 : 1 / (d * scale)
      const shift = (group & 1) * 4
      const nibbles = at + 16 + 32 * (group >> 1)
      for (let i = 0; i < 32; i++) {
        const q = (values[start + 32 * group + i] + dMin * minimum) * inverse + 0.5
        out[nibbles + i] |= Math.max(0, Math.min(15, q | 0)) << shift
      }
    }
  }
  return -1
}

function sixBits(value: number, unit: number): number {
  return unit === 0 ? 0 : Math.min(MOST_6_BITS, (value / unit + 0.5) | 0)
}

/** Groups 0 to 3 have six bits of a byte each; of 4 to 7 four bits stand in the last bytes and two above those of groups 0 to 3. */
function storeScales(out: Uint8Array, at: number, { group, scale, minimum }: { group: number; scale: number; minimum: number }): void {
  if (group < 4) {
    out[at + group] |= scale
    out[at + 4 + group] |= minimum
  } else {
    out[at + 4 + group] |= (scale & 15) | ((minimum & 15) << 4)
    out[at + group - 4] |= (scale >> 4) << 6
    out[at + group] |= (minimum >> 4) << 6
  }
}

/** As `Encoder.encode` of quantize.ts. */
export function encodeQ6K(values: Float32Array, out: Uint8Array): number {
  const scales = new Float64Array(16)
  for (let start = 0, at = 0; start < values.length; start += WIDE, at += Q6_K_BYTES) {
    if (!allFinite(values, start)) return culprit(values, start)
    let most = 0
    for (let group = 0; group < 16; group++) {
      scales[group] = fitSigned(values, start + 16 * group)
      if (Math.abs(scales[group]) > Math.abs(most)) most = scales[group]
    }
    // Signed bytes reach further below zero.
    const d = storeHalf(out, at + 208, most / -128)
    if (d === Infinity) return culprit(values, start)
    out.fill(0, at, at + 192)
    for (let group = 0; group < 16; group++) {
      const scale = d === 0 ? 0 : Math.max(-128, Math.min(127, Math.round(scales[group] / d)))
      out[at + 192 + group] = scale
      const inverse = scale === 0 ? 0 : 1 / (d * scale)
      for (let i = 16 * group; i < 16 * group + 16; i++) {
        const q = signedSix(values[start + i] * inverse) + 32
        const [half, inHalf] = [i >> 7, i & 127]
        out[at + 64 * half + (inHalf & 63)] |= (q & 15) << (inHalf >> 6 << 2)
        out[at + 128 + 32 * half + (inHalf & 31)] |= (q >> 4) << (inHalf >> 5 << 1)
      }
    }
  }
  return -1
}
