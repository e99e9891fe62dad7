/**
 * Tensors as float32, in slices: a checkpoint never stands in memory twice.
 * Files are little-endian, and so is every host that runs WebAssembly: typed arrays read them as they are.
 */
import { CheckpointError, UnsupportedError } from '../errors.ts'
import { BLOCK_TYPES, blockFormatOf, type BlockType } from '../ggml-blocks.ts'
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

/** A type that can be read. */
interface StoredType {
  readonly blockElements: number
  readonly blockBytes: number
  /** Index of the first element that is not finite, of a quantized type of the first block with a scale or a minimum that is not; or -1. */
  readonly firstNonFinite: (bytes: Uint8Array) => number
}

/** Whole blocks as float32, into `out` where they are not float32 as they stand. */
export type Decode = (bytes: Uint8Array, out: Float32Array) => Float32Array

const DENSE_TYPES = {
  F32: { blockElements: 1, blockBytes: 4, firstNonFinite: (bytes: Uint8Array) => firstWithBits(wordsOf(bytes), 0x7f800000) },
  F16: { blockElements: 1, blockBytes: 2, firstNonFinite: (bytes: Uint8Array) => firstWithBits(halvesOf(bytes), 0x7c00) },
  BF16: { blockElements: 1, blockBytes: 2, firstNonFinite: (bytes: Uint8Array) => firstWithBits(halvesOf(bytes), 0x7f80) }
} as const satisfies Record<string, StoredType>

export const DENSE_DECODERS: { readonly [T in keyof typeof DENSE_TYPES]: Decode } = { F32: decodeF32, F16: decodeF16, BF16: decodeBf16 }

/** By their names. */
const STORED_TYPES: ReadonlyMap<string, StoredType> = new Map<string, StoredType>([
  ...Object.entries(DENSE_TYPES),
  ...Object.entries(BLOCK_TYPES).map(([format, type]) => [format.toUpperCase(), { ...type, firstNonFinite: (bytes: Uint8Array) => firstBlockNonFinite(type, bytes) }] as const)
])

function firstBlockNonFinite({ blockElements, blockBytes, halves }: BlockType, bytes: Uint8Array): number {
  for (let at = 0; at < bytes.byteLength; at += blockBytes) {
    for (const half of halves) if ((bytes[at + half + 1] & 0x7c) === 0x7c) return (at / blockBytes) * blockElements
  }
  return -1
}

/** What takes blocks apart is loaded where their numbers are wanted. */
async function decoderOf(dtype: string): Promise<Decode> {
  const format = blockFormatOf(dtype)
  return format === undefined ? DENSE_DECODERS[dtype as keyof typeof DENSE_DECODERS] : (await import('./gguf-blocks.ts')).blockDecode(format)
}

/**
 * Streams a tensor through `onSlice`, each slice exact in float32.
 * Throws an UnsupportedError for dtypes that have no decoder here (IQ types, Q2_K, Q3_K …), and a CheckpointError at an element that is not finite.
 */
export async function readTensor(entry: TensorEntry, { signal, asStored = false, memory = createSliceMemory(), onSlice }: ReadTensorOptions): Promise<void> {
  const { name, source, start, byteLength, dtype } = entry
  const type = STORED_TYPES.get(dtype)
  if (type === undefined) {
    throw new UnsupportedError({ place: `${source.name}, ${name}`, expected: `one of ${[...STORED_TYPES.keys()].join(', ')}`, got: dtype })
  }
  const { blockElements, blockBytes } = type
  const decode = asStored ? undefined : await decoderOf(dtype)
  const nElements = (byteLength / blockBytes) * blockElements
  const bytesOf = (elements: number): number => (elements / blockElements) * blockBytes
  for (let first = 0; first < nElements; first += SLICE_ELEMENTS) {
    const last = Math.min(first + SLICE_ELEMENTS, nElements)
    const bytes = aligned(await source.read(start + bytesOf(first), start + bytesOf(last), signal, memory.bytes(bytesOf(last - first))))
    const out = memory.floats(decode === undefined || dtype === 'F32' ? 0 : last - first)
    const nonFinite = type.firstNonFinite(bytes)
    if (nonFinite >= 0) {
      const values = (await decoderOf(dtype))(bytes, new Float32Array(last - first))
      throw new CheckpointError({ place: `${source.name}, ${name}, element ${first + nonFinite}`, expected: 'a finite number', got: String(values[nonFinite]) })
    }
    const values = decode?.(bytes, out) ?? NO_VALUES
    await onSlice(values, first, bytes)
  }
}

/** The whole tensor, for small ones and for tests. Errors as `readTensor`. */
export async function readWholeTensor(entry: TensorEntry, signal?: AbortSignal): Promise<Float32Array> {
  const whole = new Float32Array(entry.shape.reduce((product, length) => product * length, 1))
  await readTensor(entry, { signal, onSlice: (values, firstElement) => whole.set(values, firstElement) })
  return whole
}

function decodeF32(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
}

function decodeF16(bytes: Uint8Array, out: Float32Array): Float32Array {
  const halves = halvesOf(bytes)
  const values = out.subarray(0, halves.length)
  const table = f16Values()
  for (let i = 0; i < halves.length; i++) values[i] = table[halves[i]]
  return values
}

/** A bfloat16 is the upper half of a float32. */
function decodeBf16(bytes: Uint8Array, out: Float32Array): Float32Array {
  const halves = halvesOf(bytes)
  const values = out.subarray(0, halves.length)
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length)
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i] << 16
  return values
}

function wordsOf({ buffer, byteOffset, byteLength }: Uint8Array): Int32Array {
  return new Int32Array(buffer, byteOffset, byteLength / 4)
}

function halvesOf({ buffer, byteOffset, byteLength }: Uint8Array): Uint16Array {
  return new Uint16Array(buffer, byteOffset, byteLength / 2)
}

/** Index of the first infinity or NaN, or -1. */
export function firstNonFiniteOf({ buffer, byteOffset, length }: Float32Array): number {
  return firstWithBits(new Int32Array(buffer, byteOffset, length), 0x7f800000)
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
