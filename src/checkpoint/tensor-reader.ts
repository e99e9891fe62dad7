/**
 * Tensors as float32, in slices: a checkpoint never stands in memory twice.
 * Files are little-endian, and so is every host that runs WebAssembly: typed arrays read them as they are.
 */
import { CheckpointError, UnsupportedError } from '../errors.ts'
import { F16_VALUES } from './half.ts'
import type { TensorEntry } from './safetensors.ts'

export interface ReadTensorOptions {
  readonly signal?: AbortSignal | undefined
  /**
   * Takes the elements from number `firstElement` on, in row-major order. `values` is to be read, not written, and only until this
   * returns: the next slice may use the same memory, and an F32 slice may be a view of the source's own.
   */
  readonly onSlice: (values: Float32Array, firstElement: number) => void
}

/** At most 2^20 elements at once: 4 MiB of float32. */
const SLICE_ELEMENTS = 2 ** 20

interface Decoder {
  readonly elementBytes: number
  /** `bytes` as float32, into `out` or as a view; the index of the first that is not finite is -1 where all are. */
  decode(bytes: Uint8Array, out: Float32Array): { readonly values: Float32Array; readonly nonFinite: number }
}

const DECODERS: ReadonlyMap<string, Decoder> = new Map([
  ['F32', { elementBytes: 4, decode: decodeF32 }],
  ['F16', { elementBytes: 2, decode: decodeF16 }],
  ['BF16', { elementBytes: 2, decode: decodeBf16 }]
])

/**
 * Streams a tensor through `onSlice`, each slice exact in float32.
 * Throws an UnsupportedError for dtypes other than F32, F16 and BF16, and a CheckpointError at an element that is not finite.
 */
export async function readTensor(entry: TensorEntry, { signal, onSlice }: ReadTensorOptions): Promise<void> {
  const { name, source, start, byteLength, dtype } = entry
  const decoder = DECODERS.get(dtype)
  if (decoder === undefined) {
    throw new UnsupportedError({ place: `${source.name}, ${name}`, expected: `one of ${[...DECODERS.keys()].join(', ')}`, got: dtype })
  }
  const { elementBytes } = decoder
  const nElements = byteLength / elementBytes
  const out = new Float32Array(dtype === 'F32' ? 0 : Math.min(SLICE_ELEMENTS, nElements))
  for (let first = 0; first < nElements; first += SLICE_ELEMENTS) {
    const last = Math.min(first + SLICE_ELEMENTS, nElements)
    const bytes = await source.read(start + first * elementBytes, start + last * elementBytes, signal)
    const { values, nonFinite } = decoder.decode(bytes, out)
    if (nonFinite >= 0) {
      throw new CheckpointError({ place: `${source.name}, ${name}, element ${first + nonFinite}`, expected: 'a finite number', got: String(values[nonFinite]) })
    }
    onSlice(values, first)
  }
}

/** The whole tensor, for small ones and for tests. Errors as `readTensor`. */
export async function readWholeTensor(entry: TensorEntry, signal?: AbortSignal): Promise<Float32Array> {
  const whole = new Float32Array(entry.shape.reduce((product, length) => product * length, 1))
  await readTensor(entry, { signal, onSlice: (values, firstElement) => whole.set(values, firstElement) })
  return whole
}

function decodeF32(bytes: Uint8Array) {
  const { buffer, byteOffset, byteLength } = aligned(bytes, 4)
  const values = new Float32Array(buffer, byteOffset, byteLength / 4)
  const bits = new Int32Array(buffer, byteOffset, byteLength / 4)
  return { values, nonFinite: firstWithBits(bits, 0x7f800000) }
}

function decodeF16(bytes: Uint8Array, out: Float32Array) {
  const { buffer, byteOffset, byteLength } = aligned(bytes, 2)
  const halves = new Uint16Array(buffer, byteOffset, byteLength / 2)
  const values = out.subarray(0, halves.length)
  for (let i = 0; i < halves.length; i++) values[i] = F16_VALUES[halves[i]]
  return { values, nonFinite: firstWithBits(halves, 0x7c00) }
}

/** A bfloat16 is the upper half of a float32. */
function decodeBf16(bytes: Uint8Array, out: Float32Array) {
  const { buffer, byteOffset, byteLength } = aligned(bytes, 2)
  const halves = new Uint16Array(buffer, byteOffset, byteLength / 2)
  const values = out.subarray(0, halves.length)
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length)
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i] << 16
  return { values, nonFinite: firstWithBits(halves, 0x7f80) }
}

/** Index of the first whose exponent bits are all set (infinities and NaNs), or -1. */
function firstWithBits(bits: Int32Array | Uint16Array, mask: number): number {
  for (let i = 0; i < bits.length; i++) if ((bits[i] & mask) === mask) return i
  return -1
}

/** Typed arrays need an aligned start, safetensors promises none. */
function aligned(bytes: Uint8Array, elementBytes: number): Uint8Array {
  return bytes.byteOffset % elementBytes === 0 ? bytes : new Uint8Array(bytes)
}
