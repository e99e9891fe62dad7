/** Folders as checkpoints: the fixtures, indexes that lie, files that stay open. */
import { describe, expect, test } from 'vitest'
import type { ByteSource, FileSet } from '../../src/checkpoint/byte-source.ts'
import { recordFiles } from '../../src/checkpoint/file-set.ts'
import { openCheckpoint } from '../../src/checkpoint/open-checkpoint.ts'
import { writeSafetensors } from '../support/safetensors-writer.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { folderFiles } from '../../src/platform/node-files.ts'
import { modelFolder, modelSet, rawSafetensors, utf8 } from './helpers.ts'

describe('openCheckpoint', () => {
  test.each([
    ['mamba', 'F32', 32, 140032],
    ['mamba_bias_untied', 'F32', 40, 152480],
    ['mamba_bf16', 'BF16', 32, 70016],
    ['mamba_f16', 'F16', 32, 70016],
    ['mamba_sharded', 'F32', 32, 140032]
  ])('opens %s', async (name, dtype, hiddenSize, totalBytes) => {
    const checkpoint = await openCheckpoint(folderFiles(modelFolder(name)))
    expect(checkpoint.config['model_type']).toBe('mamba')
    expect(checkpoint.config['hidden_size']).toBe(hiddenSize)
    expect(checkpoint.tensors.get('backbone.embeddings.weight')).toMatchObject({ dtype, shape: [checkpoint.config['vocab_size'], hiddenSize] })
    expect(checkpoint.totalBytes).toBe(totalBytes)
    expect(checkpoint.name).toBe(modelFolder(name))
    await checkpoint.close()
  })

  test('finds the same numbers in shards as in one file', async () => {
    const whole = await openCheckpoint(folderFiles(modelFolder('mamba')))
    const sharded = await openCheckpoint(folderFiles(modelFolder('mamba_sharded')))
    expect([...sharded.tensors.keys()].sort()).toEqual([...whole.tensors.keys()].sort())
    for (const [name, entry] of whole.tensors) {
      expect(await readWholeTensor(sharded.tensors.get(name)!), name).toEqual(await readWholeTensor(entry))
    }
    await Promise.all([whole.close(), sharded.close()])
  })

  test('names the files it looked for', async () => {
    await expect(openCheckpoint(recordFiles({}))).rejects.toThrow('files: expected a file config.json or model.gguf, got none')
    await expect(openCheckpoint(folderFiles(modelFolder('nowhere')))).rejects.toMatchObject({ place: modelFolder('nowhere') })
    await expect(openCheckpoint(recordFiles({ 'config.json': utf8('{}') }))).rejects.toMatchObject({
      name: 'CheckpointError',
      place: 'files',
      expected: 'a file model.safetensors or model.safetensors.index.json or pytorch_model.bin or pytorch_model.bin.index.json or model.gguf',
      got: 'none'
    })
  })

  test.each([
    ['', 'config.json, offset 0'],
    ['[]', 'config.json'],
    ['{"hidden_size": 1, "hidden_size": 2}', 'config.json, offset 19'],
    ['{"hidden_size": }', 'config.json, offset 16']
  ])('refuses the config %j', async (text, place) => {
    await expect(openCheckpoint(modelSet('mamba', { 'config.json': utf8(text) }))).rejects.toMatchObject({ name: 'CheckpointError', place })
  })

  test('passes the signal on', async () => {
    const reason = new Error('enough')
    await expect(openCheckpoint(folderFiles(modelFolder('mamba')), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
  })
})

function tensor(name: string) {
  return { name, dtype: 'F32', shape: [1], data: Float32Array.of(1) }
}

describe('an index', () => {
  const shard1 = writeSafetensors([tensor('a'), tensor('b')])
  const shard2 = writeSafetensors([tensor('c')])
  const goodMap = { a: '1.safetensors', b: '1.safetensors', c: '2.safetensors' }
  const openSharded = (index: unknown, changes: Record<string, Uint8Array> = {}) =>
    openCheckpoint(
      recordFiles({
        'config.json': utf8('{}'),
        'model.safetensors.index.json': utf8(typeof index === 'string' ? index : JSON.stringify(index)),
        '1.safetensors': shard1,
        '2.safetensors': shard2,
        ...changes
      })
    )

  test('opens the shards it names', async () => {
    const { tensors, totalBytes } = await openSharded({ weight_map: goodMap })
    expect([...tensors.keys()]).toEqual(['a', 'b', 'c'])
    expect(totalBytes).toBe(12)
  })

  test.each(['../1.safetensors', '/1.safetensors', '..', '', 'sub/1.safetensors', String.raw`..\1.safetensors`, 'C:1.safetensors', 'https://host/1', '1.safetensors\u0000'])(
    'refuses the shard name %j, and opens nothing of that name',
    async (shard) => {
      const asked: string[] = []
      const inner = recordFiles({ 'config.json': utf8('{}'), 'model.safetensors.index.json': utf8(JSON.stringify({ weight_map: { ...goodMap, b: shard } })), '1.safetensors': shard1 })
      const files: FileSet = { name: 'files', open: (name) => (asked.push(name), inner.open(name)) }
      await expect(openCheckpoint(files)).rejects.toMatchObject({
        name: 'CheckpointError',
        place: 'model.safetensors.index.json, weight_map, b',
        expected: 'the name of a file in the same folder',
        got: JSON.stringify(shard)
      })
      expect(asked).toEqual(['config.json', 'model.safetensors', 'model.safetensors.index.json'])
    }
  )

  test.each([
    ['no object', '[]', { place: 'model.safetensors.index.json' }],
    ['no weight_map', {}, { place: 'model.safetensors.index.json, weight_map', got: 'undefined' }],
    ['a number for a shard', { weight_map: { ...goodMap, a: 1 } }, { place: 'model.safetensors.index.json, weight_map, a', got: '1' }],
    ['a name twice', '{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}', { expected: 'each key once', got: '"a" again' }],
    ['a shard that is not there', { weight_map: { ...goodMap, d: '3.safetensors' } }, { place: 'model.safetensors.index.json', expected: 'a file 3.safetensors beside it' }],
    ['a tensor in the wrong shard', { weight_map: { ...goodMap, b: '2.safetensors' } }, { place: '1.safetensors, b', expected: 'in 2.safetensors by weight_map', got: 'it in 1.safetensors' }],
    ['a tensor that is in no shard', { weight_map: { ...goodMap, d: '1.safetensors' } }, { place: 'model.safetensors.index.json, d', expected: 'it in 1.safetensors' }],
    ['too few tensors', { weight_map: { a: '1.safetensors', c: '2.safetensors' } }, { place: '1.safetensors, b', expected: 'not in weight_map' }]
  ])('with %s is refused', async (_, index, parts) => {
    await expect(openSharded(index)).rejects.toMatchObject({ name: 'CheckpointError', ...parts })
  })

  test('is refused when two shards hold one tensor', async () => {
    const both = { '2.safetensors': writeSafetensors([tensor('c'), tensor('a')]) }
    await expect(openSharded({ weight_map: goodMap }, both)).rejects.toMatchObject({ name: 'CheckpointError', place: '2.safetensors, a', got: 'it in 2.safetensors' })
  })

  test('is refused when a shard is damaged', async () => {
    await expect(openSharded({ weight_map: goodMap }, { '2.safetensors': shard2.slice(0, -1) })).rejects.toMatchObject({ place: '2.safetensors, c, data_offsets' })
  })
})

/** A set that counts what is open. */
function counting(inner: FileSet) {
  const counts = { opened: 0, open: 0 }
  const files: FileSet = {
    name: inner.name,
    async open(name, signal): Promise<ByteSource | undefined> {
      const source = await inner.open(name, signal)
      if (source === undefined) return undefined
      counts.opened++
      counts.open++
      return {
        ...source,
        async close() {
          counts.open--
        }
      }
    }
  }
  return { files, counts }
}

describe('files', () => {
  test('are all closed by close, once', async () => {
    const { files, counts } = counting(modelSet('mamba_sharded'))
    const checkpoint = await openCheckpoint(files)
    expect(counts).toEqual({ opened: 12, open: 12 })
    await checkpoint.close()
    await checkpoint.close()
    expect(counts.open).toBe(0)
  })

  test('are all closed after an error', async () => {
    const { files, counts } = counting(modelSet('mamba_sharded', { 'model-00007-of-00010.safetensors': rawSafetensors('{') }))
    await expect(openCheckpoint(files)).rejects.toMatchObject({ name: 'CheckpointError' })
    expect(counts.opened).toBeGreaterThan(7)
    expect(counts.open).toBe(0)
  })
})
