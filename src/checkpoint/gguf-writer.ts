/**
 * Writing a GGUF file, version 3, piece by piece: the header, then each tensor as its bytes come. No two tensors stand in memory together,
 * and of a large one only the piece under way.
 */
import { messageOf } from '../errors.ts'
import { ALIGNMENT_KEY, DEFAULT_ALIGNMENT, GGUF_MAGIC, type GgufMetadata, type GgufValue, NUMBER_TYPES, TENSOR_TYPES, VALUE_TYPES } from './gguf-types.ts'

export interface GgufTensor {
  readonly name: string
  /** ggml's name of the type: F32, Q8_0, … */
  readonly dtype: string
  /** Row-major; rows are whole blocks of the type. */
  readonly shape: readonly number[]
  /** The data in pieces of any size. Each is used before the next is asked for, so they may share memory. */
  bytes(): AsyncIterable<Uint8Array>
}

export interface GgufContents {
  /** In this order. */
  readonly metadata: GgufMetadata
  /** In this order, in the header and in the data. */
  readonly tensors: readonly GgufTensor[]
}

export interface GgufSink {
  /** Takes the file's next bytes, which are the sink's only until its promise is kept. */
  write(bytes: Uint8Array): Promise<void>
}

/** ggml's GGML_MAX_NAME, with the zero at the end. */
const MAX_NAME_BYTES = 63
const MAX_DIMENSIONS = 4
const VERSION = 3

/** The types' numbers, by name. */
const TENSOR_TYPE_IDS: ReadonlyMap<string, number> = new Map([...TENSOR_TYPES].map(([id, { name }]) => [name, id]))

/**
 * Writes the file to `sink` and returns its size in bytes. Throws a RangeError for tensors that cannot be in one: a name that comes twice
 * or is too long for ggml, an unknown type, a row that is not whole blocks, bytes that are more or fewer than the shape says.
 */
export async function writeGguf({ metadata, tensors, sink }: GgufContents & { readonly sink: GgufSink }): Promise<number> {
  const { header, alignment, sizes } = layOut({ metadata, tensors })
  await sink.write(header)
  let offset = header.byteLength
  for (const [i, tensor] of tensors.entries()) {
    let written = 0
    for await (const piece of tensor.bytes()) {
      written += piece.byteLength
      if (written <= sizes[i]) await sink.write(piece)
    }
    if (written !== sizes[i]) throw new RangeError(messageOf({ place: tensor.name, expected: `${sizes[i]} bytes`, got: `${written} bytes` }))
    const padding = padded(written, alignment) - written
    if (padding > 0) await sink.write(new Uint8Array(padding))
    offset += written + padding
  }
  return offset
}

/** The whole file in memory, once. Errors as `writeGguf`. */
export async function ggufBytes(contents: GgufContents): Promise<Uint8Array<ArrayBuffer>> {
  const file = new Uint8Array(ggufByteLength(contents))
  let offset = 0
  const sink: GgufSink = {
    async write(bytes) {
      file.set(bytes, offset)
      offset += bytes.byteLength
    }
  }
  await writeGguf({ ...contents, sink })
  return file
}

/** The size of the file that `writeGguf` makes; no tensor's bytes are asked for. */
export function ggufByteLength(contents: GgufContents): number {
  const { header, alignment, sizes } = layOut(contents)
  return sizes.reduce((sum, size) => sum + padded(size, alignment), header.byteLength)
}

interface Layout {
  /** With its padding: the first tensor's bytes follow. */
  readonly header: Uint8Array
  readonly alignment: number
  /** Bytes of each tensor. */
  readonly sizes: readonly number[]
}

function layOut({ metadata, tensors }: GgufContents): Layout {
  const given = metadata.get(ALIGNMENT_KEY)
  const alignment = given?.type === 'uint32' ? given.value : DEFAULT_ALIGNMENT
  const sizes = tensors.map(byteLengthOf)
  const buffer = createBuffer()
  buffer.uint32(GGUF_MAGIC)
  buffer.uint32(VERSION)
  buffer.uint64(tensors.length)
  buffer.uint64(metadata.size)
  for (const [key, value] of metadata) {
    buffer.text(key)
    putValue(buffer, value)
  }
  const names = new Set<string>()
  let offset = 0
  for (const [i, { name, dtype, shape }] of tensors.entries()) {
    if (names.has(name)) throw new RangeError(messageOf({ place: name, expected: 'each name once', got: 'it again' }))
    names.add(name)
    const nameBytes = buffer.text(name)
    if (nameBytes > MAX_NAME_BYTES) throw new RangeError(messageOf({ place: name, expected: `a name of at most ${MAX_NAME_BYTES} bytes`, got: `${nameBytes}` }))
    buffer.uint32(shape.length)
    for (const length of shape.toReversed()) buffer.uint64(length)
    buffer.uint32(TENSOR_TYPE_IDS.get(dtype) ?? 0)
    buffer.uint64(offset)
    offset += padded(sizes[i], alignment)
  }
  buffer.zeros(padded(buffer.byteLength(), alignment) - buffer.byteLength())
  return { header: buffer.bytes(), alignment, sizes }
}

