/** The zip of torch.save: what is read, and archives that lie. */
import { describe, expect, test } from 'vitest'
import { bytesSource, checkRange, type ByteSource } from '../../src/checkpoint/byte-source.ts'
import { readTorchZip } from '../../src/checkpoint/torch-zip.ts'
import { modelFiles, utf8 } from './helpers.ts'
import { bytesOf, little, zip, type ZipFile, type ZipOptions } from './torch-file.ts'

const read = (file: Uint8Array) => readTorchZip(bytesSource(file, 'm.bin'))
const A: ZipFile = { name: 'r/a', data: utf8('alpha') }
const B: ZipFile = { name: 'r/data/b', data: utf8('beta') }
const SEE_ZIP64 = [0xff, 0xff, 0xff, 0xff]

async function contentsOf(file: Uint8Array): Promise<Record<string, string>> {
  const entries = await read(file)
  return Object.fromEntries([...entries].map(([path, { start, byteLength }]) => [path, new TextDecoder().decode(file.subarray(start, start + byteLength))]))
}

describe('read', () => {
  const both = { a: 'alpha', 'data/b': 'beta' }
  const descriptor = { record: { 8: [8, 8] }, header: { 6: [8, 8], 18: [0, 0, 0, 0], 22: [0, 0, 0, 0] } }
  const zip64 = { record: { 20: SEE_ZIP64, 24: SEE_ZIP64 }, header: { 18: SEE_ZIP64, 22: SEE_ZIP64 }, recordExtra: bytesOf('XX', 1, 0, 9, 1, 0, 16, 0, little(5, 8), little(5, 8)) }
  test.each<[string, Uint8Array, Record<string, string>]>([
    ['entries', zip([A, B]), both], ['entries in a zip64 archive', zip([A, B], { isZip64: true }), both], ['no entries', zip([]), {}], ['an entry of no bytes', zip([{ name: 'r/a', data: new Uint8Array(0) }]), { a: '' }],
    ['sizes after the data', zip([{ ...A, ...descriptor }, B], { beforeDirectory: new Uint8Array(24) }), both], ['sizes in a zip64 field', zip([{ ...A, ...zip64 }, B]), both],
    ['fields that refer to the zip64 record', zip([A, B], { isZip64: true, end: { 84: [0xff, 0xff, 0xff, 0xff], 88: SEE_ZIP64, 92: SEE_ZIP64 } }), both],
    ['a name that is not ASCII', zip([{ ...A, name: 'ä/é' }]), { é: 'alpha' }]
  ])('%s', async (_, file, contents) => {
    expect(await contentsOf(file)).toEqual(contents)
  })

  test('the fixture, with few reads', async () => {
    const file = modelFiles('mamba_original')['pytorch_model.bin']
    const source = bytesSource(file, 'm.bin')
    let nReads = 0
    const entries = await readTorchZip({ ...source, read: (start, end) => (nReads++, source.read(start, end)) })
    expect(entries.size).toBe(38)
    expect(entries.get('data/0')).toEqual({ start: expect.any(Number), byteLength: 20480 })
    expect([...entries.values()].filter(({ start }) => start % 64 !== 0)).toEqual([])
    expect(nReads).toBeLessThan(6)
  })

  test('an archive of 40 GiB, without reading its data', async () => {
    const { source, readBytes } = hugeArchive(10, 2 ** 32 + 7)
    const entries = await readTorchZip(source)
    expect([...entries.values()].map(({ start, byteLength }) => [start % (2 ** 32 + 7 + 34), byteLength])).toEqual(Array.from({ length: 10 }, () => [34, 2 ** 32 + 7]))
    expect(readBytes()).toBeLessThan(5000)
  })

  test('headers far apart are read some at a time, never all at once', async () => {
    const { source } = hugeArchive(100, 2 ** 20)
    const counts = { now: 0, most: 0 }
    const read = async (from: number, to: number): Promise<Uint8Array> => {
      counts.most = Math.max(counts.most, ++counts.now)
      await new Promise((resolve) => setTimeout(resolve, 1))
      counts.now--
      return source.read(from, to)
    }
    expect((await readTorchZip({ ...source, read })).size).toBe(100)
    expect(counts).toEqual({ now: 0, most: 16 })
  })

  test('an abort ends it', async () => {
    const reason = new Error('enough')
    await expect(readTorchZip(bytesSource(zip([A])), AbortSignal.abort(reason))).rejects.toBe(reason)
  })
})

