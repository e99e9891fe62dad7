/** torch.save files as tensor tables: the fixture, every kind of state dict that is read, and what is refused. */
import { describe, expect, test } from 'vitest'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { recordFiles } from '../../src/checkpoint/file-set.ts'
import { openCheckpoint } from '../../src/checkpoint/open-checkpoint.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { readTorchTensors } from '../../src/checkpoint/torch.ts'
import { folderFiles } from '../../src/platform/node-files.ts'
import { modelFiles, modelFolder, utf8 } from './helpers.ts'
import { bytesOf, op, pickleFixture, stateDict, tensor, torchFile, zip, type TensorSpec } from './torch-file.ts'

const read = (file: Uint8Array) => readTorchTensors(bytesSource(file, 'm.bin'))
const readOne = async (spec: TensorSpec, bytes = 24) => (await read(torchFile(stateDict(['w', tensor(spec)]), { 0: new Uint8Array(bytes) })))[0]
const numbers = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer)

describe('the fixture', () => {
  test('has the numbers of the same model in safetensors', async () => {
    const torch = await openCheckpoint(folderFiles(modelFolder('mamba_original')))
    const safetensors = await openCheckpoint(folderFiles(modelFolder('mamba')))
    const names = [...safetensors.tensors.keys()].map((name) => name.replace('embeddings', 'embedding'))
    expect([...torch.tensors.keys()].sort()).toEqual([...names, 'lm_head.weight'].sort())
    for (const [name, entry] of safetensors.tensors) {
      const other = torch.tensors.get(name.replace('embeddings', 'embedding'))!
      expect(other, name).toMatchObject({ dtype: 'F32', shape: [entry.shape[0] === 157 ? 160 : entry.shape[0], ...entry.shape.slice(1)] })
      expect((await readWholeTensor(other)).subarray(0, entry.byteLength / 4), name).toEqual(await readWholeTensor(entry))
    }
    const [embedding, head] = ['backbone.embedding.weight', 'lm_head.weight'].map((name) => torch.tensors.get(name)!)
    expect(head).toEqual({ ...embedding, name: 'lm_head.weight' })
    await Promise.all([torch.close(), safetensors.close()])
  })
})

describe('a state dict', () => {
  test.each([
    ['DoubleStorage', 'F64', 8], ['FloatStorage', 'F32', 4], ['HalfStorage', 'F16', 2], ['BFloat16Storage', 'BF16', 2], ['LongStorage', 'I64', 8],
    ['IntStorage', 'I32', 4], ['ShortStorage', 'I16', 2], ['CharStorage', 'I8', 1], ['ByteStorage', 'U8', 1], ['BoolStorage', 'BOOL', 1]
  ])('of %s', async (type, dtype, elementBytes) => {
    expect(await readOne({ type }, 6 * elementBytes)).toMatchObject({ name: 'w', dtype, shape: [2, 3], byteLength: 6 * elementBytes })
  })

  test('with views of one storage', async () => {
    const pickle = stateDict(['a', tensor({ shape: [2], strides: [1] })], ['b', tensor({ offset: 4, shape: [2], strides: [1], isParameter: true })], ['c', tensor()])
    const entries = await read(torchFile(pickle, { 0: numbers(1, 2, 3, 4, 5, 6) }))
    expect(await Promise.all(entries.map(async (entry) => [...(await readWholeTensor(entry))]))).toEqual([[1, 2], [5, 6], [1, 2, 3, 4, 5, 6]])
  })

  test.each<[string, TensorSpec, number]>([
    ['a scalar', { shape: [], strides: [], nElements: 1 }, 4], ['no elements', { shape: [0, 3], strides: [3, 1], nElements: 0 }, 0],
    ['any stride where there is one element', { shape: [1, 6, 1], strides: [77, 1, 99] }, 24], ['empty metadata', { more: [op.dict()] }, 24], ['no metadata', { more: [op.none] }, 24]
  ])('with %s', async (_, spec, bytes) => {
    expect(await readOne(spec, bytes)).toMatchObject({ shape: spec.shape ?? [2, 3], byteLength: bytes })
  })

  test('with the metadata of a module, and in an OrderedDict', async () => {
    const metadata = op.dict([op.text('_metadata'), [op.orderedDict(), '(', op.text(''), op.dict([op.text('version'), op.int(1)]), 'u']])
    const pickle = bytesOf(op.proto(2), op.orderedDict(), '(', op.text('w'), tensor(), 'u', metadata, 'b', op.stop)
    expect(await read(torchFile(pickle))).toMatchObject([{ name: 'w' }])
  })

  test('without a word about the order of bytes', async () => {
    const file = zip([{ name: 'a/data.pkl', data: stateDict(['w', tensor()]) }, { name: 'a/data/0', data: new Uint8Array(24) }])
    expect(await read(file)).toMatchObject([{ name: 'w' }])
  })
})

