/** A GGUF model in several files: one model, or files that do not belong together. */
import { describe, expect, test } from 'vitest'
import { bytesSource, type ByteSource } from '../../src/checkpoint/byte-source.ts'
import { readGgufModel } from '../../src/checkpoint/gguf-model.ts'
import type { GgufValue } from '../../src/checkpoint/gguf-types.ts'
import { ggufBytes, type GgufTensor } from '../../src/checkpoint/gguf-writer.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { CheckpointError } from '../../src/errors.ts'

const splitKeys = (no: number, count: number, total = 2): Map<string, GgufValue> => new Map<string, GgufValue>([
  ['split.no', { type: 'uint16', value: no }], ['split.count', { type: 'uint16', value: count }], ['split.tensors.count', { type: 'int32', value: total }]
])
const scalar = (name: string, value: number): GgufTensor => ({ name, dtype: 'F32', shape: [1], async *bytes() { yield new Uint8Array(Float32Array.of(value).buffer) } })
const part = (no: number, count: number, tensors: GgufTensor[], total = 2) => ggufBytes({ metadata: splitKeys(no, count, total), tensors })

async function openParts(files: Record<string, Uint8Array>, fileName = 'm-00001-of-00003.gguf') {
  const opened = (name: string): ByteSource | undefined => (files[name] === undefined ? undefined : bytesSource(files[name], name))
  return readGgufModel(bytesSource(files[fileName], fileName), { fileName, open: async (name) => opened(name) })
}

const threeParts = async () => ({
  'm-00001-of-00003.gguf': await part(0, 3, []),
  'm-00002-of-00003.gguf': await part(1, 3, [scalar('a', 1)]),
  'm-00003-of-00003.gguf': await part(2, 3, [scalar('b', 2)])
})

describe('split files', () => {
  test('are one model', async () => {
    const { tensors } = await openParts(await threeParts())
    expect(await Promise.all(tensors.map(async (entry) => [entry.name, ...(await readWholeTensor(entry))]))).toEqual([['a', 1], ['b', 2]])
  })

  test('one that is not split is what it is', async () => {
    const { tensors } = await openParts({ 'm.gguf': await ggufBytes({ metadata: new Map(), tensors: [scalar('a', 1)] }) }, 'm.gguf')
    expect(tensors.map(({ name }) => name)).toEqual(['a'])
  })

  test.each<[string, (files: Record<string, Uint8Array>) => Promise<Record<string, Uint8Array>>, string, string?]>([
    ['a missing one', async (files) => Object.fromEntries(Object.entries(files).slice(0, 2)), 'm-00001-of-00003.gguf: expected a file m-00003-of-00003.gguf beside it, got none'],
    ['two in the wrong order', async (files) => ({ ...files, 'm-00002-of-00003.gguf': files['m-00003-of-00003.gguf'] }), 'm-00002-of-00003.gguf: expected number 2 of 3, got number 3 of 3'],
    ['one of another model', async (files) => ({ ...files, 'm-00002-of-00003.gguf': await part(1, 2, []) }), 'm-00002-of-00003.gguf: expected number 2 of 3, got number 2 of 2'],
    ['a tensor in two', async (files) => ({ ...files, 'm-00002-of-00003.gguf': await part(1, 3, [scalar('b', 1)]) }), 'm-00003-of-00003.gguf, b: expected each tensor in one file, got it again'],
    ['too few tensors', async (files) => ({ ...files, 'm-00001-of-00003.gguf': await part(0, 3, [], 3) }), 'm-00001-of-00003.gguf, split.tensors.count: expected 2, as the files have, got 3'],
    ['the second first', async (files) => files, 'm-00002-of-00003.gguf: expected the first of 3 files, with -00001-of-00003.gguf at the end of its name, got number 2, "m-00002-of-00003.gguf"', 'm-00002-of-00003.gguf'],
    ['a name that does not count', async (files) => ({ 'x.gguf': files['m-00001-of-00003.gguf'] }), 'x.gguf: expected the first of 3 files, with -00001-of-00003.gguf at the end of its name, got number 1, "x.gguf"', 'x.gguf'],
    ['a count beyond names', async () => ({ 'x.gguf': await ggufBytes({ metadata: new Map([['split.count', { type: 'uint32', value: 100_000 }]]), tensors: [] }) }), 'x.gguf, split.count: expected at most 99999, got 100000', 'x.gguf']
  ])('%s is refused', async (_, change, message, first) => {
    const changed = await change(await threeParts())
    await expect(openParts(changed, first)).rejects.toThrow(CheckpointError)
    await expect(openParts(changed, first)).rejects.toThrow(message)
  })
})
