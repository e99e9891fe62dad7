/**
 * The GGUF container, versions 2 and 3, little-endian: a header with typed metadata and the tensors' places, then their bytes.
 *
 * What is valid follows ggml's `gguf_init_from_file`: each key and name once, at most 4 dimensions, rows of whole blocks, an alignment that is
 * a power of two. Two differences: gaps between tensors do no harm and are read (overlaps are an error), and a tensor without elements is
 * an error. Arrays of arrays are in the specification but not in ggml, nor here.
 */
import { CheckpointError, UnsupportedError, describe } from '../errors.ts'
import type { ByteSource } from './byte-source.ts'
import { bytesLeft, createCursor, type Cursor, fill, offsetOf, placeOf, readString, takeString, takeUint32, takeUint64 } from './gguf-cursor.ts'
import {
  ALIGNMENT_KEY,
  DEFAULT_ALIGNMENT,
  GGUF_MAGIC,
  type GgufArray,
  type GgufHeader,
  type GgufScalar,
  type GgufValue,
  type NumberArray,
  NUMBER_TYPES,
  TENSOR_TYPES,
  type TensorType,
  VALUE_TYPES,
  type ValueType
} from './gguf-types.ts'
import type { TensorEntry } from './safetensors.ts'

/** Of a key in bytes, by the specification; no tensor's name comes near it. */
const MAX_NAME_BYTES = 65535
const MAX_DIMENSIONS = 4
const MAX_ALIGNMENT = 65536
/** The least that one takes in a file: an empty key with a byte, a scalar without a name. */
const MIN_PAIR_BYTES = 13
const MIN_INFO_BYTES = 24
const MIN_STRING_BYTES = 8

/**
 * The metadata and the tensors of a GGUF file; no tensor's bytes are read. Throws a CheckpointError that names the file and the key or
 * the tensor, and an UnsupportedError for another version, for big-endian files, and for types that ggml did not have when this was written.
 */
export async function readGgufHeader(source: ByteSource, signal?: AbortSignal): Promise<GgufHeader> {
  const cursor = createCursor(source, signal)
  const version = await readVersion(cursor)
  await fill(cursor, 16, 'header')
  const nTensors = takeCount(cursor, MIN_INFO_BYTES, 'number of tensors')
  const nPairs = takeCount(cursor, MIN_PAIR_BYTES, 'number of keys')
  const metadata = new Map<string, GgufValue>()
  for (let i = 0; i < nPairs; i++) {
    const key = await readName(cursor, `key ${i}`)
    if (metadata.has(key)) throw new CheckpointError({ place: `${source.name}, key ${i}`, expected: 'each key once', got: `${describe(key)} again` })
    metadata.set(key, await readValue(cursor, key))
  }
  const alignment = alignmentOf(source.name, metadata.get(ALIGNMENT_KEY))
  const infos = new Map<string, TensorInfo>()
  for (let i = 0; i < nTensors; i++) {
    const name = await readName(cursor, `tensor ${i}`)
    if (infos.has(name)) throw new CheckpointError({ place: `${source.name}, tensor ${i}`, expected: 'each name once', got: `${describe(name)} again` })
    infos.set(name, await readInfo(cursor, name))
  }
  const dataStart = Math.ceil(offsetOf(cursor) / alignment) * alignment
  const tensors = [...infos].map(([name, info]) => entryOf(source, { name, info, alignment, dataStart }))
  tensors.sort((a, b) => a.start - b.start)
  checkOverlaps(tensors)
  return { name: source.name, version, metadata, tensors }
}

async function readVersion(cursor: Cursor): Promise<number> {
  const { name } = cursor.source
  await fill(cursor, 8, 'header')
  const magic = takeUint32(cursor)
  if (magic !== GGUF_MAGIC) throw new CheckpointError({ place: name, expected: 'a GGUF file, "GGUF" first', got: describe(asciiOf(magic)) })
  const version = takeUint32(cursor)
  // A small number whose bytes are the other way round.
  if (version !== 0 && version % 65536 === 0) throw new UnsupportedError({ place: name, expected: 'a little-endian file', got: 'a big-endian one' })
  if (version !== 2 && version !== 3) throw new UnsupportedError({ place: `${name}, version`, expected: '2 or 3', got: `${version}` })
  return version
}

