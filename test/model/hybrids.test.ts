/** Configs of the hybrids: older spellings, the defaults of transformers' classes, contradictions, and what is not built. */
import { describe, expect, test } from 'vitest'
import { UnsupportedError } from '../../src/errors.ts'
import { overrideConfig } from '../support/architectures.ts'
import { expectRefused, fixtureConfig, readConfig, without } from '../support/configs.ts'
import type { Config } from '../support/tiny-checkpoint.ts'

const HYBRIDS = ['bamba', 'falcon_h1', 'granitemoehybrid', 'granitemoehybrid_moe', 'jamba', 'nemotron_h', 'zamba2']
const configs: Readonly<Record<string, Config>> = Object.fromEntries(HYBRIDS.map((name) => [name, fixtureConfig(name)]))
const { bamba, falcon_h1: falcon, granitemoehybrid: granite, granitemoehybrid_moe: graniteMoe, jamba, nemotron_h: nemotron, zamba2 } = configs

/** What every config must have. */
const LEAST = { vocab_size: 8, hidden_size: 4096, num_hidden_layers: 2 }

describe('as older versions of transformers wrote it', () => {
  test.each<[string, Config, readonly string[], Config]>([
    ['rope_theta and partial_rotary_factor beside each other', bamba, ['rope_parameters'], { rope_theta: 10_000, partial_rotary_factor: 0.5, rope_scaling: null }],
    ['half of each head without being told', bamba, ['rope_parameters', 'partial_rotary_factor'], { rope_theta: 10_000 }],
    ['bare infinity, torch_dtype', bamba, ['dtype'], { time_step_limit: [0, Infinity], torch_dtype: 'bfloat16' }],
    ['no limit of dt at all', bamba, ['time_step_limit', 'dtype'], {}],
    ['rope_scaling with a default type', falcon, ['rope_parameters'], { rope_theta: 10_000, rope_scaling: { type: 'default' } }],
    ['mamba_d_head auto', falcon, ['mamba_d_head'], { mamba_d_head: 'auto', time_step_limit: [0, Infinity] }],
    ['no head_dim', falcon, ['head_dim'], {}],
    ['positions not named', granite, ['position_embedding_type', 'rope_parameters'], { position_embedding_type: null, rope_theta: 10_000 }],
    ['rope_theta', graniteMoe, ['rope_parameters'], { rope_theta: 10_000, rope_scaling: null }],
    ['attention_head_dim alone', nemotron, ['head_dim', 'dtype'], { torch_dtype: 'bfloat16', time_step_limit: [0, Infinity] }],
    ['NVIDIA’s names', nemotron, ['n_groups', 'conv_kernel', 'use_conv_bias', 'time_step_limit', 'time_step_min'], {
      mamba_n_groups: 2, mamba_d_conv: 4, mamba_conv_bias: true, mamba_dt_limit: [0, Infinity], mamba_dt_min: 0.001, rms_norm_eps: 1e-5
    }],
    ['mamba_dt_rank auto', jamba, ['mamba_dt_rank'], { mamba_dt_rank: 'auto' }],
    ['what follows from other keys', zamba2, ['attention_head_dim', 'attention_hidden_size', 'mamba_headdim', 'num_key_value_heads', 'rope_parameters', 'kv_channels'], { rope_theta: 10_000 }]
  ])('%s', (_, config, gone, keys) => expect(readConfig({ ...without(config, ...gone), ...keys })).toEqual(readConfig(config)))
})

test.each(HYBRIDS)('%s: the fixture', (name) => {
  const config = readConfig(configs[name])
  expect(config).toMatchObject({ dModel: 32, vocabSize: 160, bosTokenId: 1, eosTokenIds: [2], contextLength: configs[name].max_position_embeddings })
  expect(config.nLayers).toBe(config.layers.length)
})