test.each([2, 3, 4])("Python's own pickle of 1002 tensors in protocol %i", async (protocol) => {
  const entries = await read(torchFile(pickleFixture(`state-dict-${protocol}.pkl`), { 0: numbers(1, 2, 3, 4, 5, 6), 1: numbers(7, 8, 9, 10, 11, 12) }))
  expect(entries.map((entry) => entry.name)).toEqual(Array.from({ length: 1002 }, (_, i) => `layers.${i}.weight`))
  expect([...(await readWholeTensor(entries[1001]))]).toEqual([7, 8, 9, 10, 11, 12])
})

describe('refused', () => {
  test.each<[string, TensorSpec, string, string]>([
    ['a transposed matrix', { shape: [3, 2], strides: [1, 3] }, 'UnsupportedError', 'strides [1, 3]'],
    ['a matrix with gaps', { shape: [2, 2], strides: [3, 1] }, 'UnsupportedError', 'strides [3, 1]'],
    ['an expanded vector', { shape: [1000000, 6], strides: [0, 1] }, 'UnsupportedError', 'strides [0, 1]'],
    ['more elements than the storage', { shape: [7], strides: [1] }, 'CheckpointError', '7 from 0 on'],
    ['an offset beyond the storage', { offset: 5, shape: [2], strides: [1] }, 'CheckpointError', '2 from 5 on'],
    ['a storage of another length', { nElements: 7 }, 'CheckpointError', '24 bytes'],
    ['a storage that is not there', { key: '1' }, 'CheckpointError', 'none'],
    ['a key that is a path', { key: '../data.pkl' }, 'CheckpointError', 'none']
  ])('%s', async (_, spec, name, got) => {
    await expect(readOne(spec)).rejects.toMatchObject({ name, place: 'm.bin, w', got })
  })

  test.each<[string, TensorSpec, string]>([
    ['strides of another rank', { strides: [1] }, 'CheckpointError'], ['a negative size', { shape: [-2, 3] }, 'CheckpointError'],
    ['a negative stride', { strides: [-3, 1] }, 'CheckpointError'], ['a negative offset', { offset: -1 }, 'CheckpointError'],
    ['a storage of negative length', { nElements: -6 }, 'CheckpointError'], ['sizes beyond 2^53', { shape: [2 ** 30, 2 ** 30], strides: [2 ** 30, 1] }, 'CheckpointError'],
    ['values negated by metadata', { more: [op.dict([op.text('neg'), op.true])] }, 'UnsupportedError'], ['too many arguments', { more: [op.none, op.none] }, 'CheckpointError'],
    ['a storage of a type that is a function', { type: 'OrderedDict' }, 'UnsupportedError']
  ])('%s', async (_, spec, name) => {
    await expect(readOne(spec)).rejects.toMatchObject({ name })
  })

  test('a storage of two types', async () => {
    const pickle = stateDict(['a', tensor()], ['b', tensor({ type: 'IntStorage' })])
    await expect(read(torchFile(pickle))).rejects.toMatchObject({ name: 'CheckpointError', expected: 'storage "0" again of 6 F32', got: '6 I32' })
  })

  test.each<[string, Uint8Array, string, string]>([
    ['a tensor alone', bytesOf(op.proto(2), tensor(), op.stop), 'm.bin, data.pkl', 'a tensor'],
    ['a training checkpoint', stateDict(['model', op.dict([op.text('w'), tensor()])], ['step', op.int(7)]), 'm.bin, model', 'a dict'],
    ['a number beside the tensors', stateDict(['w', tensor()], ['step', op.int(7)]), 'm.bin, step', '7']
  ])('%s', async (_, pickle, place, got) => {
    await expect(read(torchFile(pickle))).rejects.toMatchObject({ name: 'UnsupportedError', place, got })
  })

  test.each<[string, Uint8Array, object]>([
    ['a big-endian file', torchFile(stateDict(), {}, 'big'), { name: 'UnsupportedError', place: 'm.bin, byteorder', got: 'a big-endian one' }],
    ['an order of bytes that is none', torchFile(stateDict(), {}, 'middle'), { name: 'CheckpointError', place: 'm.bin, byteorder' }],
    ['a long order of bytes', torchFile(stateDict(), {}, 'little'.repeat(9)), { name: 'CheckpointError', place: 'm.bin, byteorder', got: '54 bytes' }],
    ['the older format', bytesOf(0x80, 2, 0x8a, 0x0a, [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19], '.', new Uint8Array(99)), { name: 'UnsupportedError', got: expect.stringContaining('torch.save(torch.load(') }],
    ['a pointer of git-lfs', utf8('version https://git-lfs.github.com/spec/v1\n'), { name: 'CheckpointError', place: 'm.bin', got: expect.stringContaining('version https') }],
    ['nothing', new Uint8Array(0), { name: 'CheckpointError', place: 'm.bin' }],
    ['a zip of something else', zip([{ name: 'a/b', data: utf8('hello') }]), { name: 'CheckpointError', place: 'm.bin, data.pkl', got: 'none' }]
  ])('%s', async (_, file, error) => {
    await expect(read(file)).rejects.toMatchObject(error)
  })

  test('a pickle beyond the limit, before it is read', async () => {
    const file = zip([{ name: 'a/data.pkl', data: new Uint8Array(2 ** 24 + 1) }])
    await expect(read(file)).rejects.toMatchObject({ name: 'CheckpointError', place: 'm.bin, data.pkl', got: '16777217 bytes' })
  })
})

