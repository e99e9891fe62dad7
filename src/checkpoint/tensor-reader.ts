/**
 * Tensors as float32, in slices: a checkpoint never stands in memory twice.
 * Files are little-endian, and so is every host that runs WebAssembly: typed arrays read them as they are.
 */
import { CheckpointError, UnsupportedError } from '../errors.ts'
import { BLOCK_DECODERS, type BlockDecoder } from './gguf-blocks.ts'
import { F16_VALUES } from '../half.ts'
import type { TensorEntry } from './safetensors.ts'

export interface ReadTensorOptions {
  readonly signal?: AbortSignal | undefined
  /**
   * Takes the elements from number `firstElement` on, in row-major order. `values` is to be read, not written, and only until this
   * returns or resolves: the next slice may use the same memory, and an F32 slice may be a view of the source's own. `bytes` is the same as it is
   * stored, from a multiple of 4 in its buffer on.
   */
  readonly onSlice: (values: Float32Array, firstElement: number, bytes: Uint8Array) => void | Promise<void>
}

/** At most 2^20 elements at once: 4 MiB of float32, and whole blocks of any type. */
const SLICE_ELEMENTS = 2 ** 20

const DECODERS: ReadonlyMap<string, BlockDecoder> = new Map([
  ['F32', { blockElements: 1, blockBytes: 4, decode: decodeF32 }],
  ['F16', { blockElements: 1, blockBytes: 2, decode: decodeF16 }],
  ['BF16', { blockElements: 1, blockBytes: 2, decode: decodeBf16 }],
  ...BLOCK_DECODERS
])

/**
 * Streams a tensor through `onSlice`, each slice exact in float32.
 * Throws an UnsupportedError for dtypes that have no decoder here (IQ types, Q2_K, Q3_K …), and a CheckpointError at an element that is not finite.
 */
export async function readTensor(entry: TensorEntry, { signal, onSlice }: ReadTensorOptions): Promise<void> {
  const { name, source, start, byteLength, dtype } = entry
  const decoder = DECODERS.get(dtype)
  if (decoder === undefined) {
    throw new UnsupportedError({ place: `${source.name}, ${name}`, expected: `one of ${[...DECODERS.keys()].join(', ')}`, got: dtype })
  }
  const { blockElements, blockBytes } = decoder
  const nElements = (byteLength / blockBytes) * blockElements
  const bytesOf = (elements: number): number => (elements / blockElements) * blockBytes
  const out = new Float32Array(dtype === 'F32' ? 0 : Math.min(SLICE_ELEMENTS, nElements))
  for (let first = 0; first < nElements; first += SLICE_ELEMENTS) {
    const last = Math.min(first + SLICE_ELEMENTS, nElements)
    const bytes = aligned(await source.read(start + bytesOf(first), start + bytesOf(last), signal))
    const { values, nonFinite } = decoder.decode(bytes, out)
    if (nonFinite >= 0) {
      throw new CheckpointError({ place: `${source.name}, ${name}, element ${first + nonFinite}`, expected: 'a finite number', got: String(values[nonFinite]) })
    }
    await onSlice(values, first, bytes)
  }
}

/** The whole tensor, for small ones and for tests. Errors as `readTensor`. */
export async function readWholeTensor(entry: TensorEntry, signal?: AbortSignal): Promise<Float32Array> {
  const whole = new Float32Array(entry.shape.reduce((product, length) => product * length, 1))
  await readTensor(entry, { signal, onSlice: (values, firstElement) => whole.set(values, firstElement) })
  return whole
}

function decodeF32(bytes: Uint8Array) {
  const { buffer, byteOffset, byteLength } = bytes
  const values = new Float32Array(buffer, byteOffset, byteLength / 4)
  const bits = new Int32Array(buffer, byteOffset, byteLength / 4)
  return { values, nonFinite: firstWithBits(bits, 0x7f800000) }
}

function decodeF16(bytes: Uint8Array, out: Float32Array) {
  const { buffer, byteOffset, byteLength } = bytes
  const halves = new Uint16Array(buffer, byteOffset, byteLength / 2)
  const values = out.subarray(0, halves.length)
  for (let i = 0; i < halves.length; i++) values[i] = F16_VALUES[halves[i]]
  return { values, nonFinite: firstWithBits(halves, 0x7c00) }
}

/** A bfloat16 is the upper half of a float32. */
function decodeBf16(bytes: Uint8Array, out: Float32Array) {
  const { buffer, byteOffset, byteLength } = bytes
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

/** Typed arrays need an aligned start, files promise none. */
function aligned(bytes: Uint8Array): Uint8Array {
  return bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes)
}
