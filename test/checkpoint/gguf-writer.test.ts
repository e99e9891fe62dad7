/** Writing GGUF: what is written is read back, piece by piece, aligned; what cannot be written is refused; tensors of other types. */
import { describe, expect, test } from 'vitest'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { withArrays } from '../../src/checkpoint/gguf-arrays.ts'
import { encodeTensor } from '../../src/checkpoint/gguf-encode.ts'
import { createMetadataReader } from '../../src/checkpoint/gguf-metadata.ts'
import { readGgufHeader } from '../../src/checkpoint/gguf-reader.ts'
import type { GgufValue } from '../../src/checkpoint/gguf-types.ts'
import { ggufByteLength, ggufBytes, type GgufTensor, writeGguf } from '../../src/checkpoint/gguf-writer.ts'
import { ENCODERS, type EncodedType } from '../../src/checkpoint/quantize.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { CheckpointError } from '../../src/errors.ts'
import { entryOf } from './helpers.ts'

const bytesOf = (values: ArrayBufferView): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength)

function tensor(name: string, values: Float32Array, shape: readonly number[] = [values.length]): GgufTensor {
  return { name, dtype: 'F32', shape, async *bytes() { yield bytesOf(values) } }
}

const METADATA = new Map<string, GgufValue>([
  ['u8', { type: 'uint8', value: 255 }], ['i8', { type: 'int8', value: -128 }], ['u16', { type: 'uint16', value: 65535 }], ['i16', { type: 'int16', value: -32768 }],
  ['u32', { type: 'uint32', value: 2 ** 32 - 1 }], ['i32', { type: 'int32', value: -(2 ** 31) }], ['f32', { type: 'float32', value: 0.5 }], ['f64', { type: 'float64', value: 0.1 }],
  ['u64', { type: 'uint64', value: 2n ** 64n - 1n }], ['i64', { type: 'int64', value: -(2n ** 63n) }], ['yes', { type: 'bool', value: true }], ['no', { type: 'bool', value: false }],
  ['text', { type: 'string', value: '\ufeffnaïve 日本 😀\u0000' }], ['empty', { type: 'string', value: '' }], ['long', { type: 'string', value: 'é'.repeat(100_000) }],
  ['texts', { type: 'array', itemType: 'string', value: ['a', '', 'ĠĀ'] }], ['none', { type: 'array', itemType: 'string', value: [] }],
  ['flags', { type: 'array', itemType: 'bool', value: [true, false] }], ['ids', { type: 'array', itemType: 'int32', value: Int32Array.of(1, -2, 3).subarray(1) }],
  ['bigs', { type: 'array', itemType: 'uint64', value: BigUint64Array.of(5n) }], ['floats', { type: 'array', itemType: 'float32', value: Float32Array.of(1.5, -0) }]
])

