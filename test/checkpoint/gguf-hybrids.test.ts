/** GGUF files of llama.cpp's hybrid architectures, made of the fixtures: what stands in them, and that they give the checkpoints' numbers. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { readGgufHeader } from '../../src/checkpoint/gguf-reader.ts'
import type { EncodedType } from '../../src/checkpoint/quantize.ts'
import { writeSafetensors } from '../support/safetensors-writer.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { UnsupportedError } from '../../src/errors.ts'
import type { WeightDtype } from '../../src/load.ts'
import { Mamba } from '../../src/mamba.ts'
import { reasonOf } from '../support/anything.ts'
import { expectSameBits, relativeError } from '../support/compare.ts'
import { filesOf, fixtureModel, readGolden } from '../support/fixtures.ts'
import { converted, type Files, logitsOf, split, withConfig } from './gguf-files.ts'

/** Their numbers are the safetensors files' bit for bit; Falcon-H1's factors are in the weights, which rounds otherwise. */
const EXACT = ['mamba2', 'granitemoehybrid', 'granitemoehybrid_moe', 'bamba', 'jamba', 'nemotron_h']
const HYBRIDS = [...EXACT, 'falcon_h1']

const headerOf = (file: Uint8Array) => readGgufHeader(bytesSource(file, 'm.gguf'))
const fixture = (name: string): Files => filesOf(fixtureModel(name))

async function tensorsOf(file: Uint8Array): Promise<ReadonlyMap<string, Float32Array>> {
  const { tensors } = await headerOf(file)
  return new Map(await Promise.all(tensors.map(async (entry) => [entry.name, await readWholeTensor(entry)] as const)))
}

describe('the same numbers', () => {
  test.each(EXACT)('%s: bit for bit the checkpoint’s', async (name) => {
    const files = fixture(name)
    expectSameBits(await logitsOf({ 'model.gguf': await converted(files) }), await logitsOf(files), name)
  })

  test.each(HYBRIDS)('%s: the reference’s', async (name) => {
    const golden = readGolden(`${fixtureModel(name)}/golden.safetensors`)
    const { shape: [nSequences, length], data } = golden.ints('input_ids')
    await using mamba = await Mamba.load({ 'model.gguf': await converted(fixture(name)) }, { threads: 1 })
    const logits: Float32Array[] = []
    for (let i = 0; i < nSequences; i++) logits.push(await mamba.forward(data.slice(i * length, (i + 1) * length), { allLogits: true }))
    const error = relativeError(logits.flatMap((part) => [...part]), golden.floats('logits').data)
    console.log(`${name}.gguf: ${error.toExponential(1)} of the largest logit`)
    expect(error).toBeLessThanOrEqual(1e-5)
  })

  test.each(HYBRIDS)('%s converts again: to the same file', async (name) => {
    const file = await converted(fixture(name))
    expect(Buffer.compare(await converted({ 'model.gguf': file }), file)).toBe(0)
  })

  // In 8 bits rows of the other fixtures are not whole blocks; Falcon-H1's have factors, and Jamba's matrix of dt is rounded in a file alone.
  test.each<[string, EncodedType, WeightDtype]>([
    ['bamba', 'Q8_0', 'q8_0'], ['nemotron_h', 'Q8_0', 'q8_0'], ['bamba', 'Q4_0', 'q4_0'],
    ...['bamba', 'nemotron_h', 'granitemoehybrid', 'granitemoehybrid_moe'].flatMap((name) => [[name, 'F16', 'f16'], [name, 'BF16', 'bf16']] as [string, EncodedType, WeightDtype][])
  ])('%s in %s: those of rounding while loading, rows of queries and keys in their order', async (name, type, dtype) => {
    const files = fixture(name)
    expectSameBits(await logitsOf({ 'model.gguf': await converted(files, { type }) }), await logitsOf(files, { dtype }), name)
  })

  test.each(HYBRIDS)('%s in 8 bits: those of its own weights as floats, but for activations in 14 bits', async (name) => {
    const file = await converted(fixture(name), { type: 'Q8_0' })
    const asFloats = await converted({ 'model.gguf': file }, { type: 'F32' })
    const error = relativeError(await logitsOf({ 'model.gguf': file }), await logitsOf({ 'model.gguf': asFloats }))
    console.log(`${name}, Q8_0: ${error.toExponential(1)} of the largest logit`)
    // An activation is off by 2^-14 of its block's largest at most; one behind the other stand five matrices a layer (in, x, out, up, down), and the head.
    const nLayers = new Set((await headerOf(file)).tensors.map(({ name: tensor }) => /^blk\.\d+/.exec(tensor)?.[0])).size - 1
    expect(error).toBeLessThan((5 * nLayers + 1) * 2 ** -14)
  })

  test('in several files', async () => {
    const file = await converted(fixture('granitemoehybrid_moe'))
    const folder = mkdtempSync(join(tmpdir(), 'mamba-wasm-split-'))
    const names = Object.entries(await split(file, 3)).map(([name, bytes]) => {
      writeFileSync(join(folder, name), bytes)
      return name
    })
    expectSameBits(await logitsOf(join(folder, names[0])), await logitsOf({ 'model.gguf': file }), 'logits')
    rmSync(folder, { recursive: true })
  })
})

