/** Checkpoints as GGUF files of llama.cpp's `mamba` and back: names, shapes, metadata, values in every type. */
import { describe, expect, test } from 'vitest'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { ggufTensorType, modelToGguf } from '../../src/checkpoint/gguf-convert.ts'
import { ggufModel } from '../../src/checkpoint/gguf-model.ts'
import { readGgufHeader } from '../../src/checkpoint/gguf-reader.ts'
import type { GgufValue } from '../../src/checkpoint/gguf-types.ts'
import { ggufBytes, type GgufTensor } from '../../src/checkpoint/gguf-writer.ts'
import { openCheckpoint } from '../../src/checkpoint/open-checkpoint.ts'
import type { EncodedType } from '../../src/checkpoint/quantize.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { exp } from '../../src/elementary.ts'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import { readModelConfig } from '../support/architectures.ts'
import { modelSet } from './helpers.ts'

const u32 = (value: number): GgufValue => ({ type: 'uint32', value })

const TYPES = ['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0'] as const

async function converted(model: string, type: EncodedType, change: { typeOf?: (name: string, type: EncodedType) => EncodedType } = {}) {
  const checkpoint = await openCheckpoint(modelSet(model))
  const config = readModelConfig(checkpoint.config)
  const contents = modelToGguf({ config, tensors: checkpoint.tensors, type, name: 'a model', tokenizer: null, place: model, ...change })
  const file = await ggufBytes(contents)
  const header = await readGgufHeader(bytesSource(file, 'm.gguf'))
  return { checkpoint, config, contents, file, header, model: await ggufModel(header) }
}

/** The largest error of a value in a block whose largest is `size`: of the number, and of the scale as a half. */
function bound(type: string, size: number): number {
  if (type === 'F32') return 0
  if (type === 'F16') return Math.max(size * 2 ** -11, 2 ** -25)
  if (type === 'BF16') return size * 2 ** -8
  const ofScale = Math.max(size * 2 ** -11, 127 * 2 ** -25) + 1e-6 * size
  return (type === 'Q8_0' ? size / 254 : size / 8) + ofScale
}

describe.each(['mamba', 'mamba_f16', 'mamba_bf16', 'mamba_sharded', 'falcon_mamba'])('%s', (name) => {
  test.each(TYPES)('comes back from %s with its config, its names, its shapes, and its values within the type', async (type) => {
    const { checkpoint, config, model } = await converted(name, type)
    expect(readModelConfig(model.config)).toEqual(config)
    const isQuantized = type === 'Q8_0' || type === 'Q4_0'
    const names = [...checkpoint.tensors.keys()].map((name) => name.replace(/A_log$/, 'A'))
    expect(model.tensors.map(({ name }) => name).toSorted()).toEqual(names.toSorted())
    for (const entry of model.tensors) {
      const original = checkpoint.tensors.get(entry.name) ?? checkpoint.tensors.get(`${entry.name}_log`)!
      expect(entry.shape, entry.name).toEqual(original.shape)
      const values = await readWholeTensor(entry)
      const expected = await readWholeTensor(original)
      if (entry.name.endsWith('.A')) {
        // The same bits as loading A_log gives.
        expect(values).toEqual(expected.map((value) => -exp(value)))
        continue
      }
      const block = isQuantized && entry.dtype === type ? 32 : 1
      if (entry.dtype === 'F32' || entry.dtype === original.dtype) expect(values, entry.name).toEqual(expected)
      for (let start = 0; start < values.length; start += block) {
        const size = Math.max(...expected.subarray(start, start + block).map(Math.abs))
        const error = Math.max(...expected.subarray(start, start + block).map((value, i) => Math.abs(values[start + i] - value)))
        if (!(error <= bound(entry.dtype, size))) expect.fail(`${entry.name}, from ${start} on: ${error}`)
      }
    }
  })
})