describe('what is not said is as the class has it', () => {
  const attention = { nHeads: 32, nKvHeads: 8, headDim: 128, scale: 128 ** -0.5, useBias: false, rotary: { rotaryDim: 128, theta: 10_000 } }
  const mamba = { dInner: 8192, nHeads: 128, headDim: 64, dState: 256, nGroups: 1, dConv: 4, dtLimit: [0, Infinity], useBias: false, useConvBias: true, normGroups: 1 }

  test.each<[string, Config, Config]>([
    ['bamba', {}, { normEps: 1e-5, tieEmbeddings: false, contextLength: 262_144, mamba: { ...mamba, gatedNormEps: 1e-5 }, attention: { ...attention, rotary: { rotaryDim: 64, theta: 10_000 } }, mlp: { dHidden: 14_336, activation: 'silu', useBias: false } }],
    ['falcon_h1', { mamba_n_heads: 32 }, {
      normEps: 1e-5, tieEmbeddings: false, contextLength: 8192, mamba: { ...mamba, dInner: 1024, nHeads: 32, headDim: 32, gatedNormEps: null }, attention,
      embeddingMultiplier: 1, logitMultiplier: 1, useOutBias: false,
      multipliers: { mamba: { input: 1, z: 1, x: 1, B: 1, C: 1, dt: 1 }, mambaOut: 1, attentionIn: 1, attentionOut: 1, mlpGate: 1, mlpOut: 1 }
    }],
    ['falcon_h1', { mamba_d_ssm: null }, { mamba: { ...mamba, gatedNormEps: null } }],
    ['granitemoehybrid', {}, {
      normEps: 1e-6, contextLength: 2048, mamba: { ...mamba, gatedNormEps: 1e-6 }, attention: { ...attention, nKvHeads: 32, scale: 1, rotary: null }, residualMultiplier: 1,
      embeddingMultiplier: 1, logitMultiplier: 1, mlp: { dHidden: 1024 }, experts: { nExperts: 8, topK: 2, dHidden: 11_008, softmaxOver: 'chosen' }
    }],
    ['jamba', { num_hidden_layers: 8 }, {
      normEps: 1e-6, tieEmbeddings: false, contextLength: 262_144, mamba: { dInner: 8192, dState: 16, dConv: 4, dtRank: 256, mixerNormEps: 1e-6, useBias: false, useConvBias: true },
      attention: { ...attention, rotary: null }, experts: { nExperts: 16, topK: 2, dHidden: 14_336, softmaxOver: 'all' }, expertLayers: [1, 3, 5, 7],
      layers: ['mamba', 'mamba', 'mamba', 'mamba', 'attention', 'mamba', 'mamba', 'mamba']
    }],
    ['nemotron_h', { layers_block_type: ['mamba', 'mlp'] }, {
      normEps: 1e-5, contextLength: 4096, mamba: { ...mamba, dState: 128, nGroups: 8, normGroups: 8, dtLimit: [0.001, Infinity], gatedNormEps: 1e-5 },
      attention: { ...attention, rotary: null }, mlp: { dHidden: 21_504, activation: 'relu2', useBias: false }
    }],
    ['zamba2', { layers_block_type: ['mamba', 'hybrid'], n_mamba_heads: 128 }, {
      normEps: 1e-5, tieEmbeddings: true, contextLength: 4096, mamba: { ...mamba, dState: 64, dtLimit: [0.001, Infinity], gatedNormEps: 1e-5 },
      attention: { ...attention, nKvHeads: 32, headDim: 256, scale: 128 ** -0.5, rotary: null }, mlp: { dHidden: 16_384, activation: 'gelu' }, nBlocks: 1, adapterRank: 128,
      useAttentionAdapters: false
    }]
  ])('%s', (modelType, keys, want) => expect(readConfig({ ...LEAST, model_type: modelType, ...keys })).toMatchObject(want))

  test('num_key_value_heads null is as many as heads', () => {
    for (const name of ['bamba', 'falcon_h1', 'jamba', 'nemotron_h']) expect(readConfig({ ...configs[name], num_key_value_heads: null })).toMatchObject({ attention: { nKvHeads: 4 } })
  })
})