function byteLengthOf({ name, dtype, shape }: GgufTensor): number {
  const type = TENSOR_TYPES.get(TENSOR_TYPE_IDS.get(dtype) ?? -1)
  if (type === undefined) throw new RangeError(messageOf({ place: name, expected: "a type of ggml's", got: dtype }))
  const { blockElements, blockBytes } = type
  const got = `${dtype} (${shape.join(', ')})`
  if (shape.length > MAX_DIMENSIONS) throw new RangeError(messageOf({ place: name, expected: `at most ${MAX_DIMENSIONS} dimensions`, got }))
  if ((shape.at(-1) ?? 1) % blockElements !== 0) throw new RangeError(messageOf({ place: name, expected: `rows of whole blocks of ${blockElements}`, got }))
  return (shape.reduce((product, length) => product * length, 1) / blockElements) * blockBytes
}

function padded(byteLength: number, alignment: number): number {
  return Math.ceil(byteLength / alignment) * alignment
}

function putValue(buffer: Buffer, value: GgufValue): void {
  buffer.uint32(VALUE_TYPES.indexOf(value.type))
  if (value.type !== 'array') {
    putScalar(buffer, value)
    return
  }
  buffer.uint32(VALUE_TYPES.indexOf(value.itemType))
  buffer.uint64(value.value.length)
  if (value.itemType === 'string') for (const text of value.value) buffer.text(text)
  else if (value.itemType === 'bool') buffer.raw(Uint8Array.from(value.value, Number))
  else buffer.raw(new Uint8Array(value.value.buffer, value.value.byteOffset, value.value.byteLength))
}

function putScalar(buffer: Buffer, value: Exclude<GgufValue, { readonly type: 'array' }>): void {
  if (value.type === 'string') buffer.text(value.value)
  else if (value.type === 'bool') buffer.raw(Uint8Array.of(value.value ? 1 : 0))
  else {
    const ArrayType = NUMBER_TYPES[value.type]
    const array = new ArrayType(new ArrayBuffer(ArrayType.BYTES_PER_ELEMENT))
    array[0] = value.value
    buffer.raw(new Uint8Array(array.buffer))
  }
}

type Buffer = ReturnType<typeof createBuffer>

/** Bytes that grow, little-endian. */
function createBuffer() {
  const encoder = new TextEncoder()
  let bytes = new Uint8Array(2 ** 16)
  let view = new DataView(bytes.buffer)
  let end = 0
  const grow = (byteLength: number): number => {
    if (end + byteLength > bytes.byteLength) {
      const larger = new Uint8Array(Math.max(2 * bytes.byteLength, end + byteLength))
      larger.set(bytes.subarray(0, end))
      bytes = larger
      view = new DataView(bytes.buffer)
    }
    const start = end
    end += byteLength
    return start
  }
  // Growing changes `bytes` and `view`: it comes first.
  const raw = (more: Uint8Array): void => {
    const start = grow(more.byteLength)
    bytes.set(more, start)
  }
  return {
    byteLength: () => end,
    bytes: () => bytes.subarray(0, end),
    zeros: grow,
    raw,
    uint32(value: number) {
      const start = grow(4)
      view.setUint32(start, value, true)
    },
    uint64(value: number) {
      const start = grow(8)
      view.setBigUint64(start, BigInt(value), true)
    },
    /** Its length, then its bytes; returns the length. */
    text(text: string): number {
      const start = grow(8 + 3 * text.length) + 8
      const { written } = encoder.encodeInto(text, bytes.subarray(start))
      view.setBigUint64(start - 8, BigInt(written), true)
      end = start + written
      return written
    }
  }
}