describe('types', () => {
  test('quantized are the larger matrices; the rest is F32, and the matrix of dt as it was', async () => {
    const { header } = await converted('mamba_f16', 'Q8_0')
    expect(Object.fromEntries(header.tensors.filter(({ name }) => !/^blk\.[1-9]/.test(name)).map(({ name, dtype }) => [name, dtype]))).toEqual({
      'token_embd.weight': 'Q8_0', 'output_norm.weight': 'F32', 'blk.0.attn_norm.weight': 'F32', 'blk.0.ssm_in.weight': 'Q8_0', 'blk.0.ssm_conv1d.weight': 'F32',
      'blk.0.ssm_conv1d.bias': 'F32', 'blk.0.ssm_x.weight': 'Q8_0', 'blk.0.ssm_dt.weight': 'F16', 'blk.0.ssm_dt.bias': 'F32', 'blk.0.ssm_a': 'F32', 'blk.0.ssm_d': 'F32', 'blk.0.ssm_out.weight': 'Q8_0'
    })
  })

  test.each<[string, number[], EncodedType, string, EncodedType]>([
    ['blk.0.ssm_dt.weight', [64, 32], 'Q4_0', 'F32', 'F32'], ['blk.0.ssm_dt.weight', [64, 32], 'F16', 'F32', 'F16'], ['blk.0.ssm_dt.weight', [64, 32], 'Q8_0', 'BF16', 'BF16'],
    ['blk.0.ssm_in.weight', [64, 40], 'Q8_0', 'F32', 'F32'], ['blk.0.ssm_in.weight', [64, 40], 'Q8_0', 'F16', 'F16'], ['blk.0.ssm_in.weight', [64, 40], 'BF16', 'F32', 'BF16'],
    ['blk.0.ssm_in.weight', [64, 512], 'Q4_K', 'F32', 'Q4_K'], ['blk.0.ssm_in.weight', [64, 384], 'Q6_K', 'F32', 'Q8_0'], ['blk.0.ssm_in.weight', [64, 40], 'Q6_K', 'BF16', 'BF16'],
    ['blk.0.ssm_in.weight', [64, 64], 'Q8_0', 'Q4_0', 'Q8_0'], ['blk.0.ssm_a', [64, 32], 'F16', 'F32', 'F32'], ['blk.0.ssm_conv1d.weight', [64, 32], 'Q8_0', 'F32', 'F32']
  ])('%s %o for %s of %s is %s', (name, shape, type, dtype, expected) => expect(ggufTensorType(name, { shape, type, dtype })).toBe(expected))

  test('another one for a tensor, by choice', async () => {
    const { header } = await converted('mamba', 'Q4_0', { typeOf: (name, type) => (name === 'token_embd.weight' ? 'Q8_0' : type) })
    const dtypes = new Map(header.tensors.map(({ name, dtype }) => [name, dtype]))
    expect([dtypes.get('token_embd.weight'), dtypes.get('blk.2.ssm_out.weight')]).toEqual(['Q8_0', 'Q4_0'])
  })
})

test('the metadata is what llama.cpp asks for', async () => {
  const { header } = await converted('mamba', 'Q8_0')
  expect([...header.metadata]).toEqual([
    ['general.architecture', { type: 'string', value: 'mamba' }], ['general.type', { type: 'string', value: 'model' }], ['general.name', { type: 'string', value: 'a model' }],
    ['mamba.context_length', u32(2 ** 20)], ['mamba.embedding_length', u32(32)], ['mamba.block_count', u32(3)],
    ['mamba.attention.layer_norm_rms_epsilon', { type: 'float32', value: Math.fround(1e-5) }], ['mamba.feed_forward_length', u32(0)], ['mamba.attention.head_count', u32(0)],
    ['mamba.ssm.inner_size', u32(64)], ['mamba.ssm.conv_kernel', u32(4)], ['mamba.ssm.state_size', u32(16)], ['mamba.ssm.time_step_rank', u32(2)], ['mamba.ssm.dt_b_c_rms', { type: 'bool', value: false }], ['mamba.vocab_size', u32(160)],
    ['general.file_type', u32(7)], ['general.quantization_version', u32(2)], ['tokenizer.ggml.model', { type: 'string', value: 'none' }],
    ['tokenizer.ggml.bos_token_id', u32(1)], ['tokenizer.ggml.eos_token_id', u32(2)]
  ])
  const shapes = new Map(header.tensors.map(({ name, shape }) => [name, shape]))
  expect([shapes.get('blk.0.ssm_conv1d.weight'), shapes.get('blk.0.ssm_a'), shapes.get('blk.0.ssm_d')]).toEqual([[64, 4], [64, 16], [64]])
})

test('a head of its own, no bias in the convolution: zeros, as llama.cpp wants one', async () => {
  const checkpoint = await openCheckpoint(modelSet('mamba_bias_untied'))
  const config = readModelConfig(checkpoint.config)
  const options = { config, type: 'F32', name: 'm', tokenizer: null, place: 'folder' } as const
  expect(() => modelToGguf({ ...options, tensors: checkpoint.tensors })).toThrow(
    new UnsupportedError({ place: 'folder: backbone.layers.0.mixer.in_proj.bias', expected: "only tensors that llama.cpp's mamba has", got: 'this one too' })
  )
  const tensors = new Map([...checkpoint.tensors].filter(([name]) => !name.endsWith('_proj.bias') || name.endsWith('dt_proj.bias')))
  const read = await ggufModel(await readGgufHeader(bytesSource(await ggufBytes(modelToGguf({ ...options, tensors })))))
  expect(readModelConfig(read.config)).toEqual({ ...config, useBias: false, useConvBias: true })
  const named = new Map(read.tensors.map((entry) => [entry.name, entry]))
  expect(await readWholeTensor(named.get('backbone.layers.1.mixer.conv1d.bias')!)).toEqual(new Float32Array(80))
  expect(await readWholeTensor(named.get('lm_head.weight')!)).toEqual(await readWholeTensor(checkpoint.tensors.get('lm_head.weight')!))
})