describe('writeGguf', () => {
  test('writes byte by byte what a header by hand has', async () => {
    const file = await ggufBytes({ metadata: new Map([['k', { type: 'uint32', value: 298 }]]), tensors: [tensor('a', Float32Array.of(1, 0, 0, 0, 0, 0), [2, 3]), tensor('b', Float32Array.of(2))] })
    expect(Buffer.from(file).toString('hex')).toBe(`
      47475546 03000000 0200000000000000 0100000000000000
      0100000000000000 6b 04000000 2a010000
      0100000000000000 61 02000000 0300000000000000 0200000000000000 00000000 0000000000000000
      0100000000000000 62 01000000 0100000000000000 00000000 2000000000000000
      00000000000000000000000000
      0000803f 0000000000000000000000000000000000000000 0000000000000000
      00000040 00000000000000000000000000000000000000000000000000000000`.replaceAll(/\s/g, ''))
  })

  test('writes every kind of value as the reader reads it, in order', async () => {
    const { metadata } = await readGgufHeader(bytesSource(await ggufBytes({ metadata: METADATA, tensors: [] })))
    expect([...metadata]).toEqual([...METADATA])
  })

  test('aligns each tensor, by 32 or by what the metadata says, and pads the last one', async () => {
    for (const alignment of [8, 32, 64]) {
      const metadata = new Map<string, GgufValue>(alignment === 32 ? [] : [['general.alignment', { type: 'uint32', value: alignment }]])
      const tensors = [1, 7, 8, 9].map((length) => tensor(`w${length}`, new Float32Array(length).fill(length)))
      const file = await ggufBytes({ metadata, tensors })
      const header = await readGgufHeader(bytesSource(file))
      expect(header.tensors.map(({ start }) => start % alignment)).toEqual([0, 0, 0, 0])
      expect(file.length % alignment).toBe(0)
      for (const [i, entry] of header.tensors.entries()) expect([...(await readWholeTensor(entry))]).toEqual(Array([1, 7, 8, 9][i]).fill([1, 7, 8, 9][i]))
    }
  })

  test('asks for one tensor after another, one piece after another, and for nothing twice', async () => {
    const log: string[] = []
    const piecewise = (name: string): GgufTensor => ({
      name, dtype: 'F32', shape: [24],
      async *bytes() {
        for (let i = 0; i < 3; i++) {
          log.push(`${name}${i}`)
          yield new Uint8Array(32).fill(i)
        }
      }
    })
    const contents = { metadata: new Map(), tensors: [piecewise('a'), piecewise('b')] }
    expect(ggufByteLength(contents)).toBe(96 + 192)
    expect(log).toEqual([])
    let written = 0
    const sink = { async write(bytes: Uint8Array) {
      log.push(String(bytes.byteLength))
      written += bytes.byteLength
    } }
    expect(await writeGguf({ ...contents, sink })).toBe(288)
    expect(written).toBe(288)
    expect(log).toEqual(['96', 'a0', '32', 'a1', '32', 'a2', '32', 'b0', '32', 'b1', '32', 'b2', '32'])
  })

  test.each<[string, GgufTensor[], string]>([
    ['a name twice', [tensor('a', Float32Array.of(1)), tensor('a', Float32Array.of(1))], 'a: expected each name once, got it again'],
    ['a name too long', [tensor('é'.repeat(32), Float32Array.of(1))], 'expected a name of at most 63 bytes, got 64'],
    ['a type of no one', [{ ...tensor('a', Float32Array.of(1)), dtype: 'F8' }], "a: expected a type of ggml's, got F8"],
    ['half a block', [{ ...tensor('a', new Float32Array(16)), dtype: 'Q8_0' }], 'a: expected rows of whole blocks of 32, got Q8_0 (16)'],
    ['5 dimensions', [tensor('a', Float32Array.of(1), [1, 1, 1, 1, 1])], 'a: expected at most 4 dimensions, got F32 (1, 1, 1, 1, 1)'],
    ['too few bytes', [tensor('a', Float32Array.of(1), [2])], 'a: expected 8 bytes, got 4 bytes'],
    ['too many bytes', [tensor('a', Float32Array.of(1, 2), [1])], 'a: expected 4 bytes, got 8 bytes']
  ])('refuses %s', async (_, tensors, message) => {
    await expect(ggufBytes({ metadata: new Map(), tensors })).rejects.toThrow(RangeError)
    await expect(ggufBytes({ metadata: new Map(), tensors })).rejects.toThrow(message)
  })

  test('passes on what a tensor or the sink throws', async () => {
    const failing: GgufTensor = { name: 'a', dtype: 'F32', shape: [1], async *bytes() { yield await Promise.reject(new Error('no data')) } }
    await expect(ggufBytes({ metadata: new Map(), tensors: [failing] })).rejects.toThrow('no data')
    const sink = { write: () => Promise.reject(new Error('disk full')) }
    await expect(writeGguf({ metadata: new Map(), tensors: [], sink })).rejects.toThrow('disk full')
  })
})

async function collect(pieces: AsyncIterable<Uint8Array>): Promise<{ bytes: Uint8Array, sizes: number[] }> {
  const copies: Uint8Array[] = []
  for await (const piece of pieces) copies.push(piece.slice())
  return { bytes: new Uint8Array(await new Blob(copies as Uint8Array<ArrayBuffer>[]).arrayBuffer()), sizes: copies.map(({ length }) => length) }
}

