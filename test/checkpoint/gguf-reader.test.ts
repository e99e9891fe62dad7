/** The GGUF reader: headers by hand, every kind of value, pieces, lies of every kind. */
import { describe, expect, test } from 'vitest'
import { bytesSource, type ByteSource } from '../../src/checkpoint/byte-source.ts'
import { readGgufHeader } from '../../src/checkpoint/gguf-reader.ts'
import { type GgufValue, NUMBER_TYPES, TENSOR_TYPES, VALUE_TYPES } from '../../src/checkpoint/gguf-types.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import { utf8 } from './helpers.ts'

/** Parts of a file: numbers of so many bytes, texts with their lengths, bytes. */
type Piece = Uint8Array

function number(value: number | bigint, byteLength: 4 | 8): Piece {
  const view = new DataView(new ArrayBuffer(8))
  view.setBigUint64(0, BigInt(value), true)
  return new Uint8Array(view.buffer, 0, byteLength)
}
const u32 = (value: number): Piece => number(value, 4)
const u64 = (value: number | bigint): Piece => number(value, 8)
const text = (value: string): Piece => join([u64(utf8(value).length), utf8(value)])

function join(pieces: readonly Piece[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0))
  let offset = 0
  for (const piece of pieces) {
    whole.set(piece, offset)
    offset += piece.length
  }
  return whole
}

const fromHex = (hex: string): Uint8Array => Uint8Array.from(hex.match(/[0-9a-f]{2}/g) ?? [], (digits) => Number.parseInt(digits, 16))

interface RawTensor { readonly name: string, readonly dimensions: readonly (number | bigint)[], readonly type?: number, readonly offset?: number | bigint }

interface RawFile {
  readonly magic?: string
  readonly version?: number
  readonly nTensors?: number | bigint
  readonly nPairs?: number | bigint
  readonly pairs?: readonly (readonly [key: string, type: number, value: Piece])[]
  readonly tensors?: readonly RawTensor[]
  readonly dataBytes?: number
}

function rawGguf({ magic = 'GGUF', version = 3, pairs = [], tensors = [], nTensors = tensors.length, nPairs = pairs.length, dataBytes = 0 }: RawFile): Uint8Array {
  const header = join([
    utf8(magic), u32(version), u64(nTensors), u64(nPairs),
    ...pairs.flatMap(([key, type, value]) => [text(key), u32(type), value]),
    ...tensors.flatMap(({ name, dimensions, type = 0, offset = 0 }) => [text(name), u32(dimensions.length), ...dimensions.map(u64), u32(type), u64(offset)])
  ])
  const dataStart = Math.ceil(header.length / 32) * 32
  return dataBytes === 0 ? header : join([header, new Uint8Array(dataStart - header.length + dataBytes)])
}

const read = (bytes: Uint8Array) => readGgufHeader(bytesSource(bytes, 'm.gguf'))
const readRaw = (file: RawFile) => read(rawGguf(file))
const typeId = (name: (typeof VALUE_TYPES)[number]): number => VALUE_TYPES.indexOf(name)

const array = (type: (typeof VALUE_TYPES)[number], length: number, items: Piece): Piece => join([u32(typeId(type)), u64(length), items])