function asciiOf(magic: number): string {
  return String.fromCharCode(...[0, 8, 16, 24].map((shift) => (magic >>> shift) & 0xff))
}

/** A count of things of at least `minBytes` each: what cannot be in the rest of the file is refused before anything is made for it. */
function takeCount(cursor: Cursor, minBytes: number, what: string): number {
  const count = takeUint64(cursor)
  const max = Math.max(0, Math.floor(bytesLeft(cursor) / minBytes))
  if (count <= max) return Number(count)
  throw new CheckpointError({ place: placeOf(cursor, what), expected: `at most ${max}, as the rest of the file can hold`, got: `${count}` })
}

async function readName(cursor: Cursor, what: string): Promise<string> {
  await fill(cursor, 8, what)
  const length = cursor.view.getBigUint64(cursor.at, true)
  if (length === 0n || length > MAX_NAME_BYTES) {
    throw new CheckpointError({ place: placeOf(cursor, what), expected: `a name of 1 to ${MAX_NAME_BYTES} bytes`, got: `one of ${length}` })
  }
  return readString(cursor, what)
}

function takeType(cursor: Cursor, key: string): ValueType {
  const id = takeUint32(cursor)
  if (id < VALUE_TYPES.length) return VALUE_TYPES[id]
  throw new CheckpointError({ place: placeOf(cursor, key), expected: `a type from 0 to ${VALUE_TYPES.length - 1}`, got: `${id}` })
}

async function readValue(cursor: Cursor, key: string): Promise<GgufValue> {
  await fill(cursor, 4, key)
  const type = takeType(cursor, key)
  if (type === 'array') return readArray(cursor, key)
  if (type === 'string') return { type, value: await readString(cursor, key) }
  const [value] = await readItems(cursor, type, 1, key)
  // The table gives a bigint where the type has one.
  return { type, value } as GgufScalar
}

async function readArray(cursor: Cursor, key: string): Promise<GgufArray> {
  await fill(cursor, 12, key)
  const itemType = takeType(cursor, key)
  if (itemType === 'array') {
    throw new UnsupportedError({ place: placeOf(cursor, key), expected: 'an array of numbers, of texts or of booleans', got: 'an array of arrays' })
  }
  const length = takeCount(cursor, itemType === 'string' ? MIN_STRING_BYTES : bytesOf(itemType), `${key}, length`)
  if (itemType === 'string') {
    const value: string[] = []
    for (let i = 0; i < length; i++) value.push(takeString(cursor, key) ?? (await readString(cursor, key)))
    return { type: 'array', itemType, value }
  }
  return { type: 'array', itemType, value: await readItems(cursor, itemType, length, key) } as GgufArray
}

type ItemType = Exclude<ValueType, 'array' | 'string'>

function bytesOf(type: ItemType): number {
  return type === 'bool' ? 1 : NUMBER_TYPES[type].BYTES_PER_ELEMENT
}

async function readItems(cursor: Cursor, type: ItemType, length: number, key: string): Promise<NumberArray | boolean[]> {
  const byteLength = length * bytesOf(type)
  await fill(cursor, byteLength, key)
  const bytes = Uint8Array.from(cursor.bytes.subarray(cursor.at, cursor.at + byteLength))
  cursor.at += byteLength
  return type === 'bool' ? Array.from(bytes, (byte) => byte !== 0) : new NUMBER_TYPES[type](bytes.buffer)
}

function alignmentOf(name: string, value: GgufValue | undefined): number {
  if (value === undefined) return DEFAULT_ALIGNMENT
  const alignment = value.type === 'uint32' ? value.value : 0
  if (alignment > 0 && alignment <= MAX_ALIGNMENT && (alignment & (alignment - 1)) === 0) return alignment
  const got = value.type === 'uint32' ? `${alignment}` : `a value of type ${value.type}`
  throw new CheckpointError({ place: `${name}, ${ALIGNMENT_KEY}`, expected: `a uint32 that is a power of two up to ${MAX_ALIGNMENT}`, got })
}