test('factors go where they belong', () => {
  expect(readConfig(falcon)).toMatchObject({
    embeddingMultiplier: 5.6, logitMultiplier: 0.04, attention: { scale: 0.39 * 8 ** -0.5 },
    multipliers: {
      mamba: { input: 1.25, z: 0.35, x: 0.25, B: 0.18, C: 0.5, dt: 0.36 }, mambaOut: 0.24, attentionIn: 1, attentionOut: 0.9, mlpGate: 0.88, mlpOut: 0.18
    }
  })
  expect(readConfig(granite)).toMatchObject({ embeddingMultiplier: 12, logitMultiplier: 1 / 3, residualMultiplier: 0.22, attention: { scale: 0.0078125, rotary: null }, experts: null })
  expect(readConfig(graniteMoe)).toMatchObject({ attention: { scale: 0.125, rotary: { rotaryDim: 8, theta: 10_000 } }, experts: { nExperts: 4, topK: 2, dHidden: 24 }, mlp: { dHidden: 40 } })
  expect(readConfig(zamba2)).toMatchObject({ attention: { headDim: 16, scale: 8 ** -0.5 } })
})

describe('keys that contradict each other are both named', () => {
  test.each<[Config, Config, readonly string[]]>([
    [bamba, { partial_rotary_factor: 1 }, ['rope_parameters: partial_rotary_factor', 'config.json: partial_rotary_factor']],
    [bamba, { rope_theta: 5000 }, ['rope_parameters: rope_theta', 'config.json: rope_theta', '5000']],
    [bamba, { rope_scaling: { rope_theta: 5000 } }, ['rope_scaling: rope_theta', 'rope_parameters: rope_theta']],
    [bamba, { mamba_n_heads: 8 }, ['mamba_n_heads', 'mamba_expand']],
    [bamba, { mamba_d_head: 'auto', mamba_n_heads: 5 }, ['mamba_n_heads', 'mamba_expand']],
    [bamba, { num_key_value_heads: 3 }, ['num_key_value_heads', 'num_attention_heads 4']],
    [bamba, { mamba_n_groups: 3 }, ['mamba_n_groups', '4']],
    [falcon, { mamba_d_ssm: 128 }, ['mamba_n_heads', 'mamba_d_ssm']],
    [graniteMoe, { num_experts_per_tok: 5 }, ['num_experts_per_tok', 'num_local_experts', '4']],
    [jamba, { num_experts_per_tok: 5 }, ['num_experts_per_tok', 'num_experts', '4']],
    [nemotron, { attention_head_dim: 16 }, ['attention_head_dim', 'head_dim']],
    [nemotron, { rms_norm_eps: 1e-6 }, ['rms_norm_eps', 'layer_norm_epsilon']],
    [nemotron, { mamba_n_groups: 4 }, ['mamba_n_groups', 'n_groups']],
    [nemotron, { mamba_dt_limit: [0, 1] }, ['mamba_dt_limit', 'time_step_limit']],
    [nemotron, { time_step_limit: [0, 0.0001] }, ['time_step_min', 'time_step_limit']],
    [zamba2, { attention_head_dim: 8 }, ['num_attention_heads', 'attention_head_dim']],
    [zamba2, { attention_hidden_size: 32 }, ['attention_hidden_size', 'hidden_size']],
    [zamba2, { mamba_headdim: 8 }, ['n_mamba_heads', 'mamba_headdim']]
  ])('%#', (config, keys, parts) => expectRefused({ ...config, ...keys }, parts))
})

describe('what is not built is refused by its key', () => {
  test.each<[Config, Config, string]>([
    ...[bamba, falcon, granite, jamba, zamba2].map((config): [Config, Config, string] => [config, { hidden_act: 'relu' }, 'hidden_act']),
    ...(['yarn', 'linear', 'llama3', 'longrope'] as const).map((type): [Config, Config, string] => [bamba, { rope_parameters: { rope_type: type, factor: 2 } }, 'rope_parameters: rope_type']),
    [falcon, { rope_scaling: { type: 'dynamic', factor: 2 } }, 'rope_scaling: type'],
    [bamba, { rope_parameters: null, partial_rotary_factor: 0.4 }, 'partial_rotary_factor'],
    [falcon, { mamba_rms_norm: true, mamba_norm_before_gate: true }, 'mamba_norm_before_gate'],
    [falcon, { mamba_rms_norm: true, mamba_norm_before_gate: null }, 'mamba_norm_before_gate'],
    [granite, { position_embedding_type: 'alibi' }, 'position_embedding_type'],
    [granite, { normalization_function: 'layernorm' }, 'normalization_function'],
    [jamba, { sliding_window: 4096 }, 'sliding_window'],
    [nemotron, { sliding_window: 4096 }, 'sliding_window'],
    [nemotron, { mlp_hidden_act: 'silu' }, 'mlp_hidden_act'],
    [nemotron, { mamba_hidden_act: 'relu' }, 'mamba_hidden_act'],
    [nemotron, { num_nextn_predict_layers: 1 }, 'num_nextn_predict_layers'],
    [zamba2, { use_long_context: true }, 'use_long_context'],
    [zamba2, { use_conv_bias: false }, 'use_conv_bias']
  ])('%#', (config, keys, key) => expectRefused({ ...config, ...keys }, [`config.json: ${key}`], UnsupportedError))
})