describe('valid files', () => {
  test('byte by byte: one key, two tensors', async () => {
    const file = fromHex(`
      47475546 03000000 0200000000000000 0100000000000000
      0100000000000000 6b 04000000 2a010000
      0100000000000000 62 01000000 0100000000000000 00000000 2000000000000000
      0100000000000000 61 02000000 0300000000000000 0200000000000000 00000000 0000000000000000
      eeeeeeeeeeeeeeeeeeeeeeeeee
      0000803f 0000000000000000000000000000000000000000 0000000000000000
      00000040`)
    const { version, metadata, tensors } = await read(file)
    expect(version).toBe(3)
    expect([...metadata]).toEqual([['k', { type: 'uint32', value: 298 }]])
    // Dimensions are reversed; by offset, not by their order in the header.
    expect(tensors.map(({ name, dtype, shape, start, byteLength }) => ({ name, dtype, shape, start, byteLength }))).toEqual([
      { name: 'a', dtype: 'F32', shape: [2, 3], start: 128, byteLength: 24 },
      { name: 'b', dtype: 'F32', shape: [1], start: 160, byteLength: 4 }
    ])
    expect([...(await readWholeTensor(tensors[0]))]).toEqual([1, 0, 0, 0, 0, 0])
    expect([...(await readWholeTensor(tensors[1]))]).toEqual([2])
  })

  test('version 2, no tensors, no keys, bytes behind', async () => {
    expect(await readRaw({ version: 2 })).toMatchObject({ version: 2, tensors: [] })
    expect((await readRaw({ dataBytes: 100 })).tensors).toEqual([])
  })

  const values: [string, GgufValue, Piece][] = [
    ['uint8', { type: 'uint8', value: 200 }, Uint8Array.of(200)],
    ['int8', { type: 'int8', value: -56 }, Uint8Array.of(200)],
    ['uint16', { type: 'uint16', value: 65535 }, Uint8Array.of(255, 255)],
    ['int16', { type: 'int16', value: -2 }, Uint8Array.of(254, 255)],
    ['uint32', { type: 'uint32', value: 4294967295 }, Uint8Array.of(255, 255, 255, 255)],
    ['int32', { type: 'int32', value: -1 }, Uint8Array.of(255, 255, 255, 255)],
    ['float32', { type: 'float32', value: Math.fround(1e-5) }, Uint8Array.of(0xac, 0xc5, 0x27, 0x37)],
    ['float64', { type: 'float64', value: 1.5 }, Uint8Array.of(0, 0, 0, 0, 0, 0, 0xf8, 0x3f)],
    ['uint64', { type: 'uint64', value: 2n ** 64n - 1n }, new Uint8Array(8).fill(255)],
    ['int64', { type: 'int64', value: -(2n ** 63n) }, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0x80)],
    ['bool', { type: 'bool', value: true }, Uint8Array.of(1)],
    ['string', { type: 'string', value: 'naïve\u0000日本😀' }, text('naïve\u0000日本😀')]
  ]

  test.each(values)('a value of type %s', async (type, value, bytes) => {
    const { metadata } = await readRaw({ pairs: [['k', VALUE_TYPES.indexOf(type as never), bytes], ['end', 0, Uint8Array.of(7)]] })
    expect([...metadata]).toEqual([['k', value], ['end', { type: 'uint8', value: 7 }]])
  })

  test('arrays of every type', async () => {
    for (const [type, ArrayType] of Object.entries(NUMBER_TYPES)) {
      const items = Uint8Array.from({ length: 3 * ArrayType.BYTES_PER_ELEMENT }, (_, i) => i + 1)
      const { metadata } = await readRaw({ pairs: [['k', 9, array(type as never, 3, items)]] })
      expect(metadata.get('k')).toEqual({ type: 'array', itemType: type, value: new ArrayType(items.buffer) })
    }
    const { metadata } = await readRaw({ pairs: [['b', 9, array('bool', 3, Uint8Array.of(1, 0, 2))], ['s', 9, array('string', 2, join([text('\ufeffé'), text('')]))], ['none', 9, array('string', 0, u32(0).subarray(4))]] })
    expect([...metadata.values()].map(({ value }) => value)).toEqual([[true, false, true], ['\ufeffé', ''], []])
  })

  test('an alignment of its own, and a gap between tensors', async () => {
    const tensors = [{ name: 'a', dimensions: [1], offset: 0 }, { name: 'b', dimensions: [1], offset: 16 }]
    const file = rawGguf({ pairs: [['general.alignment', 4, u32(8)]], tensors })
    const dataStart = Math.ceil(file.length / 8) * 8
    const header = await read(join([file, new Uint8Array(dataStart - file.length + 20)]))
    expect(header.tensors.map(({ start }) => start)).toEqual([dataStart, dataStart + 16])
  })

  test('a scalar, and the size of every type that ggml has', async () => {
    for (const [type, { name, blockElements, blockBytes }] of TENSOR_TYPES) {
      const { tensors } = await readRaw({ tensors: [{ name: 'w', dimensions: [blockElements * 2, 3], type }], dataBytes: 6 * blockBytes })
      expect(tensors[0]).toMatchObject({ dtype: name, shape: [3, blockElements * 2], byteLength: 6 * blockBytes })
    }
    expect((await readRaw({ tensors: [{ name: 'w', dimensions: [], type: 1 }], dataBytes: 2 })).tensors[0]).toMatchObject({ shape: [], byteLength: 2 })
  })

  test('a type that cannot be read yet is named when its tensor is', async () => {
    const { tensors } = await readRaw({ tensors: [{ name: 'w', dimensions: [256], type: 10 }], dataBytes: 84 })
    await expect(readWholeTensor(tensors[0])).rejects.toMatchObject({ name: 'UnsupportedError', place: 'm.gguf, w', got: 'Q2_K' })
  })
})