describe('files beside each other', () => {
  const part = (name: string, value: number) => torchFile(stateDict([name, tensor()]), { 0: numbers(value, 2, 3, 4, 5, 6) })
  const files = { 'config.json': utf8('{}'), '1.bin': part('a', 1), '2.bin': part('b', 2) }
  const open = (weightMap: object) => openCheckpoint(recordFiles({ ...files, 'pytorch_model.bin.index.json': utf8(JSON.stringify({ weight_map: weightMap })) }))

  test('are shards by an index', async () => {
    const { tensors, totalBytes } = await open({ a: '1.bin', b: '2.bin' })
    expect([[...tensors.keys()], totalBytes]).toEqual([['a', 'b'], 48])
    expect((await readWholeTensor(tensors.get('b')!))[0]).toBe(2)
  })

  test('must hold what the index says', async () => {
    await expect(open({ a: '2.bin', b: '2.bin' })).rejects.toMatchObject({ name: 'CheckpointError', place: 'pytorch_model.bin.index.json, a', expected: 'it in 2.bin' })
    await expect(open({ a: '1.bin', c: '2.bin' })).rejects.toMatchObject({ name: 'CheckpointError', place: '2.bin, b', expected: 'not in weight_map' })
    await expect(open({ a: '1.bin' })).resolves.toMatchObject({ totalBytes: 24 })
    await expect(open({ a: '../1.bin' })).rejects.toMatchObject({ name: 'CheckpointError', got: '"../1.bin"' })
  })

  test('safetensors come first', async () => {
    const { tensors } = await openCheckpoint(recordFiles({ ...modelFiles('mamba'), 'pytorch_model.bin': utf8('no zip') }))
    expect(tensors.size).toBe(32)
  })
})
