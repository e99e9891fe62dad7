/** The safetensors header: real files, every way in which one can be wrong, and writing. */
import { describe, expect, test } from 'vitest'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { readSafetensorsHeader } from '../../src/checkpoint/safetensors.ts'
import { writeSafetensors } from '../support/safetensors-writer.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { modelFiles, rawSafetensors } from './helpers.ts'

const F32 = (shape: readonly number[], start: number, end: number) => ({ dtype: 'F32', shape, data_offsets: [start, end] })

function read(file: Uint8Array) {
  return readSafetensorsHeader(bytesSource(file, 'm'))
}

describe('readSafetensorsHeader', () => {
  test('reads what transformers wrote', async () => {
    const file = modelFiles('mamba')['model.safetensors']
    const { metadata, tensors } = await read(file)
    expect(metadata).toEqual({ format: 'pt' })
    expect(tensors).toHaveLength(32)
    const conv = tensors.find(({ name }) => name === 'backbone.layers.1.mixer.conv1d.weight')
    expect(conv).toMatchObject({ dtype: 'F32', shape: [64, 1, 4], byteLength: 1024 })
    expect(tensors.at(-1)!.start + tensors.at(-1)!.byteLength).toBe(file.byteLength)
  })

  test('reads scalars, empty tensors, gaps, unknown fields, padding and a file without tensors', async () => {
    const header = { a: { ...F32([], 0, 4), extra: [1] }, empty: F32([3, 0], 4, 4), b: F32([1], 8, 12) }
    const { tensors } = await read(rawSafetensors(`${JSON.stringify(header)}   `, 12))
    expect(tensors.map(({ name, byteLength }) => [name, byteLength])).toEqual([['a', 4], ['empty', 0], ['b', 4]])
    expect((await read(rawSafetensors({}))).tensors).toEqual([])
  })

  test('takes __proto__ for a tensor like any other', async () => {
    const { tensors } = await read(rawSafetensors('{"__proto__":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4))
    expect(tensors.map(({ name }) => name)).toEqual(['__proto__'])
    await expect(read(rawSafetensors('{"a":{"__proto__":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}', 4))).rejects.toMatchObject({
      place: 'm, a, dtype',
      got: 'undefined'
    })
    const { metadata } = await read(rawSafetensors('{"__metadata__":{"__proto__":"x"}}'))
    expect(Object.entries(metadata)).toEqual([['__proto__', 'x']])
  })

  test('loads misaligned tensors', async () => {
    const header = { odd: { dtype: 'U8', shape: [1], data_offsets: [0, 1] }, a: F32([2], 1, 9), h: { dtype: 'BF16', shape: [2], data_offsets: [9, 13] } }
    for (let padding = 0; padding < 4; padding++) {
      const file = rawSafetensors(JSON.stringify(header) + ' '.repeat(padding), 13)
      const view = new DataView(file.buffer, file.byteLength - 13)
      view.setFloat32(1, 1.25, true)
      view.setFloat32(5, -3e-39, true)
      view.setUint16(9, 0x3f80, true)
      view.setUint16(11, 0xc000, true)
      const { tensors } = await read(file)
      expect([...(await readWholeTensor(tensors[1]))]).toEqual([1.25, Math.fround(-3e-39)])
      expect([...(await readWholeTensor(tensors[2]))]).toEqual([1, -2])
    }
  })

  const one = rawSafetensors({ a: F32([2, 3], 0, 24) }, 24)
  test.each([
    ['an empty file', new Uint8Array(0), { place: 'm', expected: 'a safetensors file of at least 8 bytes', got: '0 bytes' }],
    ['a file of 7 bytes', one.slice(0, 7), { place: 'm', got: '7 bytes' }],
    ['a file that ends after the length', one.slice(0, 8), { place: 'm, header length', expected: 'at most 0 bytes, as the file has 8' }],
    ['a file that ends in the header', one.slice(0, 20), { place: 'm, header length', expected: 'at most 12 bytes, as the file has 20' }],
    ['a header length one beyond the file', rawSafetensors('{}', 0, 3n), { place: 'm, header length', got: '3 bytes' }],
    ['a header length beyond reason', rawSafetensors('{}', 0, 100_000_001n), { expected: 'at most 100000000 bytes', got: '100000001 bytes' }],
    ['the largest header length', rawSafetensors('{}', 0, 2n ** 64n - 1n), { expected: 'at most 100000000 bytes', got: '18446744073709551615 bytes' }],
    ['no header', rawSafetensors(''), { place: 'm, header', expected: '"{" first', got: '""' }],
    ['a header that starts with a space', rawSafetensors(' {}'), { place: 'm, header', expected: '"{" first' }],
    ['a header that is an array', rawSafetensors('[]'), { place: 'm, header', expected: '"{" first', got: '"[]"' }],
    ['a header cut short by its length', rawSafetensors('{"a":{}}', 0, 5n), { place: 'm, header, offset 5', got: 'the end of the text' }],
    ['a header that is no UTF-8', rawSafetensors(Uint8Array.of(0x7b, 0xff, 0x7d)), { place: 'm, header', expected: 'text in UTF-8' }],
    ['a duplicate name', rawSafetensors(`{"a":${JSON.stringify(F32([1], 0, 4))},"a":${JSON.stringify(F32([1], 4, 8))}}`, 8), { expected: 'each key once', got: '"a" again' }],
    ['a tensor that is no object', rawSafetensors({ a: 1 }), { place: 'm, a', expected: 'an object', got: '1' }],
    ['no dtype', rawSafetensors({ a: { shape: [], data_offsets: [0, 4] } }, 4), { place: 'm, a, dtype', got: 'undefined' }],
    ['no shape', rawSafetensors({ a: { dtype: 'F32', data_offsets: [0, 4] } }, 4), { place: 'm, a, shape', got: 'undefined' }],
    ['a negative length', rawSafetensors({ a: F32([-1], 0, 4) }, 4), { place: 'm, a, shape', got: '[-1]' }],
    ['half a length', rawSafetensors({ a: F32([0.5], 0, 2) }, 2), { place: 'm, a, shape', got: '[0.5]' }],
    ['a length beyond 2^53', rawSafetensors('{"a":{"dtype":"F32","shape":[9007199254740993],"data_offsets":[0,4]}}', 4), { place: 'm, a, shape' }],
    ['an infinite length', rawSafetensors('{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}}', 4), { place: 'm, a, shape' }],
    ['no offsets', rawSafetensors({ a: { dtype: 'F32', shape: [] } }, 4), { place: 'm, a, data_offsets' }],
    ['one offset', rawSafetensors({ a: { dtype: 'F32', shape: [], data_offsets: [4] } }, 4), { place: 'm, a, data_offsets', got: '[4]' }],
    ['offsets as text', rawSafetensors({ a: { dtype: 'F32', shape: [], data_offsets: ['0', '4'] } }, 4), { place: 'm, a, data_offsets' }],
    ['offsets in reverse', rawSafetensors({ a: F32([1], 8, 4) }, 8), { place: 'm, a, data_offsets', expected: '[start, end] within the 8 bytes of data' }],
    ['a negative offset', rawSafetensors({ a: F32([1], -4, 0) }, 4), { place: 'm, a, data_offsets', got: '[-4, 0]' }],
    ['an offset beyond the file', rawSafetensors({ a: F32([2], 4, 12) }, 8), { place: 'm, a, data_offsets', got: '[4, 12]' }],
    ['fewer bytes than the shape', rawSafetensors({ a: F32([2, 3], 0, 20) }, 20), { place: 'm, a', expected: '24 bytes for F32 (2, 3)', got: '20 bytes' }],
    ['more bytes than the shape', rawSafetensors({ a: F32([2, 3], 0, 28) }, 28), { place: 'm, a', expected: '24 bytes for F32 (2, 3)', got: '28 bytes' }],
    ['bytes of another dtype', rawSafetensors({ a: { dtype: 'F16', shape: [6], data_offsets: [0, 24] } }, 24), { place: 'm, a', expected: '12 bytes for F16 (6)' }],
    ['a product that overflows 64 bits to 4 bytes', rawSafetensors({ a: F32([2 ** 32, 2 ** 32 + 1], 0, 4) }, 4), { place: 'm, a', expected: 'fewer than 2^53 bits' }],
    ['a product that overflows to infinity', rawSafetensors({ a: F32(Array(40).fill(2 ** 52), 0, 4) }, 4), { place: 'm, a', expected: 'fewer than 2^53 bits' }],
    ['a product that overflows before a zero', rawSafetensors({ a: F32([2 ** 40, 2 ** 40, 0], 0, 0) }), { place: 'm, a', expected: 'fewer than 2^53 bits' }],
    ['half a byte', rawSafetensors({ a: { dtype: 'F4', shape: [3], data_offsets: [0, 1] } }, 1), { place: 'm, a', expected: 'a whole number of bytes' }],
    ['tensors that overlap', rawSafetensors({ a: F32([2], 0, 8), b: F32([2], 4, 12) }, 12), { place: 'm, b, data_offsets', expected: 'a start at or after 8, where a ends' }],
    ['tensors at one place', rawSafetensors({ a: F32([2], 0, 8), b: F32([2], 0, 8) }, 8), { place: 'm, b, data_offsets', got: 'a start at 0' }],
    ['a tensor within another', rawSafetensors({ b: F32([1], 4, 8), a: F32([3], 0, 12) }, 12), { place: 'm, b, data_offsets' }],
    ['bytes after the last tensor', rawSafetensors({ a: F32([1], 0, 4) }, 5), { place: 'm', expected: '66 bytes, where a ends', got: '67 bytes' }],
    ['data cut by one byte', one.slice(0, -1), { place: 'm, a, data_offsets', expected: '[start, end] within the 23 bytes of data' }],
    ['no data', one.slice(0, -24), { place: 'm, a, data_offsets', expected: '[start, end] within the 0 bytes of data' }],
    ['metadata that is no object', rawSafetensors({ __metadata__: 'pt' }), { place: 'm, __metadata__', got: '"pt"' }],
    ['metadata that is no text', rawSafetensors({ __metadata__: { step: 1 } }), { place: 'm, __metadata__.step', expected: 'a string', got: '1' }]
  ])('refuses %s', async (_, file, parts) => {
    await expect(read(file)).rejects.toMatchObject({ name: 'CheckpointError', ...parts })
  })

  test('refuses a dtype that it does not know as unsupported', async () => {
    await expect(read(rawSafetensors({ a: { dtype: 'F128', shape: [1], data_offsets: [0, 16] } }, 16))).rejects.toMatchObject({
      name: 'UnsupportedError',
      place: 'm, a, dtype',
      got: '"F128"'
    })
  })

  test('refuses a real file cut anywhere', async () => {
    const file = modelFiles('mamba_bf16')['model.safetensors']
    const headerEnd = 8 + Number(new DataView(file.buffer).getBigUint64(0, true))
    for (let length = 0; length < file.byteLength; length += length < headerEnd + 40 ? 7 : 997) {
      await expect(read(file.slice(0, length)), `${length} bytes`).rejects.toMatchObject({ name: 'CheckpointError' })
    }
  })
})

describe('writeSafetensors', () => {
  const tensors = [
    { name: 'half', dtype: 'F16', shape: [3], data: Uint16Array.of(0x3c00, 0xc000, 1) },
    { name: 'b', dtype: 'F32', shape: [2, 1], data: Float32Array.of(1.5, -2) },
    { name: '__proto__', dtype: 'F32', shape: [], data: Float32Array.of(7) },
    { name: 'ids', dtype: 'I64', shape: [1], data: BigInt64Array.of(-5n) },
    { name: 'none', dtype: 'U8', shape: [0], data: new Uint8Array(0) }
  ]

  test('writes what readSafetensorsHeader reads', async () => {
    const file = writeSafetensors(tensors, { format: 'pt', é: '"' })
    const { metadata, tensors: entries } = await read(file)
    expect(metadata).toEqual({ format: 'pt', é: '"' })
    expect(entries.map(({ name, dtype, shape }) => [name, dtype, shape])).toEqual([
      ['ids', 'I64', [1]],
      ['__proto__', 'F32', []],
      ['b', 'F32', [2, 1]],
      ['half', 'F16', [3]],
      ['none', 'U8', [0]]
    ])
    expect(entries[0].start % 8).toBe(0)
    expect([...(await readWholeTensor(entries[2]))]).toEqual([1.5, -2])
    expect([...(await readWholeTensor(entries[3]))]).toEqual([1, -2, 2 ** -24])
    expect(new DataView(file.buffer, entries[0].start).getBigInt64(0, true)).toBe(-5n)
  })

  test('writes a real file as it was', async () => {
    const file = modelFiles('mamba_f16')['model.safetensors']
    const { metadata, tensors: entries } = await read(file)
    const copies = entries.map(({ name, dtype, shape, start, byteLength }) => ({ name, dtype, shape, data: file.subarray(start, start + byteLength) }))
    expect(Buffer.from(writeSafetensors(copies.toReversed(), { ...metadata })).equals(file)).toBe(true)
  })

  test('writes views that start anywhere in their buffer', async () => {
    const data = new Float32Array([9, 1, 2]).subarray(1)
    const { tensors: entries } = await read(writeSafetensors([{ name: 'a', dtype: 'F32', shape: [2], data }]))
    expect([...(await readWholeTensor(entries[0]))]).toEqual([1, 2])
  })

  test('refuses data of another size, names that come twice, and the name of the metadata', () => {
    const a = { name: 'a', dtype: 'F32', shape: [2], data: new Float32Array(2) }
    expect(() => writeSafetensors([{ ...a, shape: [3] }])).toThrow(RangeError)
    expect(() => writeSafetensors([a, a])).toThrow('a: expected each name once, got it again')
    expect(() => writeSafetensors([{ ...a, name: '__metadata__' }])).toThrow(RangeError)
  })
})