/** Counts what is read. */
function counted(bytes: Uint8Array): { source: ByteSource, reads: [number, number][] } {
  const inner = bytesSource(bytes, 'm.gguf')
  const reads: [number, number][] = []
  return { reads, source: { ...inner, read: (start, end, signal) => (reads.push([start, end]), inner.read(start, end, signal)) } }
}

describe('pieces', () => {
  test('a small header costs one read, whatever the size of the data', async () => {
    const { source, reads } = counted(rawGguf({ tensors: [{ name: 'w', dimensions: [2 ** 20] }], dataBytes: 2 ** 22 }))
    await readGgufHeader(source)
    expect(reads).toEqual([[0, 65536]])
  })

  test('250000 tokens are read in few pieces that grow, soon, wherever the pieces end', async () => {
    const tokens = Array.from({ length: 250_000 }, (_, i) => (i % 3 === 0 ? `Ġtok${i}` : i % 3 === 1 ? 'x'.repeat(i % 40) + i : String(i)))
    const items = join(tokens.map(text))
    const { source, reads } = counted(rawGguf({ pairs: [['t', 9, join([u32(8), u64(tokens.length), items])], ['after', 7, Uint8Array.of(1)]] }))
    const start = performance.now()
    const { metadata } = await readGgufHeader(source)
    expect(performance.now() - start).toBeLessThan(3000)
    expect(metadata.get('t')?.value).toEqual(tokens)
    expect(metadata.get('after')?.value).toBe(true)
    expect(reads.length).toBeLessThan(10)
    expect(reads.every(([start, end]) => end - start <= 2 ** 22)).toBe(true)
  })

  test('what is larger than a piece is read at once: a text and an array of numbers', async () => {
    const long = 'é'.repeat(200_000)
    const numbers = Float64Array.from({ length: 70_000 }, (_, i) => i / 3)
    const { metadata } = await readRaw({ pairs: [['s', 8, text(long)], ['n', 9, join([u32(12), u64(numbers.length), new Uint8Array(numbers.buffer)])]] })
    expect(metadata.get('s')?.value === long).toBe(true)
    expect(metadata.get('n')?.value).toEqual(numbers)
  })

  test('an abort is its reason', async () => {
    const reason = new Error('enough')
    await expect(readGgufHeader(bytesSource(rawGguf({})), AbortSignal.abort(reason))).rejects.toBe(reason)
  })
})

const HUGE = 2n ** 60n
const a = { name: 'a', dimensions: [8] }
const b = { name: 'b', dimensions: [8] }

