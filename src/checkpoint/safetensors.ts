/**
 * The safetensors container: an unsigned 64-bit length, a JSON header of that length, then the tensors' bytes.
 *
 * What is valid follows the reference, the Rust crate `safetensors` (`SafeTensors::read_metadata`): the same limit on the header,
 * and bytes after the last tensor are an error. One difference: gaps between tensors are read, since they do no harm;
 * tensors that overlap are an error in both. Data need not be aligned.
 */
import { CheckpointError, UnsupportedError, describe } from '../errors.ts'
import { decodeText, type ByteSource } from './byte-source.ts'
import { expectNaturals, expectObject, expectString, parseJson, type JsonObject, type JsonValue } from './json.ts'

/** A tensor's place in a file. */
export interface TensorEntry {
  readonly name: string
  /** As the file names it: F32, F16, BF16, I64, … */
  readonly dtype: string
  /** Row-major. Empty for a scalar. */
  readonly shape: readonly number[]
  readonly source: ByteSource
  /** Offset of the first byte in `source`. */
  readonly start: number
  readonly byteLength: number
}

export interface SafetensorsHeader {
  readonly metadata: Readonly<Record<string, string>>
  /** By offset. */
  readonly tensors: readonly TensorEntry[]
}

export const LENGTH_BYTES = 8
const MAX_HEADER_BYTES = 100_000_000
export const METADATA_KEY = '__metadata__'

/** Bits per element: the format has types of 4 and 6 bits. */
export const DTYPE_BITS: ReadonlyMap<string, number> = new Map([
  ...['F64', 'I64', 'U64', 'C64'].map((dtype) => [dtype, 64] as const),
  ...['F32', 'I32', 'U32'].map((dtype) => [dtype, 32] as const),
  ...['F16', 'BF16', 'I16', 'U16'].map((dtype) => [dtype, 16] as const),
  ...['I8', 'U8', 'BOOL', 'F8_E4M3', 'F8_E5M2', 'F8_E8M0', 'F8_E4M3FNUZ', 'F8_E5M2FNUZ'].map((dtype) => [dtype, 8] as const),
  ...['F6_E2M3', 'F6_E3M2'].map((dtype) => [dtype, 6] as const),
  ['F4', 4]
])

/**
 * The metadata and the tensors of a safetensors file; no tensor's bytes are read.
 * Throws a CheckpointError that names the file and the tensor, and an UnsupportedError for a dtype that the format did not have
 * when this was written.
 */
export async function readSafetensorsHeader(source: ByteSource, signal?: AbortSignal): Promise<SafetensorsHeader> {
  const { header, dataStart } = await readHeaderText(source, signal)
  if (!header.startsWith('{')) throw new CheckpointError({ place: headerPlace(source), expected: '"{" first', got: describe(header.slice(0, 20)) })
  const root = expectObject(parseJson(header, headerPlace(source)), headerPlace(source))
  const tensors: TensorEntry[] = []
  for (const name in root) {
    if (name !== METADATA_KEY) tensors.push(readEntry(source, { name, info: root[name], dataStart }))
  }
  tensors.sort((a, b) => a.start - b.start || a.byteLength - b.byteLength)
  checkLayout(source, tensors, dataStart)
  return { metadata: readMetadata(source, root), tensors }
}

async function readHeaderText(source: ByteSource, signal?: AbortSignal): Promise<{ header: string; dataStart: number }> {
  if (source.byteLength < LENGTH_BYTES) {
    throw new CheckpointError({ place: source.name, expected: `a safetensors file of at least ${LENGTH_BYTES} bytes`, got: `${source.byteLength} bytes` })
  }
  const lengthBytes = await source.read(0, LENGTH_BYTES, signal)
  const length = new DataView(lengthBytes.buffer, lengthBytes.byteOffset, LENGTH_BYTES).getBigUint64(0, true)
  const place = `${source.name}, header length`
  if (length > MAX_HEADER_BYTES) throw new CheckpointError({ place, expected: `at most ${MAX_HEADER_BYTES} bytes`, got: `${length} bytes` })
  const dataStart = LENGTH_BYTES + Number(length)
  if (dataStart > source.byteLength) {
    throw new CheckpointError({ place, expected: `at most ${source.byteLength - LENGTH_BYTES} bytes, as the file has ${source.byteLength}`, got: `${length} bytes` })
  }
  return { header: decodeText(await source.read(LENGTH_BYTES, dataStart, signal), headerPlace(source)), dataStart }
}