/** As `load_arch_tensors` of llama.cpp asks for them, its dimensions reversed. dInner 64, dState 16, 4 heads of the state space, dConv 4. */
const MAMBA2_TENSORS = (nGroups: number) => {
  const convWidth = 64 + 2 * nGroups * 16
  return {
    'ssm_in.weight': [64 + convWidth + 4, 32], 'ssm_conv1d.weight': [convWidth, 4], 'ssm_conv1d.bias': [convWidth], 'ssm_dt.bias': [4], ssm_a: [4, 1], ssm_d: [4, 1],
    'ssm_norm.weight': [nGroups, 64 / nGroups], 'ssm_out.weight': [32, 64]
  }
}
const ATTENTION_TENSORS = { 'attn_q.weight': [32, 32], 'attn_k.weight': [16, 32], 'attn_v.weight': [16, 32], 'attn_output.weight': [32, 32] }
const NORMS = { 'attn_norm.weight': [32], 'ffn_norm.weight': [32] }
const mlp = (width: number, suffix = '') => ({ [`ffn_gate${suffix}.weight`]: [width, 32], [`ffn_up${suffix}.weight`]: [width, 32], [`ffn_down${suffix}.weight`]: [32, width] })
const experts = (width: number) => ({
  'ffn_gate_inp.weight': [4, 32], 'ffn_gate_exps.weight': [4, width, 32], 'ffn_up_exps.weight': [4, width, 32], 'ffn_down_exps.weight': [4, 32, width]
})
const { 'ssm_norm.weight': _, ...UNNORMED } = MAMBA2_TENSORS(1)
const MAMBA1_TENSORS = {
  'ssm_in.weight': [128, 32], 'ssm_conv1d.weight': [64, 4], 'ssm_conv1d.bias': [64], 'ssm_x.weight': [18, 64], 'ssm_dt.weight': [64, 2], 'ssm_dt.bias': [64], ssm_a: [64, 8], ssm_d: [64],
  'ssm_out.weight': [32, 64], 'ssm_dt_norm.weight': [2], 'ssm_b_norm.weight': [8], 'ssm_c_norm.weight': [8]
}

