/** Sources and file sets that need no network: ranges, names, what is missing. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync, mkdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { blobSource, bytesSource, decodeText, readText, type ByteSource } from '../../src/checkpoint/byte-source.ts'
import { isPlainFileName, recordFiles, urlFiles } from '../../src/checkpoint/file-set.ts'
import { fileSource, folderFiles } from '../../src/platform/node-files.ts'
import { utf8 } from './helpers.ts'

const folder = mkdtempSync(join(tmpdir(), 'mamba-files-'))
afterAll(() => rmSync(folder, { recursive: true }))

const BYTES = Uint8Array.from({ length: 1000 }, (_, i) => i % 251)
writeFileSync(join(folder, 'f'), BYTES)

const SHARED = new Uint8Array(new SharedArrayBuffer(1000))
SHARED.set(BYTES)

const SOURCES: readonly [string, () => Promise<ByteSource>][] = [
  ['bytes', async () => bytesSource(BYTES)],
  ['a view that starts within its buffer', async () => bytesSource(Uint8Array.from([9, ...BYTES]).subarray(1))],
  ['an ArrayBuffer', async () => bytesSource(BYTES.slice().buffer)],
  ['shared memory', async () => bytesSource(SHARED)],
  ['a Blob', async () => blobSource(new Blob([BYTES]))],
  ['a file', () => fileSource(join(folder, 'f'))]
]

describe.each(SOURCES)('a source over %s', (_, open) => {
  test('reads any range', async () => {
    const source = await open()
    expect(source.byteLength).toBe(1000)
    for (const [start, end] of [[0, 1000], [0, 0], [1000, 1000], [999, 1000], [3, 700]]) {
      const bytes = await source.read(start, end)
      expect([...bytes]).toEqual([...BYTES.subarray(start, end)])
      expect(bytes.buffer).toBeInstanceOf(ArrayBuffer)
    }
    await source.close()
  })

  test('refuses what it does not hold, and what is no range', async () => {
    const source = await open()
    await expect(source.read(990, 1001)).rejects.toMatchObject({ name: 'CheckpointError', place: source.name, expected: 'at least 1001 bytes', got: '1000 bytes' })
    for (const [start, end] of [[-1, 5], [6, 5], [0, 0.5], [NaN, 1], [0, 2 ** 31]]) {
      await expect(source.read(start, end), `${start} to ${end}`).rejects.toBeInstanceOf(RangeError)
    }
    await source.close()
  })

  test('does not read when aborted', async () => {
    const source = await open()
    const reason = new Error('enough')
    await expect(source.read(0, 10, AbortSignal.abort(reason))).rejects.toBe(reason)
    await source.close()
  })
})

describe('fileSource', () => {
  test('says when a file has shrunk', async () => {
    writeFileSync(join(folder, 'shrinks'), BYTES)
    const source = await fileSource(join(folder, 'shrinks'))
    truncateSync(join(folder, 'shrinks'), 600)
    await expect(source.read(500, 700)).rejects.toMatchObject({ name: 'CheckpointError', got: '600 bytes' })
    await source.close()
  })

  test('refuses what is not there, and folders', async () => {
    await expect(fileSource(join(folder, 'none'))).rejects.toMatchObject({ name: 'CheckpointError', place: join(folder, 'none'), got: 'none' })
    await expect(fileSource(folder)).rejects.toMatchObject({ name: 'CheckpointError', got: 'something else, e.g. a folder' })
  })
})

const BAD_NAMES = ['', '.', '..', '../f', '/etc/passwd', 'a/b', 'a\\b', '..\\f', 'C:f', 'f\u0000', 'f\n', 'x'.repeat(256)]

describe('file sets', () => {
  mkdirSync(join(folder, 'inner'))
  writeFileSync(join(folder, 'inner', 'g'), 'g')
  const sets = [folderFiles(join(folder, 'inner')), recordFiles({ g: utf8('g') }), urlFiles('http://127.0.0.1:9/none')]

  test.each(BAD_NAMES)('refuse the name %j', async (name) => {
    expect(isPlainFileName(name)).toBe(false)
    for (const set of sets) await expect(set.open(name), set.name).rejects.toBeInstanceOf(RangeError)
  })

  test.each(['config.json', 'model-00001-of-00002.safetensors', '..a', 'a..b', 'ü 1', '__proto__'])('take the name %j', (name) => {
    expect(isPlainFileName(name)).toBe(true)
  })

  test('have undefined for what is not there', async () => {
    for (const set of sets.slice(0, 2)) {
      expect(await set.open('none')).toBeUndefined()
      expect(await set.open('toString')).toBeUndefined()
      const source = await set.open('g')
      expect(await readText(source!, 10)).toBe('g')
      await source!.close()
    }
    expect(await folderFiles(join(folder, 'none')).open('f')).toBeUndefined()
    expect(await folderFiles(join(folder, 'f')).open('f')).toBeUndefined()
  })

  test('of a record take bytes, buffers, blobs and sources', async () => {
    const set = recordFiles({ a: utf8('a'), b: utf8('b').slice().buffer, c: new Blob(['c']), d: bytesSource(utf8('d'), 'mine') })
    for (const name of ['a', 'b', 'c', 'd']) expect(await readText((await set.open(name))!, 10)).toBe(name)
    expect((await set.open('a'))!.name).toBe('a')
    expect((await set.open('d'))!.name).toBe('mine')
  })

  test('of a record refuse other values, names and addresses at once', () => {
    for (const value of ['1', 'null', '{}', '[1]', '"model.safetensors"', '"file:///etc/passwd"', '"ftp://host/f"']) {
      const files: Record<string, Uint8Array> = JSON.parse(`{"a": ${value}}`)
      expect(() => recordFiles(files), value).toThrow(TypeError)
    }
    expect(() => recordFiles({ '../a': utf8('') })).toThrow(RangeError)
    expect(() => urlFiles('models/tiny')).toThrow(TypeError)
  })
})

describe('text', () => {
  test('is bounded and UTF-8', async () => {
    await expect(readText(bytesSource(utf8('12345'), 't'), 4)).rejects.toThrow('t: expected at most 4 bytes, got 5 bytes')
    expect(() => decodeText(Uint8Array.of(0xc0, 0x80), 't')).toThrow('t: expected text in UTF-8')
  })
})
