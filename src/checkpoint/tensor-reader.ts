/**
 * Tensors as float32, in slices: a checkpoint never stands in memory twice.
 * Files are little-endian, and so is every host that runs WebAssembly: typed arrays read them as they are.
 */
import { CheckpointError, UnsupportedError } from '../errors.ts'
import { BLOCK_DECODERS, type BlockDecoder } from './gguf-blocks.ts'
import { f16Values } from '../half.ts'
import type { TensorEntry } from './safetensors.ts'

export interface ReadTensorOptions {
  readonly signal?: AbortSignal | undefined
  /** Only the bytes are wanted: `values` is empty, and nothing is decoded. The elements are checked all the same. Default false. */
  readonly asStored?: boolean | undefined
  /** Memory that this and other tensors use in turns. Default: this one's own. */
  readonly memory?: SliceMemory | undefined
  /**
   * Takes the elements from number `firstElement` on, in row-major order. `values` is to be read, not written, and only until this
   * returns or resolves: the next slice may use the same memory, and an F32 slice may be a view of the source's own. `bytes` is the same as it is
   * stored, from a multiple of 4 in its buffer on.
   */
  readonly onSlice: (values: Float32Array, firstElement: number, bytes: Uint8Array) => void | Promise<void>
}

/**
 * Memory for a slice. A few hundred tensors that allocate it each make V8 collect garbage all the while: 0.5 of 2.6 s for mamba-130m in Q8_0
 * (npm run bench -- load).
 */
export interface SliceMemory {
  bytes(length: number): Uint8Array
  floats(length: number): Float32Array
}

export function createSliceMemory(): SliceMemory {
  let bytes = new Uint8Array(0)
  let floats = new Float32Array(0)
  return {
    bytes: (length) => (bytes = bytes.length < length ? new Uint8Array(length) : bytes).subarray(0, length),
    floats: (length) => (floats = floats.length < length ? new Float32Array(length) : floats).subarray(0, length)
  }
}

const NO_VALUES = new Float32Array(0)

/** At most 2^20 elements at once: 4 MiB of float32, and whole blocks of any type. */
const SLICE_ELEMENTS = 2 ** 20

/** By the names of the types that can be read. */
export const TENSOR_DECODERS: ReadonlyMap<string, BlockDecoder> = new Map([
  ['F32', { blockElements: 1, blockBytes: 4, decode: decodeF32, firstNonFinite: (bytes) => firstWithBits(wordsOf(bytes), 0x7f800000) }],
  ['F16', { blockElements: 1, blockBytes: 2, decode: decodeF16, firstNonFinite: (bytes) => firstWithBits(halvesOf(bytes), 0x7c00) }],
  ['BF16', { blockElements: 1, blockBytes: 2, decode: decodeBf16, firstNonFinite: (bytes) => firstWithBits(halvesOf(bytes), 0x7f80) }],
  ...BLOCK_DECODERS
])

/**
 * Streams a tensor through `onSlice`, each slice exact in float32.
 * Throws an UnsupportedError for dtypes that have no decoder here (IQ types, Q2_K, Q3_K …), and a CheckpointError at an element that is not finite.
 */
export async function readTensor(entry: TensorEntry, { signal, asStored = false, memory = createSliceMemory(), onSlice }: ReadTensorOptions): Promise<void> {
  const { name, source, start, byteLength, dtype } = entry
  const decoder = TENSOR_DECODERS.get(dtype)
  if (decoder === undefined) {
    throw new UnsupportedError({ place: `${source.name}, ${name}`, expected: `one of ${[...TENSOR_DECODERS.keys()].join(', ')}`, got: dtype })
  }
  const { blockElements, blockBytes } = decoder
  const nElements = (byteLength / blockBytes) * blockElements
  const bytesOf = (elements: number): number => (elements / blockElements) * blockBytes
  for (let first = 0; first < nElements; first += SLICE_ELEMENTS) {
    const last = Math.min(first + SLICE_ELEMENTS, nElements)
    const bytes = aligned(await source.read(start + bytesOf(first), start + bytesOf(last), signal, memory.bytes(bytesOf(last - first))))
    const decode = () => decoder.decode(bytes, memory.floats(dtype === 'F32' ? 0 : last - first))
    const { values, nonFinite } = asStored ? { values: NO_VALUES, nonFinite: decoder.firstNonFinite(bytes) } : decode()
    if (nonFinite >= 0) {
      throw new CheckpointError({ place: `${source.name}, ${name}, element ${first + nonFinite}`, expected: 'a finite number', got: String(decode().values[nonFinite]) })
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
  const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
  return { values, nonFinite: firstWithBits(wordsOf(bytes), 0x7f800000) }
}

function decodeF16(bytes: Uint8Array, out: Float32Array) {
  const halves = halvesOf(bytes)
  const values = out.subarray(0, halves.length)
  const table = f16Values()
  for (let i = 0; i < halves.length; i++) values[i] = table[halves[i]]
  return { values, nonFinite: firstWithBits(halves, 0x7c00) }
}

/** A bfloat16 is the upper half of a float32. */
function decodeBf16(bytes: Uint8Array, out: Float32Array) {
  const halves = halvesOf(bytes)
  const values = out.subarray(0, halves.length)
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length)
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i] << 16
  return { values, nonFinite: firstWithBits(halves, 0x7f80) }
}

function wordsOf({ buffer, byteOffset, byteLength }: Uint8Array): Int32Array {
  return new Int32Array(buffer, byteOffset, byteLength / 4)
}

function halvesOf({ buffer, byteOffset, byteLength }: Uint8Array): Uint16Array {
  return new Uint16Array(buffer, byteOffset, byteLength / 2)
}

/** Index of the first whose exponent bits are all set (infinities and NaNs), or -1. */
function firstWithBits(bits: Int32Array | Uint16Array, mask: number): number {
  const { length } = bits
  for (let i = 0; i < length; i++) if ((bits[i] & mask) === mask) return i
  return -1
}

/** Typed arrays need an aligned start, files promise none. */
function aligned(bytes: Uint8Array): Uint8Array {
  return bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes)
}