/** Entries `r/00`, `r/01`, … of zeros, each with a header of 34 bytes (names have two digits), all in zip64 fields. */
function hugeArchive(nEntries: number, dataBytes: number): { source: ByteSource; readBytes: () => number } {
  const entryBytes = 34 + dataBytes
  const nameOf = (i: number): string => `r/${String(i).padStart(2, '0')}`
  const header = (i: number) => bytesOf('PK', 3, 4, new Uint8Array(14), SEE_ZIP64, SEE_ZIP64, 4, 0, 0, 0, nameOf(i))
  const record = (i: number) => bytesOf(
    'PK', 1, 2, new Uint8Array(16), SEE_ZIP64, SEE_ZIP64, 4, 0, 28, 0, new Uint8Array(10), SEE_ZIP64, nameOf(i), 1, 0, 24, 0, little(dataBytes, 8), little(dataBytes, 8), little(i * entryBytes, 8)
  )
  const directory = bytesOf(...Array.from({ length: nEntries }, (_, i) => record(i)))
  const start = nEntries * entryBytes
  const end = bytesOf(
    directory, 'PK', 6, 6, little(44, 8), 0, 0, 0, 0, new Uint8Array(8), little(nEntries, 8), little(nEntries, 8), little(directory.length, 8), little(start, 8),
    'PK', 6, 7, new Uint8Array(4), little(start + directory.length, 8), little(1, 4), 'PK', 5, 6, new Uint8Array(4), 0xff, 0xff, 0xff, 0xff, SEE_ZIP64, SEE_ZIP64, 0, 0
  )
  const pieces = [...Array.from({ length: nEntries }, (_, i) => ({ at: i * entryBytes, bytes: header(i) })), { at: start, bytes: end }]
  const byteLength = start + end.length
  let readBytes = 0
  return {
    readBytes: () => readBytes,
    source: {
      name: 'huge.bin', byteLength,
      async read(from, to) {
        checkRange({ name: 'huge.bin', byteLength }, from, to)
        readBytes += to - from
        const bytes = new Uint8Array(to - from)
        for (const piece of pieces) {
          const shown = piece.bytes.subarray(Math.max(0, from - piece.at), Math.max(0, to - piece.at))
          if (shown.length > 0) bytes.set(shown, Math.max(0, piece.at - from))
        }
        return bytes
      },
      async close() {}
    }
  }
}