describe('encodeTensor', () => {
  const n = 2 ** 20 + 64
  const values = Float32Array.from({ length: n }, (_, i) => Math.sin(i))

  test.each(['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0'] as const)('gives %s in slices of 2^20 elements, as if at once', async (type) => {
    const { blockElements, blockBytes, encode } = ENCODERS[type]
    const atOnce = new Uint8Array((n / blockElements) * blockBytes)
    encode(values, atOnce)
    const { bytes, sizes } = await collect(encodeTensor(entryOf('F32', bytesOf(values), { elementBytes: 4, offset: 3 }), { type }))
    expect(sizes).toEqual([(2 ** 20 / blockElements) * blockBytes, (64 / blockElements) * blockBytes])
    expect(Buffer.compare(bytes, atOnce)).toBe(0)
  })

  test.each(['Q8_0', 'Q4_0'] as const)('copies %s that stays what it is', async (type) => {
    const { blockElements, blockBytes } = ENCODERS[type]
    // Blocks as no quantization makes them: no number reaches the end of its range.
    const blocks = new Uint8Array((n / blockElements) * blockBytes).map((_, i) => (i % blockBytes < 2 ? 0x12 : 0x77))
    const entry = { ...entryOf(type, blocks), shape: [n] }
    expect(Buffer.compare((await collect(encodeTensor(entry, { type }))).bytes, blocks)).toBe(0)
  })

  test.each([['F16', 'F16'], ['BF16', 'BF16'], ['F16', 'F32'], ['BF16', 'F32']] as const)('%s as %s loses nothing', async (from, to) => {
    const out = new Uint8Array(2 * n)
    ENCODERS[from].encode(values, out)
    const entry = entryOf(from, out)
    const { bytes } = await collect(encodeTensor(entry, { type: to }))
    const back = await readWholeTensor(entryOf(to, bytes, { elementBytes: to === 'F32' ? 4 : 2 }))
    expect(Buffer.compare(bytesOf(back), bytesOf(await readWholeTensor(entry)))).toBe(0)
  })

  test('transforms a copy: the source keeps its values', async () => {
    const mine = Float32Array.of(1, -2, 3)
    const entry = entryOf('F32', bytesOf(mine), { elementBytes: 4 })
    expect([...new Float32Array((await collect(encodeTensor(entry, { type: 'F32', transform: (values) => values.set(values.map((value) => -value)) }))).bytes.buffer)]).toEqual([-1, 2, -3])
    expect([...(await readWholeTensor(entry))]).toEqual([1, -2, 3])
  })

  test.each<[EncodedType, number]>([['F16', 7e4], ['BF16', 3.4e38], ['Q8_0', 1e7], ['Q4_0', 1e6]])('refuses what %s cannot hold, by its place', async (type, large) => {
    for (const index of [5, 2 ** 20 + 33]) {
      const some = values.slice()
      some[index] = large
      const pieces = encodeTensor(entryOf('F32', bytesOf(some), { elementBytes: 4 }), { type })
      await expect(collect(pieces)).rejects.toThrow(new CheckpointError({ place: `file, w, element ${index}`, expected: `a number that ${type} can hold`, got: String(some[index]) }))
    }
  })

  test('refuses what is not finite, by its place, and stops when aborted', async () => {
    const some = values.slice()
    some[2 ** 20 + 7] = NaN
    const entry = entryOf('F32', bytesOf(some), { elementBytes: 4 })
    await expect(collect(encodeTensor(entry, { type: 'Q8_0' }))).rejects.toMatchObject({ name: 'CheckpointError', place: 'file, w, from element 1048576 on, element 7', got: 'NaN' })
    const reason = new Error('enough')
    await expect(collect(encodeTensor(entry, { type: 'Q8_0', signal: AbortSignal.abort(reason) }))).rejects.toBe(reason)
  })
})

describe('createMetadataReader', () => {
  const reader = withArrays(createMetadataReader({ name: 'm.gguf', metadata: METADATA }))

  test('gives integers of any type, floats, flags and texts', () => {
    expect(['u8', 'u16', 'u32'].map((key) => reader.natural(key))).toEqual([255, 65535, 2 ** 32 - 1])
    expect([reader.natural('missing', 7), reader.flag('missing', true), reader.flag('no', true), reader.has('no'), reader.has('missing')]).toEqual([7, true, false, true, false])
    expect([reader.text('text'), reader.texts('texts'), reader.integers('ids'), reader.integers('bigs')]).toEqual(['\ufeffnaïve 日本 😀\u0000', ['a', '', 'ĠĀ'], [-2, 3], [5]])
  })

  test.each([1e-5, 1e-6, 0.1, 1.1e-5, 123456.7, 1])('knows the float32 of %d again', (value) => {
    const metadata = new Map<string, GgufValue>([['eps', { type: 'float32', value: Math.fround(value) }], ['double', { type: 'float64', value }]])
    const reader = createMetadataReader({ name: 'm.gguf', metadata })
    expect([reader.positive('eps'), reader.positive('double')]).toEqual([value, value])
  })

  test.each<[string, () => unknown, string]>([
    ['a missing key', () => reader.natural('missing'), 'm.gguf, missing: expected an integer from 0 to 2^53 - 1, got nothing'],
    ['a negative one', () => reader.natural('i8'), 'm.gguf, i8: expected an integer from 0 to 2^53 - 1, got int8 -128'],
    ['one beyond 2^53', () => reader.natural('u64'), 'm.gguf, u64: expected an integer from 0 to 2^53 - 1, got uint64 18446744073709551615n'],
    ['a float', () => reader.natural('f32'), 'm.gguf, f32: expected an integer from 0 to 2^53 - 1, got float32 0.5'],
    ['an integer for a float', () => reader.positive('u8'), 'm.gguf, u8: expected a finite float above 0, got uint8 255'],
    ['a number for a text', () => reader.text('u8'), 'm.gguf, u8: expected a string, got uint8 255'],
    ['a text for an array', () => reader.texts('text'), 'm.gguf, text: expected an array of strings, got string'],
    ['texts for integers', () => reader.integers('texts'), 'm.gguf, texts: expected an array of integers, got an array of 3 string'],
    ['fractions for integers', () => reader.integers('floats'), 'm.gguf, floats: expected an array of integers, got an array of 2 float32'],
    ['a number for a flag', () => reader.flag('u8', true), 'm.gguf, u8: expected a bool, got uint8 255']
  ])('refuses %s', (_, ask, message) => {
    expect(ask).toThrow(CheckpointError)
    expect(ask).toThrow(message)
  })
})
