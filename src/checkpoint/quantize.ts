/**
 * float32 to the types that tensors are written in: F16 and BF16 by rounding to the nearest (ties to even), Q8_0 and Q4_0 by blocks of 32
 * as ggml's `quantize_row_q8_0_ref` and `quantize_row_q4_0_ref` define them, each operation rounded to float32. (A compiler may fuse a
 * product and a sum: ggml built so differs from its own definition at rare values halfway between two; this does not.) Q4_K and Q6_K: quantize-k.ts.
 */
import { f16Bits, roundToHalves } from '../half.ts'
import { TENSOR_TYPES, type TensorType } from './gguf-types.ts'
import { encodeQ4K, encodeQ6K } from './quantize-k.ts'

/** Types that can be written. */
export type EncodedType = 'F32' | 'F16' | 'BF16' | 'Q8_0' | 'Q4_0' | 'Q4_K' | 'Q6_K'

export interface Encoder extends TensorType {
  /**
   * Writes `values`, whole blocks, to `out`, which holds their bytes and starts at a multiple of 4 in its buffer.
   * Returns the index of the first value that is not finite or too large for the type, or -1.
   */
  readonly encode: (values: Float32Array, out: Uint8Array) => number
}

/** The largest float32: what is not at most this is infinite or no number. */
const MAX_F32 = 3.4028234663852886e38
const { fround } = Math

/** The bits of one float32, for the scales of blocks. */
const one = new Float32Array(1)
const oneBits = new Int32Array(one.buffer)

const F16_INFINITY = 0x7c00

function encodeF32(values: Float32Array, out: Uint8Array): number {
  out.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
  for (let i = 0; i < values.length; i++) if (!(Math.abs(values[i]) <= MAX_F32)) return i
  return -1
}

function encodeF16(values: Float32Array, out: Uint8Array): number {
  return roundToHalves(values, new Uint16Array(out.buffer, out.byteOffset, values.length))
}

/** The upper half of a float32, rounded. */
function encodeBf16(values: Float32Array, out: Uint8Array): number {
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length)
  const halves = new Uint16Array(out.buffer, out.byteOffset, values.length)
  for (let i = 0; i < bits.length; i++) {
    const half = (bits[i] + 0x7fff + ((bits[i] >>> 16) & 1)) >>> 16
    if ((bits[i] & 0x7f800000) === 0x7f800000 || (half & 0x7f80) === 0x7f80) return i
    halves[i] = half
  }
  return -1
}

const BLOCK = 32
const Q8_0_BYTES = 34
const Q4_0_BYTES = 18

/** A block: its scale d = max|x| / 127 as a half, then the 32 numbers round(x / d), ties away from zero. */
function encodeQ80(values: Float32Array, out: Uint8Array): number {
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length)
  for (let start = 0, at = 0; start < values.length; start += BLOCK, at += Q8_0_BYTES) {
    const size = largestSize(bits, start)
    const d = fround(floatOf(size) / 127)
    const scale = f16Bits(d)
    if ((scale & F16_INFINITY) === F16_INFINITY) return indexOfSize(bits, start, size)
    out[at] = scale
    out[at + 1] = scale >>> 8
    const inverse = inverseOf(d)
    for (let i = 0; i < BLOCK; i++) {
      // Exact, since the product has 24 bits; the sign goes around it, as a branch on it costs three quarters of the speed.
      const sign = bits[start + i] >> 31
      const size = (Math.abs(fround(values[start + i] * inverse)) + 0.5) | 0
      out[at + 2 + i] = (size ^ sign) - sign
    }
  }
  return -1
}

/**
 * A block: its scale d = x / -8 of the first x of the largest size as a half, then 32 numbers from 0 to 15 for -8 d to 7 d,
 * two a byte: number i in the lower half of byte i, number i + 16 in the upper.
 */
function encodeQ40(values: Float32Array, out: Uint8Array): number {
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length)
  for (let start = 0, at = 0; start < values.length; start += BLOCK, at += Q4_0_BYTES) {
    const size = largestSize(bits, start)
    const largest = indexOfSize(bits, start, size)
    // A zero of either sign is +0 here: the scale of a block of zeros is -0.
    const d = fround((values[largest] + 0) / -8)
    const scale = f16Bits(d)
    if ((scale & F16_INFINITY) === F16_INFINITY) return largest
    out[at] = scale
    out[at + 1] = scale >>> 8
    const inverse = inverseOf(d)
    for (let i = 0; i < BLOCK / 2; i++) {
      const low = fround(fround(values[start + i] * inverse) + 8.5) | 0
      const high = fround(fround(values[start + i + BLOCK / 2] * inverse) + 8.5) | 0
      out[at + 2 + i] = Math.min(low, 15) | (Math.min(high, 15) << 4)
    }
  }
  return -1
}

/** The bits of the largest size in the block from `start` on; infinities and what is no number are larger than all else. */
function largestSize(bits: Int32Array, start: number): number {
  let size = 0
  for (let i = start; i < start + BLOCK; i++) {
    const more = (bits[i] & 0x7fffffff) - size
    // Adds what is positive, without a branch.
    size += more & ~(more >> 31)
  }
  return size
}

function indexOfSize(bits: Int32Array, start: number, size: number): number {
  let i = start
  while ((bits[i] & 0x7fffffff) !== size) i++
  return i
}

function floatOf(bits: number): number {
  oneBits[0] = bits
  return one[0]
}

/** 1 / d in float32. A block too small for that (the definition overflows) is one of zeros: its scale as a half is zero anyway. */
function inverseOf(d: number): number {
  const inverse = d === 0 ? 0 : fround(1 / d)
  return Math.abs(inverse) <= MAX_F32 ? inverse : 0
}

function encoderOf(name: EncodedType, encode: Encoder['encode']): Encoder {
  const type = [...TENSOR_TYPES.values()].find((type) => type.name === name)
  if (type === undefined) throw new RangeError(name)
  return { ...type, encode }
}

export const ENCODERS: { readonly [T in EncodedType]: Encoder } = {
  F32: encoderOf('F32', encodeF32),
  F16: encoderOf('F16', encodeF16),
  BF16: encoderOf('BF16', encodeBf16),
  Q8_0: encoderOf('Q8_0', encodeQ80),
  Q4_0: encoderOf('Q4_0', encodeQ40),
  Q4_K: encoderOf('Q4_K', encodeQ4K),
  Q6_K: encoderOf('Q6_K', encodeQ6K)
}

/** The encoder of a type by its name in either case, or undefined where this package does not write it. */
export function encoderFor(name: string): Encoder | undefined {
  const type = name.toUpperCase()
  return isEncodedType(type) ? ENCODERS[type] : undefined
}

function isEncodedType(name: string): name is EncodedType {
  return Object.hasOwn(ENCODERS, name)
}