test.each<[string, string, Record<string, readonly number[]>[], Record<string, unknown>]>([
  ['falcon_h1', 'falcon-h1', [0, 1].map(() => ({ 'attn_norm.weight': [32], ffn_norm: [32], ...UNNORMED, ...ATTENTION_TENSORS, ...mlp(64) })), {
    context_length: 8192, feed_forward_length: 64, 'attention.head_count': 4, 'attention.head_count_kv': [2, 2], 'attention.key_length': 8, 'attention.value_length': 8,
    'rope.dimension_count': 8, 'rope.freq_base': 10_000
  }],
  ['granitemoehybrid', 'granitehybrid', [
    { ...NORMS, ...MAMBA2_TENSORS(1), ...mlp(48) }, { ...NORMS, ...ATTENTION_TENSORS, ...mlp(48) }, { ...NORMS, ...MAMBA2_TENSORS(1), ...mlp(48) }
  ], {
    context_length: 2048, feed_forward_length: 48, 'attention.head_count': 4, 'attention.head_count_kv': [0, 2, 0], 'rope.scaling.finetuned': false, embedding_scale: 12,
    residual_scale: Math.fround(0.22), logit_scale: 3, 'attention.scale': 0.0078125
  }],
  ['granitemoehybrid_moe', 'granitehybrid', [
    { ...NORMS, ...MAMBA2_TENSORS(1), ...mlp(40, '_shexp'), ...experts(24) }, { ...NORMS, ...ATTENTION_TENSORS, ...mlp(40, '_shexp'), ...experts(24) },
    { ...NORMS, ...MAMBA2_TENSORS(1), ...mlp(40, '_shexp'), ...experts(24) }
  ], { feed_forward_length: 24, expert_count: 4, expert_used_count: 2, expert_shared_feed_forward_length: 40, 'rope.scaling.finetuned': true, 'rope.dimension_count': 8, 'attention.scale': 0.125 }],
  ['bamba', 'granitehybrid', [
    { ...NORMS, ...MAMBA2_TENSORS(1), ...mlp(64) }, { ...NORMS, ...ATTENTION_TENSORS, ...mlp(64) }, { ...NORMS, ...MAMBA2_TENSORS(1), ...mlp(64) }
  ], { feed_forward_length: 64, 'rope.scaling.finetuned': true, 'rope.dimension_count': 4, 'attention.scale': undefined, embedding_scale: undefined, residual_scale: undefined, logit_scale: undefined }],
  ['jamba', 'jamba', [
    { ...NORMS, ...MAMBA1_TENSORS, ...mlp(48) }, { ...NORMS, ...MAMBA1_TENSORS, ...experts(48) }, { ...NORMS, ...ATTENTION_TENSORS, ...mlp(48) }, { ...NORMS, ...MAMBA1_TENSORS, ...experts(48) }
  ], { feed_forward_length: 48, 'attention.head_count_kv': [0, 0, 2, 0], expert_count: 4, expert_used_count: 2, 'ssm.inner_size': 64, 'ssm.time_step_rank': 2, 'ssm.group_count': undefined }],
  ['nemotron_h', 'nemotron_h', [
    { 'attn_norm.weight': [32], ...MAMBA2_TENSORS(2) }, { 'attn_norm.weight': [32], 'ffn_up.weight': [64, 32], 'ffn_down.weight': [32, 64] },
    { 'attn_norm.weight': [32], ...MAMBA2_TENSORS(2) }, { 'attn_norm.weight': [32], ...ATTENTION_TENSORS }
  ], {
    feed_forward_length: [0, 64, 0, 0], 'attention.head_count_kv': [0, 0, 0, 2], 'attention.layer_norm_epsilon': Math.fround(1e-5), 'ssm.time_step_rank': 4, 'ssm.group_count': 2,
    'ssm.time_step_min': Math.fround(0.001)
  }]
])('%s has the tensors and the keys that llama.cpp asks for', async (name, architecture, layers, keys) => {
  const { tensors, metadata } = await headerOf(await converted(fixture(name)))
  const expected = { 'token_embd.weight': [160, 32], 'output_norm.weight': [32], 'output.weight': [160, 32] }
  const ofLayers = layers.flatMap((layer, i) => Object.entries(layer).map(([tensor, shape]) => [`blk.${i}.${tensor}`, shape]))
  expect(Object.fromEntries(tensors.map(({ name, shape }) => [name, shape]))).toEqual({ ...expected, ...Object.fromEntries(ofLayers) })
  expect(metadata.get('general.architecture')).toEqual({ type: 'string', value: architecture })
  const common = { embedding_length: 32, block_count: layers.length, vocab_size: 160, 'ssm.conv_kernel': 4, 'ssm.inner_size': 64 }
  for (const [key, value] of Object.entries({ ...common, ...keys })) {
    const got = metadata.get(`${architecture}.${key}`)
    expect([key, got?.type === 'array' ? Array.from<unknown>(got.value) : got?.value]).toEqual([key, value])
  }
})