describe('refused', () => {
  test.each([
    '', 'a', '/a', 'r/', 'r//a', '../a', 'r/..', 'r/../a', './a', 'r/.', 'r\\a', 'r/..\\a', 'C:/a', 'r/a\u0000', 'r/\n'
  ])('the path %j', async (name) => {
    await expect(read(zip([{ ...A, name }]))).rejects.toMatchObject({ name: 'CheckpointError', place: 'm.bin, zip entry 0', expected: 'a plain path in a folder', got: JSON.stringify(name) })
  })

  test.each<[string, readonly ZipFile[], object]>([
    ['a name that is not UTF-8', [{ ...A, recordName: Uint8Array.of(0xc3, 0x28, 0x2f) }], { expected: 'text in UTF-8' }], ['two folders', [A, { ...B, name: 's/b' }], { expected: 'a path in the folder "r"', got: '"s/b"' }],
    ['a path twice', [A, A], { expected: 'each path once', got: '"r/a" again' }], ['a name that the header has not', [{ ...A, recordName: utf8('r/c') }], { place: 'm.bin, c' }],
    ['a longer name than the header has', [{ ...A, recordName: utf8('r/aa') }], { place: 'm.bin, aa' }], ['a header that is none', [{ ...A, header: { 0: [0x51] } }], { place: 'm.bin, a' }],
    ['a size that the header has not', [{ ...A, header: { 18: [6] } }], { place: 'm.bin, a' }], ['no size in the header', [{ ...A, header: { 18: [0], 22: [0] } }], { place: 'm.bin, a' }],
    ['compression that the directory hides', [{ ...A, header: { 8: [8] } }], { place: 'm.bin, a' }], ['more bytes than stored', [{ ...A, record: { 24: [0xff, 0xff, 0xff, 0x7f] } }], { got: '5 bytes' }],
    ['a size beyond the file', [{ ...A, record: { 20: [0xff, 0xff, 0xff, 0x7f], 24: [0xff, 0xff, 0xff, 0x7f] } }], { expected: expect.stringContaining('2147483647 bytes before the directory') }],
    ['a name that reaches beyond the directory', [{ ...A, record: { 28: [0xff, 0xff] } }], { place: 'm.bin, zip entry 0', expected: 'a record within the directory' }],
    ['a record that is none', [A, { ...B, record: { 0: [0] } }], { place: 'm.bin, zip entry 1', got: 'other bytes' }],
    ['a header beyond the file', [{ ...A, record: { 42: [0xff, 0xff, 0xff, 0x7f] } }], { got: 'a header at 2147483647' }], ['another disk', [{ ...A, record: { 34: [1] } }], { expected: 'an archive on one disk' }],
    ['zip64 sizes without their field', [{ ...A, record: { 24: SEE_ZIP64 } }], { expected: 'its sizes in a zip64 field', got: 'none' }],
    ['a zip64 field that ends early', [{ ...A, record: { 24: SEE_ZIP64, 20: SEE_ZIP64 }, recordExtra: bytesOf(1, 0, 8, 0, little(5, 8)) }], { got: 'a shorter field' }],
    ['a zip64 field that reaches beyond its record', [{ ...A, record: { 24: SEE_ZIP64 }, recordExtra: bytesOf(1, 0, 9, 0, little(5, 8)) }], { got: 'none' }],
    ['a zip64 size of 2^60', [{ ...A, record: { 24: SEE_ZIP64, 20: SEE_ZIP64 }, recordExtra: bytesOf(1, 0, 16, 0, little(2n ** 60n, 8), little(2n ** 60n, 8)) }], { expected: 'sizes below 2^53' }],
    ['a zip64 size of 2^52', [{ ...A, record: { 24: SEE_ZIP64, 20: SEE_ZIP64 }, recordExtra: bytesOf(1, 0, 16, 0, little(2n ** 52n, 8), little(2n ** 52n, 8)) }], { place: 'm.bin, a' }]
  ])('%s', async (_, files, error) => {
    await expect(read(zip(files))).rejects.toMatchObject({ name: 'CheckpointError', ...error })
  })

  test('entries that overlap', async () => {
    // The second header is in the first one's data.
    const inner = zip([B]).subarray(0, 64 + 4)
    const size = little(5 + inner.length, 4)
    const file = zip([{ name: 'r/a', data: bytesOf('alpha', inner) }, { ...B, record: { 42: little(64 + 5, 4) } }])
    expect((await read(zip([{ name: 'r/a', data: bytesOf('alpha', inner), record: { 20: size, 24: size } }]))).size).toBe(1)
    await expect(read(file)).rejects.toMatchObject({ name: 'CheckpointError', place: 'm.bin, a', expected: 'an end before 69, where data/b begins' })
    // Both are one and the same place.
    await expect(read(zip([A, { ...A, name: 'r/c', record: { 42: little(0, 4) } }]))).rejects.toMatchObject({ name: 'CheckpointError' })
    // The padding of the last reaches into the directory.
    await expect(read(zip([{ ...A, header: { 28: [0xff, 0xff] } }]))).rejects.toMatchObject({ name: 'CheckpointError', place: 'm.bin, a', expected: expect.stringContaining('where the directory begins') })
  })

  test.each<[string, readonly ZipFile[], string]>([
    ['an encrypted entry', [{ ...A, record: { 8: [1] } }], 'an encrypted one'], ['a deflated entry, a bomb or not', [{ ...A, record: { 10: [8], 24: [0xff, 0xff, 0xff, 0x7f] } }], 'compression method 8'],
    ['a method that nobody knows', [{ ...A, record: { 10: [0xff, 0xff] } }], 'compression method 65535']
  ])('%s, as unsupported', async (_, files, got) => {
    await expect(read(zip(files))).rejects.toMatchObject({ name: 'UnsupportedError', place: 'm.bin, r/a', got })
  })

  const directoryBytes = 2 * 46 + 'r/ar/data/b'.length
  test.each<[string, ZipOptions, object]>([
    ['a comment', { end: { 20: [1] } }, { expected: expect.stringContaining('its end record') }], ['no end', { end: { 0: [0] } }, { expected: expect.stringContaining('its end record') }],
    ['a disk', { end: { 4: [1] } }, { expected: 'an archive on one disk' }], ['entries on other disks', { end: { 8: [1] } }, { expected: 'an archive on one disk' }],
    ['too few entries', { end: { 8: [1], 10: [1] } }, { place: 'm.bin, zip directory' }],
    ['too many entries', { end: { 8: [3], 10: [3] } }, { expected: 'at most 2 entries', got: '3' }], ['65535 entries', { end: { 8: [0xff, 0xff, 0xff, 0xff] } }, { got: '65535' }],
    ['a directory elsewhere', { end: { 16: [0] } }, { expected: expect.stringContaining('a directory that ends at') }], ['a directory of 4 GiB', { end: { 12: SEE_ZIP64 } }, { expected: expect.stringContaining('a directory that ends at') }],
    ['a gap after the directory', { afterDirectory: new Uint8Array(8) }, { expected: expect.stringContaining('a directory that ends at') }],
    ['zip64: another size', { isZip64: true, end: { 40: little(directoryBytes + 1, 8) } }, { expected: 'the same in its zip64 record' }], ['zip64: another start', { isZip64: true, end: { 48: [1] } }, { expected: 'the same in its zip64 record' }],
    ['zip64: 2^60 entries', { isZip64: true, end: { 24: little(2n ** 60n, 8), 32: little(2n ** 60n, 8) } }, { expected: 'numbers below 2^53' }],
    ['zip64: 2^50 entries', { isZip64: true, end: { 24: little(2n ** 50n, 8), 32: little(2n ** 50n, 8), 84: SEE_ZIP64 } }, { expected: 'at most 2 entries' }],
    ['zip64: a record elsewhere', { isZip64: true, end: { 64: [0] } }, { expected: expect.stringContaining('its zip64 record at') }], ['zip64: no record', { isZip64: true, end: { 0: [0] } }, { expected: 'a zip64 record of 56 bytes' }],
    ['zip64: a longer record', { isZip64: true, end: { 4: [45] } }, { expected: 'a zip64 record of 56 bytes' }], ['zip64: two disks', { isZip64: true, end: { 72: [2] } }, { expected: 'an archive on one disk' }],
    ['zip64: another disk', { isZip64: true, end: { 16: [1] } }, { expected: 'the same in its zip64 record' }], ['zip64: a record that is not found', { isZip64: true, end: { 56: [0] } }, { expected: expect.stringContaining('a directory that ends at') }]
  ])('%s', async (_, options, error) => {
    await expect(read(zip([A, B], options))).rejects.toMatchObject({ name: 'CheckpointError', ...error })
  })

  test('a directory beyond the limit, before it is read', async () => {
    const { source, readBytes } = hugeArchive(1, 5)
    const end = bytesOf('PK', 5, 6, new Uint8Array(4), 1, 0, 1, 0, little(2 ** 30, 4), little(0, 4), 0, 0)
    const lying: ByteSource = { ...source, byteLength: 2 ** 30 + 22, read: async (from, to) => (to - from > 1000 ? source.read(from, to) : bytesOf(new Uint8Array(to - from - 22), end)) }
    await expect(readTorchZip(lying)).rejects.toMatchObject({ name: 'CheckpointError', expected: 'a directory of at most 16777216 bytes' })
    expect(readBytes()).toBe(0)
  })

  test.each([['short', false], ['zip64', true]] as const)('every truncation of a %s archive, and every one with a byte more', async (_, isZip64) => {
    const file = zip([A, B], { isZip64 })
    for (let length = 0; length < file.length; length++) {
      await expect(read(file.slice(0, length)), `${length} bytes`).rejects.toMatchObject({ name: 'CheckpointError' })
      await expect(read(file.slice(length + 1)), `from ${length + 1} on`).rejects.toMatchObject({ name: 'CheckpointError' })
    }
    await expect(read(bytesOf(file, 0))).rejects.toMatchObject({ name: 'CheckpointError' })
  })
})