test('a GGUF file converts again: to the same one, or to another type', async () => {
  const { file, config, model } = await converted('mamba', 'Q8_0')
  const tensors = new Map(model.tensors.map((entry) => [entry.name, entry]))
  const again = (type: EncodedType) => ggufBytes(modelToGguf({ config, tensors, type, name: 'a model', tokenizer: null, place: 'm.gguf' }))
  expect(Buffer.compare(await again('Q8_0'), file)).toBe(0)
  const { tensors: f32 } = await ggufModel(await readGgufHeader(bytesSource(await again('F32'))))
  for (const entry of f32) expect(await readWholeTensor(entry)).toEqual(await readWholeTensor(tensors.get(entry.name)!))
})

describe('a file that is none', async () => {
  const { contents } = await converted('mamba', 'F32')
  const changed = async ({ set = [], without = [], more = [] }: { set?: [string, GgufValue][], without?: string[], more?: GgufTensor[] }) => {
    const metadata = new Map<string, GgufValue>([...contents.metadata, ...set])
    for (const key of without) metadata.delete(key)
    const tensors = [...contents.tensors.filter(({ name }) => !without.includes(name)), ...more]
    return ggufModel(await readGgufHeader(bytesSource(await ggufBytes({ metadata, tensors }), 'm.gguf')))
  }
  const embedding = contents.tensors.find(({ name }) => name === 'token_embd.weight')!

  test.each<[string, Parameters<typeof changed>[0], string]>([
    ['another architecture', { set: [['general.architecture', { type: 'string', value: 'llama' }]] }, 'm.gguf, general.architecture: expected one of mamba, mamba2, falcon-h1, granitehybrid, jamba, nemotron_h, got "llama"'],
    ['no architecture', { without: ['general.architecture'] }, 'm.gguf, general.architecture: expected a string, got nothing'],
    ['no size', { without: ['mamba.ssm.inner_size'] }, 'm.gguf, mamba.ssm.inner_size: expected an integer from 0 to 2^53 - 1, got nothing'],
    ['a size that is a text', { set: [['mamba.block_count', { type: 'string', value: '3' }]] }, 'm.gguf, mamba.block_count: expected an integer from 0 to 2^53 - 1, got string "3"'],
    ['an epsilon that is none', { set: [['mamba.attention.layer_norm_rms_epsilon', { type: 'float32', value: NaN }]] }, 'm.gguf, mamba.attention.layer_norm_rms_epsilon: expected a finite float above 0, got float32 NaN'],
    ['no embedding', { without: ['token_embd.weight'] }, 'm.gguf, token_embd.weight: expected a tensor, got none of that name'],
    ['a tensor under both names', { more: [{ ...embedding, name: 'backbone.embeddings.weight' }] }, 'expected each tensor once, got backbone.embeddings.weight again']
  ])('%s', async (_, change, message) => {
    await expect(changed(change)).rejects.toThrow(message)
  })

  test('norms on dt, B and C are another model', async () => {
    const { config } = await changed({ set: [['mamba.ssm.dt_b_c_rms', { type: 'bool', value: true }]] })
    expect(config.model_type).toBe('falcon_mamba')
  })

  test('ends of texts and of turns are the config\'s', async () => {
    const ids: [string, GgufValue][] = (['bos', 'eos', 'eot'] as const).map((name, id) => [`tokenizer.ggml.${name}_token_id`, u32(id + 3)])
    expect(readModelConfig((await changed({ set: ids })).config)).toMatchObject({ bosTokenId: 3, eosTokenIds: [4, 5] })
  })
})

test('a checkpoint without an embedding is refused', async () => {
  const checkpoint = await openCheckpoint(modelSet('mamba'))
  const tensors = new Map([...checkpoint.tensors].filter(([name]) => name !== 'backbone.embeddings.weight'))
  const convert = () => modelToGguf({ config: readModelConfig(checkpoint.config), tensors, type: 'F32', name: 'm', tokenizer: null, place: 'm' })
  expect(convert).toThrow(new CheckpointError({ place: 'm: backbone.embeddings.weight', expected: 'a tensor', got: 'none of that name' }))
})

test('an inner width that llama.cpp ends its process at is refused', async () => {
  const checkpoint = await openCheckpoint(modelSet('mamba'))
  const config = readModelConfig({ ...checkpoint.config, intermediate_size: 96 })
  expect(() => modelToGguf({ config, tensors: checkpoint.tensors, type: 'F32', name: 'm', tokenizer: null, place: 'm' })).toThrow(
    new UnsupportedError({ place: 'm: inner width', expected: "64, twice the model's, as llama.cpp has it", got: '96' })
  )
})