interface TensorInfo {
  readonly shape: readonly number[]
  readonly type: TensorType
  /** From the start of the data. */
  readonly offset: bigint
  readonly byteLength: number
}

async function readInfo(cursor: Cursor, name: string): Promise<TensorInfo> {
  const place = placeOf(cursor, name)
  await fill(cursor, 4, name)
  const nDimensions = takeUint32(cursor)
  if (nDimensions > MAX_DIMENSIONS) throw new CheckpointError({ place, expected: `at most ${MAX_DIMENSIONS} dimensions`, got: `${nDimensions}` })
  await fill(cursor, nDimensions * 8 + 12, name)
  const dimensions: bigint[] = []
  for (let i = 0; i < nDimensions; i++) dimensions.push(takeUint64(cursor))
  const typeId = takeUint32(cursor)
  const type = TENSOR_TYPES.get(typeId)
  if (type === undefined) {
    throw new UnsupportedError({ place: `${place}, type`, expected: `one of ${[...TENSOR_TYPES.values()].map((type) => type.name).join(', ')}`, got: `number ${typeId}` })
  }
  const { shape, byteLength } = sizeOf(dimensions, type, place)
  return { shape, type, offset: takeUint64(cursor), byteLength }
}

/** The row-major shape and the bytes of a tensor. `dimensions` as in the file: that of a row first. */
function sizeOf(dimensions: readonly bigint[], type: TensorType, place: string): { shape: readonly number[]; byteLength: number } {
  const text = `${type.name} (${dimensions.toReversed().join(', ')})`
  let nElements = 1n
  for (const dimension of dimensions) {
    nElements *= dimension
    // One by one: products stay below 2^53 times 2^64.
    if (dimension === 0n || nElements >= 2n ** 53n) throw new CheckpointError({ place, expected: '1 to 2^53 - 1 elements', got: text })
  }
  const rowElements = Number(dimensions[0] ?? 1n)
  if (rowElements % type.blockElements !== 0) {
    throw new CheckpointError({ place, expected: `rows of whole blocks of ${type.blockElements} elements`, got: text })
  }
  const byteLength = (Number(nElements) / type.blockElements) * type.blockBytes
  if (!Number.isSafeInteger(byteLength)) throw new CheckpointError({ place, expected: 'fewer than 2^53 bytes', got: text })
  return { shape: dimensions.map(Number).toReversed(), byteLength }
}

interface EntryParts {
  readonly name: string
  readonly info: TensorInfo
  readonly alignment: number
  readonly dataStart: number
}

function entryOf(source: ByteSource, { name, info, alignment, dataStart }: EntryParts): TensorEntry {
  const { shape, type, offset, byteLength } = info
  const place = `${source.name}, ${name}`
  const dataBytes = Math.max(0, source.byteLength - dataStart)
  if (offset % BigInt(alignment) !== 0n) throw new CheckpointError({ place, expected: `an offset that is a multiple of ${alignment}`, got: `${offset}` })
  if (offset + BigInt(byteLength) > dataBytes) {
    throw new CheckpointError({ place, expected: `${byteLength} bytes from offset ${offset} of the data on`, got: `${dataBytes} bytes of data` })
  }
  return { name, dtype: type.name, shape, source, start: dataStart + Number(offset), byteLength }
}

/** `tensors` sorted by offset. */
function checkOverlaps(tensors: readonly TensorEntry[]): void {
  for (const [i, { source, name, start }] of tensors.entries()) {
    const before = tensors[i - 1]
    if (before === undefined || start >= before.start + before.byteLength) continue
    const expected = `a start at or after ${before.start + before.byteLength}, where ${before.name} ends`
    throw new CheckpointError({ place: `${source.name}, ${name}`, expected, got: `a start at ${start}` })
  }
}