describe('refused', () => {
  test.each<[string, RawFile, string]>([
    ['another magic', { magic: 'GGML' }, 'm.gguf: expected a GGUF file, "GGUF" first, got "GGML"'],
    ['2^60 tensors', { nTensors: HUGE }, `m.gguf, number of tensors: expected at most 0, as the rest of the file can hold, got ${HUGE}`],
    ['2^60 keys', { nPairs: HUGE }, `m.gguf, number of keys: expected at most 0, as the rest of the file can hold, got ${HUGE}`],
    ['2^64 - 1 keys', { nPairs: 2n ** 64n - 1n, dataBytes: 100 }, `m.gguf, number of keys: expected at most`],
    ['a key twice', { pairs: [['k', 0, u32(1).subarray(3)], ['k', 0, u32(1).subarray(3)]] }, 'm.gguf, key 1: expected each key once, got "k" again'],
    ['a key without a name', { pairs: [['', 0, Uint8Array.of(0)]] }, 'm.gguf, key 0: expected a name of 1 to 65535 bytes, got one of 0'],
    ['a key too long', { pairs: [['k'.repeat(65536), 0, Uint8Array.of(0)]] }, 'm.gguf, key 0: expected a name of 1 to 65535 bytes, got one of 65536'],
    ['a type that is none', { pairs: [['k', 13, u64(0)]] }, 'm.gguf, k: expected a type from 0 to 12, got 13'],
    ['a text of 2^60 bytes', { pairs: [['k', 8, u64(HUGE)]] }, `m.gguf, k: expected ${HUGE} bytes at offset 45, got 0 bytes to the end of the file`],
    ['a text one byte too long', { pairs: [['k', 8, join([u64(5), utf8('four')])]] }, 'm.gguf, k: expected 5 bytes at offset 45, got 4 bytes to the end of the file'],
    ['a text that is not UTF-8', { pairs: [['k', 8, join([u64(2), Uint8Array.of(0xc3, 0x28)])]] }, 'm.gguf, k: expected text in UTF-8 at offset 45, got other bytes'],
    ['2^60 bytes in an array', { pairs: [['k', 9, join([u32(0), u64(HUGE)])]] }, `m.gguf, k, length: expected at most 0, as the rest of the file can hold, got ${HUGE}`],
    ['2^60 texts in an array', { pairs: [['k', 9, join([u32(8), u64(HUGE), text('a')])]] }, `m.gguf, k, length: expected at most 1, as the rest of the file can hold, got ${HUGE}`],
    ['2^62 float64 in an array', { pairs: [['k', 9, join([u32(12), u64(2n ** 62n), u64(0)])]] }, 'm.gguf, k, length: expected at most 1'],
    ['an alignment of 0', { pairs: [['general.alignment', 4, u32(0)]] }, 'm.gguf, general.alignment: expected a uint32 that is a power of two up to 65536, got 0'],
    ['an alignment of 48', { pairs: [['general.alignment', 4, u32(48)]] }, 'm.gguf, general.alignment: expected a uint32 that is a power of two up to 65536, got 48'],
    ['an alignment of 2^31', { pairs: [['general.alignment', 4, u32(2 ** 31)]] }, 'm.gguf, general.alignment: expected a uint32 that is a power of two up to 65536, got 2147483648'],
    ['an alignment of another type', { pairs: [['general.alignment', 10, u64(32)]] }, 'm.gguf, general.alignment: expected a uint32 that is a power of two up to 65536, got a value of type uint64'],
    ['a tensor twice', { tensors: [a, { ...a, offset: 32 }], dataBytes: 64 }, 'm.gguf, tensor 1: expected each name once, got "a" again'],
    ['a tensor without a name', { tensors: [{ name: '', dimensions: [8] }], dataBytes: 32 }, 'm.gguf, tensor 0: expected a name of 1 to 65535 bytes, got one of 0'],
    ['5 dimensions', { tensors: [{ name: 'a', dimensions: [1, 1, 1, 1, 1] }], dataBytes: 32 }, 'm.gguf, a: expected at most 4 dimensions, got 5'],
    ['a dimension of 0', { tensors: [{ name: 'a', dimensions: [0, 3] }], dataBytes: 32 }, 'm.gguf, a: expected 1 to 2^53 - 1 elements, got F32 (3, 0)'],
    ['a dimension of 0 before a product too large', { tensors: [{ name: 'a', dimensions: [HUGE, 0] }], dataBytes: 32 }, `m.gguf, a: expected 1 to 2^53 - 1 elements, got F32 (0, ${HUGE})`],
    ['a product of 2^64, that is 0 to careless eyes', { tensors: [{ name: 'a', dimensions: [2 ** 32, 2 ** 32] }], dataBytes: 32 }, 'm.gguf, a: expected 1 to 2^53 - 1 elements, got F32 (4294967296, 4294967296)'],
    ['more bytes than 2^53', { tensors: [{ name: 'a', dimensions: [2n ** 52n] }], dataBytes: 32 }, 'm.gguf, a: expected fewer than 2^53 bytes, got F32 (4503599627370496)'],
    ['a row of half a block', { tensors: [{ name: 'a', dimensions: [48, 2], type: 8 }], dataBytes: 102 }, 'm.gguf, a: expected rows of whole blocks of 32 elements, got Q8_0 (2, 48)'],
    ['a scalar of a block type', { tensors: [{ name: 'a', dimensions: [], type: 2 }], dataBytes: 18 }, 'm.gguf, a: expected rows of whole blocks of 32 elements, got Q4_0 ()'],
    ['bytes beyond the end', { tensors: [a], dataBytes: 31 }, 'm.gguf, a: expected 32 bytes from offset 0 of the data on, got 31 bytes of data'],
    ['an offset beyond the end', { tensors: [{ ...a, offset: 64 }], dataBytes: 64 }, 'm.gguf, a: expected 32 bytes from offset 64 of the data on, got 64 bytes of data'],
    ['an offset of 2^60', { tensors: [{ ...a, offset: HUGE }], dataBytes: 64 }, `m.gguf, a: expected 32 bytes from offset ${HUGE} of the data on, got 64 bytes of data`],
    ['an offset just below 2^64', { tensors: [{ ...a, offset: 2n ** 64n - 32n }], dataBytes: 64 }, 'm.gguf, a: expected 32 bytes from offset 18446744073709551584 of the data on, got 64 bytes of data'],
    ['an offset that is not aligned', { tensors: [{ ...a, offset: 4 }], dataBytes: 64 }, 'm.gguf, a: expected an offset that is a multiple of 32, got 4'],
    ['an overlap', { tensors: [{ ...a, dimensions: [9] }, { ...b, offset: 32 }], dataBytes: 96 }, 'm.gguf, b: expected a start at or after 132, where a ends, got a start at 128'],
    ['the same place twice', { tensors: [a, b], dataBytes: 96 }, 'm.gguf, b: expected a start at or after 128, where a ends, got a start at 96'],
    ['tensors without a header of theirs', { nTensors: 2, tensors: [a], dataBytes: 64 }, 'm.gguf, tensor 1: expected a name of 1 to 65535 bytes, got one of 0']
  ])('%s', async (_, file, message) => {
    await expect(readRaw(file)).rejects.toThrow(CheckpointError)
    await expect(readRaw(file)).rejects.toThrow(message)
  })

  test.each<[string, RawFile, string]>([
    ['version 1', { version: 1 }, 'm.gguf, version: expected 2 or 3, got 1'],
    ['version 4', { version: 4 }, 'm.gguf, version: expected 2 or 3, got 4'],
    ['big-endian files', { version: 0x03000000 }, 'm.gguf: expected a little-endian file, got a big-endian one'],
    ['a type that ggml took back', { tensors: [{ name: 'a', dimensions: [32], type: 4 }], dataBytes: 32 }, 'm.gguf, a, type: expected one of F32, F16,'],
    ['a type that ggml does not have', { tensors: [{ name: 'a', dimensions: [32], type: 1000 }], dataBytes: 32 }, 'got number 1000'],
    ['an array of arrays', { pairs: [['k', 9, join([u32(9), u64(1), u32(0), u64(0)])]] }, 'm.gguf, k: expected an array of numbers, of texts or of booleans, got an array of arrays']
  ])('as unsupported: %s', async (_, file, message) => {
    await expect(readRaw(file)).rejects.toThrow(UnsupportedError)
    await expect(readRaw(file)).rejects.toThrow(message)
  })

  test('a file cut anywhere', async () => {
    const file = rawGguf({ pairs: [['s', 8, text('ab')], ['n', 9, join([u32(4), u64(2), u32(1), u32(2)])], ['t', 9, join([u32(8), u64(1), text('c')])], ['f', 7, Uint8Array.of(1)]], tensors: [a, { ...b, offset: 32 }], dataBytes: 64 })
    await expect(read(file)).resolves.toBeDefined()
    for (let length = 0; length < file.length; length++) {
      await expect(read(file.subarray(0, length)), `${length} bytes`).rejects.toMatchObject({ name: 'CheckpointError', place: expect.stringMatching(/^m\.gguf, /) })
    }
  })

  test('a header beyond all measure, without reading it', async () => {
    const start = rawGguf({ pairs: [['k', 9, join([u32(0), u64(10n ** 12n)])]] })
    let bytesRead = 0
    const source: ByteSource = {
      name: 'm.gguf', byteLength: 10 ** 13, close: async () => {},
      read: async (from, to) => {
        bytesRead += to - from
        const bytes = new Uint8Array(to - from)
        if (from < start.length) bytes.set(start.subarray(from, to))
        return bytes
      }
    }
    await expect(readGgufHeader(source)).rejects.toThrow(/^m\.gguf, k, length: expected at most 999999\d\d, as the rest of the file can hold, got 1000000000000$/)
    expect(bytesRead).toBe(65536)
  })
})