function readMetadata(source: ByteSource, root: JsonObject): Readonly<Record<string, string>> {
  const metadata: Record<string, string> = Object.create(null)
  if (root[METADATA_KEY] === undefined) return metadata
  const place = `${source.name}, ${METADATA_KEY}`
  for (const [key, value] of Object.entries(expectObject(root[METADATA_KEY], place))) metadata[key] = expectString(value, `${place}.${key}`)
  return metadata
}

function readEntry(source: ByteSource, { name, info, dataStart }: { name: string; info: JsonValue | undefined; dataStart: number }): TensorEntry {
  const place = `${source.name}, ${name}`
  const fields = expectObject(info, place)
  const dtype = expectString(fields['dtype'], `${place}, dtype`)
  const shape = expectNaturals(fields['shape'], `${place}, shape`)
  const offsets = expectNaturals(fields['data_offsets'], `${place}, data_offsets`)
  const dataBytes = source.byteLength - dataStart
  if (offsets.length !== 2 || offsets[0] > offsets[1] || offsets[1] > dataBytes) {
    throw new CheckpointError({ place: `${place}, data_offsets`, expected: `[start, end] within the ${dataBytes} bytes of data`, got: describe(offsets) })
  }
  const byteLength = offsets[1] - offsets[0]
  const expected = byteLengthOf(dtype, shape, place)
  if (byteLength !== expected) {
    throw new CheckpointError({ place, expected: `${expected} bytes for ${dtype} ${shapeText(shape)}`, got: `${byteLength} bytes` })
  }
  return { name, dtype, shape, source, start: dataStart + offsets[0], byteLength }
}

/** Bytes of a tensor. Throws where that is not a whole number below 2^53, or the dtype is unknown. */
export function byteLengthOf(dtype: string, shape: readonly number[], place: string): number {
  const elementBits = DTYPE_BITS.get(dtype)
  if (elementBits === undefined) {
    throw new UnsupportedError({ place: `${place}, dtype`, expected: `one of ${[...DTYPE_BITS.keys()].join(', ')}`, got: describe(dtype) })
  }
  let bits = elementBits
  for (const length of shape) {
    bits *= length
    // Below 2^53 products are exact; the first to reach it is seen here, whatever follows.
    if (!Number.isSafeInteger(bits)) throw new CheckpointError({ place, expected: 'fewer than 2^53 bits', got: `${dtype} ${shapeText(shape)}` })
  }
  if (bits % 8 !== 0) throw new CheckpointError({ place, expected: 'a whole number of bytes', got: `${dtype} ${shapeText(shape)}` })
  return bits / 8
}

/** `tensors` sorted by offset. */
function checkLayout(source: ByteSource, tensors: readonly TensorEntry[], dataStart: number): void {
  let end = dataStart
  let endName = 'the header'
  for (const { name, start, byteLength } of tensors) {
    if (start < end) {
      const expected = `a start at or after ${end - dataStart}, where ${endName} ends`
      throw new CheckpointError({ place: `${source.name}, ${name}, data_offsets`, expected, got: `a start at ${start - dataStart}` })
    }
    end = start + byteLength
    endName = name
  }
  if (end !== source.byteLength) {
    throw new CheckpointError({ place: source.name, expected: `${end} bytes, where ${endName} ends`, got: `${source.byteLength} bytes` })
  }
}

function shapeText(shape: readonly number[]): string {
  return shape.length > 8 ? `of ${shape.length} dimensions` : `(${shape.join(', ')})`
}

function headerPlace(source: ByteSource): string {
  return `${source.name}, header`
}