describe('what is no value is refused by its key', () => {
  test.each<[Config, string, readonly unknown[]]>([
    [bamba, 'mamba_d_head', ['16', 0, 1.5]], [bamba, 'num_attention_heads', [0, '4', 64]], [bamba, 'rope_parameters', [[], 'default', 5]],
    [bamba, 'max_position_embeddings', [0, '4096', 2 ** 40]], [bamba, 'time_step_limit', [[0], [1, 0], [0, { __float__: 'NaN' }]]],
    [falcon, 'ssm_multipliers', [[1, 1, 1, 1], [1, 1, 1, 1, Infinity], 1, [1, 1, 1, 1, '1']]], [falcon, 'mlp_multipliers', [[1], 'none']],
    [falcon, 'key_multiplier', ['1', Infinity, NaN, [1]]], [granite, 'logits_scaling', [0, -1, '3']], [granite, 'num_local_experts', [-1, 0.5, 2 ** 16]],
    [graniteMoe, 'num_experts_per_tok', [0, 65, '2']], [jamba, 'num_experts', [0, 2 ** 20]], [jamba, 'mamba_dt_rank', ['some', 0]],
    [nemotron, 'time_step_min', [-1, '0', Infinity]], [zamba2, 'num_mem_blocks', [0, 'two']], [zamba2, 'adapter_rank', [0, 1.5]], [zamba2, 'use_mem_rope', [1, 'true']]
  ])('%#: %s', (config, key, values) => {
    for (const value of values) expectRefused({ ...config, [key]: value }, [key])
  })

  test('more experts than any checkpoint has tensors for', () => {
    expectRefused({ ...jamba, num_experts: 1024, num_hidden_layers: 4000 }, ['num_experts: expected at most 65536 experts in all layers, got 1024 in 2000'])
  })
})

describe('the gated norm’s groups', () => {
  const groups = { mamba_n_groups: 2 }

  test('transformers takes the whole width in Bamba and Granite, each group in the others', () => {
    expect(readConfig({ ...bamba, ...groups })).toMatchObject({ mamba: { nGroups: 2, normGroups: 1 } })
    expect(readConfig({ ...granite, ...groups })).toMatchObject({ mamba: { nGroups: 2, normGroups: 1 } })
    expect(readConfig({ ...falcon, ...groups, mamba_rms_norm: true, mamba_norm_before_gate: false })).toMatchObject({ mamba: { nGroups: 2, normGroups: 2, gatedNormEps: 1e-5 } })
    expect(readConfig({ ...falcon, ...groups })).toMatchObject({ mamba: { nGroups: 2, gatedNormEps: null } })
    expect(readConfig(nemotron)).toMatchObject({ mamba: { nGroups: 2, normGroups: 2 } })
    expect(readConfig({ ...zamba2, mamba_ngroups: 4 })).toMatchObject({ mamba: { nGroups: 4, normGroups: 4 } })
  })

  test('norm_groups and the option say otherwise', () => {
    for (const config of [bamba, granite, nemotron, zamba2]) {
      expect(readConfig({ ...config, norm_groups: 4 })).toMatchObject({ mamba: { normGroups: 4 } })
      expect(overrideConfig(readConfig(config), { normGroups: 4 })).toEqual(readConfig({ ...config, norm_groups: 4 }))
      expect(() => overrideConfig(readConfig(config), { normGroups: 3 })).toThrow(RangeError)
    }
    for (const config of [falcon, jamba]) expect(() => overrideConfig(readConfig(config), { normGroups: 1 })).toThrow(UnsupportedError)
  })
})