test.each<[EncodedType]>([['Q8_0'], ['F16']])('%s is for matrices; norms of groups, routers and what is no matrix are F32', async (type) => {
  const { tensors } = await headerOf(await converted(fixture('granitemoehybrid_moe'), { type }))
  const dtypes = Object.fromEntries(tensors.filter(({ name }) => name.startsWith('blk.0.')).map(({ name, dtype }) => [name.slice(6), dtype]))
  const dtype = (isBlocks: boolean) => (type === 'F16' || isBlocks ? type : 'F32')
  expect(dtypes).toMatchObject({
    'ssm_in.weight': type, 'ssm_norm.weight': 'F32', ssm_a: 'F32', ssm_d: 'F32', 'ffn_gate_inp.weight': 'F32', 'ffn_gate_exps.weight': type, 'ffn_down_exps.weight': dtype(false), 'ssm_conv1d.weight': 'F32'
  })
})

describe('what is stored otherwise', () => {
  // 4 heads of 8 rows; Bamba turns 4 of them.
  test.each([['granitemoehybrid_moe', 8], ['granitemoehybrid', 8], ['bamba', 4]])('%s: rows of queries and keys that turn together are neighbours', async (name, rotaryDim) => {
    const file = await tensorsOf(await converted(fixture(name)))
    const checkpoint = readGolden(`${fixtureModel(name)}/model.safetensors`)
    for (const [part, nHeads] of [['q', 4], ['k', 2]] as const) {
      const { data } = checkpoint.floats(`model.layers.1.self_attn.${part}_proj.weight`)
      const rows = Array.from({ length: nHeads }, (_, head) => Array.from({ length: 8 }, (_, i) => 8 * head + (i < rotaryDim ? (i % 2 === 0 ? i / 2 : rotaryDim / 2 + (i - 1) / 2) : i))).flat()
      expect([...file.get(`blk.1.attn_${part}.weight`)!]).toEqual(rows.flatMap((row) => [...data.subarray(32 * row, 32 * row + 32)]))
    }
  })

  test('jamba: experts stand in one tensor, granite’s gates and ups apart', async () => {
    const jamba = await tensorsOf(await converted(fixture('jamba')))
    const separate = readGolden(`${fixtureModel('jamba')}/model.safetensors`)
    const each = [0, 1, 2, 3].flatMap((expert) => [...separate.floats(`model.layers.3.feed_forward.experts.${expert}.down_proj.weight`).data])
    expect([...jamba.get('blk.3.ffn_down_exps.weight')!]).toEqual(each)
    const granite = await tensorsOf(await converted(fixture('granitemoehybrid_moe')))
    const { data } = readGolden(`${fixtureModel('granitemoehybrid_moe')}/model.safetensors`).floats('model.layers.1.block_sparse_moe.input_linear.weight')
    const rowsOf = (first: number) => [0, 1, 2, 3].flatMap((expert) => [...data.subarray((48 * expert + first) * 32, (48 * expert + first + 24) * 32)])
    expect([...granite.get('blk.1.ffn_gate_exps.weight')!]).toEqual(rowsOf(0))
    expect([...granite.get('blk.1.ffn_up_exps.weight')!]).toEqual(rowsOf(24))
  })

  test('falcon_h1: factors are in the weights', async () => {
    const file = await tensorsOf(await converted(fixture('falcon_h1')))
    const checkpoint = readGolden(`${fixtureModel('falcon_h1')}/model.safetensors`)
    // The config's: in_proj's are of z, x, B, C and dt, times that of the input.
    const ofRow = (row: number) => 1.25 * (row < 64 ? 0.35 : row < 128 ? 0.25 : row < 144 ? 0.18 : row < 160 ? 0.5 : 0.36)
    const { data } = checkpoint.floats('model.layers.1.mamba.in_proj.weight')
    expectSameBits(file.get('blk.1.ssm_in.weight')!, data.map((value, i) => value * ofRow(Math.floor(i / 32))), 'ssm_in')
    const factors = [
      ['token_embd.weight', 'model.embed_tokens.weight', 5.6], ['output.weight', 'lm_head.weight', 0.04], ['blk.0.attn_q.weight', 'model.layers.0.self_attn.q_proj.weight', 1],
      ['blk.0.attn_output.weight', 'model.layers.0.self_attn.o_proj.weight', 0.9], ['blk.0.ssm_out.weight', 'model.layers.0.mamba.out_proj.weight', 0.24],
      ['blk.0.ffn_gate.weight', 'model.layers.0.feed_forward.gate_proj.weight', 0.88], ['blk.0.ffn_up.weight', 'model.layers.0.feed_forward.up_proj.weight', 1],
      ['blk.0.ffn_down.weight', 'model.layers.0.feed_forward.down_proj.weight', 0.18]
    ] as const
    for (const [gguf, ours, factor] of factors) expectSameBits(file.get(gguf)!, checkpoint.floats(ours).data.map((value) => value * factor), gguf)
    // The key's is told of its scale: to the last digit, or the one before.
    const keys = checkpoint.floats('model.layers.0.self_attn.k_proj.weight').data.map((value) => value * 0.39)
    expect(relativeError(file.get('blk.0.attn_k.weight')!, keys)).toBeLessThan(2 ** -23)
  })

  test('falcon_h1 with a tied head: it has a factor of its own, and so is written', async () => {
    const checkpoint = readGolden(`${fixtureModel('falcon_h1')}/model.safetensors`)
    const tensors = checkpoint.names.filter((name) => name !== 'lm_head.weight').map((name) => ({ name, dtype: 'F32', ...checkpoint.floats(name) }))
    const files = { ...withConfig(fixture('falcon_h1'), { tie_word_embeddings: true }), 'model.safetensors': writeSafetensors(tensors) }
    const file = await converted(files)
    const embedding = checkpoint.floats('model.embed_tokens.weight').data
    expectSameBits((await tensorsOf(file)).get('output.weight')!, embedding.map((value) => value * 0.04), 'output')
    expect(relativeError(await logitsOf({ 'model.gguf': file }), await logitsOf(files))).toBeLessThan(1e-6)
  })
})

describe('what is not written', () => {
  test.each<[string, Record<string, unknown>, string]>([
    ['zamba2', {}, 'model_type: expected a model that llama.cpp has an architecture for, got "zamba2"'],
    ['granitemoehybrid', { time_step_limit: [0, 1] }, 'time_step_limit: expected no limits of dt, since llama.cpp has none, got 0 to 1'],
    ['nemotron_h', { time_step_limit: [0, 1] }, 'time_step_limit: expected no limits of dt'],
    ['granitemoehybrid', { logits_scaling: 1e-320 }, 'logit_scale: expected a factor above 0, got 0'],
    ['granitemoehybrid', { residual_multiplier: -1 }, 'residual_scale: expected a factor above 0, got -1']
  ])('%s with %j', async (name, changes, message) => {
    const error = await reasonOf(() => converted(withConfig(fixture(name), changes)))
    expect(error).toBeInstanceOf(UnsupportedError)
    expect(String(error)).toContain(message)
  })
})
