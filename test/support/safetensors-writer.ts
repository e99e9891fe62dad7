/** Writes the safetensors container, for tests and benchmarks: the package itself only reads it. */
import { messageOf } from '../../src/errors.ts'
import { byteLengthOf, DTYPE_BITS, LENGTH_BYTES, METADATA_KEY } from '../../src/checkpoint/safetensors.ts'

/** A tensor to be written; `data` holds its elements in row-major order, little-endian. */
export interface TensorData {
  readonly name: string
  readonly dtype: string
  readonly shape: readonly number[]
  readonly data: ArrayBufferView
}

/**
 * A safetensors file with these tensors, as the reference writes it: the header padded so that data starts at a multiple of 8,
 * the widest elements first. Throws a RangeError where data and shape differ or a name comes twice.
 */
export function writeSafetensors(tensors: readonly TensorData[], metadata: Readonly<Record<string, string>> = {}): Uint8Array {
  const sorted = tensors.toSorted((a, b) => (DTYPE_BITS.get(b.dtype) ?? 0) - (DTYPE_BITS.get(a.dtype) ?? 0) || (a.name < b.name ? -1 : 1))
  const names = new Set([METADATA_KEY])
  const fields = [`${JSON.stringify(METADATA_KEY)}:${JSON.stringify(metadata)}`]
  let end = 0
  for (const { name, dtype, shape, data } of sorted) {
    const expected = byteLengthOf(dtype, shape, name)
    if (data.byteLength !== expected) throw new RangeError(messageOf({ place: name, expected: `${expected} bytes`, got: `${data.byteLength} bytes` }))
    if (names.has(name)) throw new RangeError(messageOf({ place: name, expected: 'each name once', got: 'it again' }))
    names.add(name)
    fields.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [end, end + expected] })}`)
    end += expected
  }
  const header = new TextEncoder().encode(`{${fields.slice(Object.keys(metadata).length === 0 ? 1 : 0).join(',')}}`)
  const headerBytes = Math.ceil(header.byteLength / 8) * 8
  const file = new Uint8Array(LENGTH_BYTES + headerBytes + end).fill(0x20, LENGTH_BYTES + header.byteLength, LENGTH_BYTES + headerBytes)
  new DataView(file.buffer).setBigUint64(0, BigInt(headerBytes), true)
  file.set(header, LENGTH_BYTES)
  let offset = LENGTH_BYTES + headerBytes
  for (const { data } of sorted) {
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), offset)
    offset += data.byteLength
  }
  return file
}
