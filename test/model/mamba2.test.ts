/** Configs of Mamba-2, in transformers' form and in the original repository's, and the choice of the gated norm's groups. */
import { describe, expect, test } from 'vitest'
import { expectObject, parseJson } from '../../src/checkpoint/json.ts'
import { writeSafetensors } from '../support/safetensors-writer.ts'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import { type LoadOptions, Mamba } from '../../src/mamba.ts'
import { buildModel, overrideConfig, readModelConfig } from '../support/architectures.ts'
import { elementsOf } from '../../src/program/ops.ts'
import { reasonOf } from '../support/anything.ts'
import { expectSameBits, relativeError } from '../support/compare.ts'
import { filesOf, fixtureModel, readGolden } from '../support/fixtures.ts'
import { type Config, configText, loadTiny } from '../support/tiny-checkpoint.ts'

const GROUPS = fixtureModel('mamba2_groups')
const IDS = [5, 17, 99, 3, 42, 8]

/** Of mistralai/Mamba-Codestral-7B-v0.1, as transformers of its time wrote it. */
const CODESTRAL: Config = {
  architectures: ['Mamba2ForCausalLM'], bos_token_id: 0, chunk_size: 256, conv_kernel: 4, eos_token_id: 0, expand: 2, head_dim: 64, hidden_act: 'silu',
  hidden_size: 4096, initializer_range: 0.1, intermediate_size: 8192, layer_norm_epsilon: 1e-5, model_type: 'mamba2', n_groups: 8,
  norm_before_gate: true, num_heads: 128, num_hidden_layers: 64, pad_token_id: 0, rescale_prenorm_residual: false, residual_in_fp32: true,
  rms_norm: true, state_size: 128, tie_word_embeddings: false, time_step_floor: 1e-4, time_step_init_scheme: 'random', time_step_limit: [0, Infinity],
  time_step_max: 0.1, time_step_min: 0.001, time_step_rank: 256, time_step_scale: 1, torch_dtype: 'bfloat16', use_bias: false, use_cache: true,
  use_conv_bias: true, vocab_size: 32768
}

/** Of state-spaces/mamba2-130m. */
const ORIGINAL: Config = {
  d_model: 768, d_intermediate: 0, n_layer: 24, vocab_size: 50277, ssm_cfg: { layer: 'Mamba2' }, attn_layer_idx: [], attn_cfg: {}, rms_norm: true,
  residual_in_fp32: true, fused_add_norm: true, pad_vocab_size_multiple: 16, tie_embeddings: true
}

const read = (config: Config) => readModelConfig(expectObject(parseJson(configText(config), 'config.json'), 'config.json'))

function expectRefused(config: Config, key: string, type: typeof CheckpointError | typeof UnsupportedError = CheckpointError): void {
  expect(() => read(config)).toThrow(type)
  expect(() => read(config)).toThrow(key)
}

describe('transformers’ form', () => {
  test('Codestral-Mamba', () => {
    expect(read(CODESTRAL)).toEqual({
      modelType: 'mamba2', vocabSize: 32768, dModel: 4096, nLayers: 64, layers: Array.from({ length: 64 }, () => 'mamba'), contextLength: null,
      embeddingMultiplier: 1, logitMultiplier: 1, dInner: 8192, nHeads: 128, headDim: 64, dState: 128, nGroups: 8, dConv: 4,
      dtLimit: [0, Infinity], useBias: false, useConvBias: true, normGroups: 1, normEps: 1e-5, gatedNormEps: 1e-5, tieEmbeddings: false,
      bosTokenId: 0, eosTokenIds: [0]
    })
  })

  test('what is not said is as Mamba2Config has it', () => {
    expect(read({ model_type: 'mamba2', vocab_size: 8, hidden_size: 4096, num_hidden_layers: 1 })).toMatchObject({
      dInner: 8192, nHeads: 128, headDim: 64, dState: 128, nGroups: 8, dConv: 4, dtLimit: [0, Infinity], tieEmbeddings: false, useConvBias: true
    })
  })

  test.each<[string, unknown, readonly number[]]>([
    ['newer versions’ infinity', [0, { __float__: 'Infinity' }], [0, Infinity]], ['a bare infinity', [0, Infinity], [0, Infinity]],
    ['two numbers', [0.001, 0.1], [0.001, 0.1]], ['nothing', null, [0, Infinity]], ['one number twice', [0.5, 0.5], [0.5, 0.5]]
  ])('time_step_limit: %s', (_, value, dtLimit) => expect(read({ ...CODESTRAL, time_step_limit: value })).toMatchObject({ dtLimit }))

  test.each<[string, unknown]>([
    ['one number', [0]], ['three', [0, 1, 2]], ['in the wrong order', [1, 0]], ['NaN', [0, NaN]], ['below zero', [-Infinity, 1]], ['infinite from the start', [Infinity, Infinity]],
    ['strings', ['0', '1']], ['an object', { min: 0 }], ['another object', [0, { __float__: 'NaN' }]], ['a number', 5], ['nested', [[0], [1]]], ['an empty list', []]
  ])('time_step_limit: %s is refused', (_, value) => expectRefused({ ...CODESTRAL, time_step_limit: value }, 'config.json: time_step_limit'))

  test.each(['head_dim', 'num_heads', 'n_groups', 'expand', 'state_size', 'conv_kernel', 'hidden_size'])('%s must be a size', (key) => {
    for (const value of [0, -1, 1.5, 1e9, '64', [64], true]) expectRefused({ ...CODESTRAL, [key]: value }, `config.json: ${key}`)
  })

  test('keys that contradict each other are both named', () => {
    for (const change of [{ num_heads: 64 }, { head_dim: 32 }, { head_dim: 3 }]) {
      expectRefused({ ...CODESTRAL, ...change }, 'num_heads')
      expectRefused({ ...CODESTRAL, ...change }, 'expand')
    }
    expectRefused({ ...CODESTRAL, intermediate_size: 4096 }, 'intermediate_size: expected 8192, which expand makes it, got 4096')
    expectRefused({ ...CODESTRAL, n_groups: 3 }, 'n_groups: expected a divisor of the number of heads 128, got 3')
  })

  test.each(['layer_types', 'layers_block_type'])('%s: state space layers alone, by either name', (key) => {
    const config = { ...CODESTRAL, num_hidden_layers: 2 }
    const models: [string, Config][] = [['mamba2', config], ...['mamba', 'falcon_mamba'].map((type): [string, Config] => [type, { model_type: type, vocab_size: 8, hidden_size: 16, num_hidden_layers: 2 }])]
    for (const [modelType, model] of models) {
      for (const layers of [['mamba', 'mamba'], ['linear_attention', 'linear_attention'], null]) expect(read({ ...model, [key]: layers })).toMatchObject({ modelType, nLayers: 2 })
      for (const layers of [['mamba', 'full_attention'], ['attention', 'mamba'], ['mamba', 5]]) expectRefused({ ...model, [key]: layers }, `config.json: ${key}`, UnsupportedError)
      for (const layers of [['mamba'], 'mamba', {}, 2]) expectRefused({ ...model, [key]: layers }, `config.json: ${key}: expected a list of 2, as num_hidden_layers says`)
    }
  })

  test('norm_groups, as the config of a GGUF file has it', () => {
    expect(read({ ...CODESTRAL, norm_groups: 8 })).toMatchObject({ nGroups: 8, normGroups: 8 })
    expectRefused({ ...CODESTRAL, norm_groups: 3 }, 'config.json: norm_groups: expected a divisor of the inner width 8192, got 3')
  })

  test('another activation is not supported', () => expectRefused({ ...CODESTRAL, hidden_act: 'gelu' }, 'hidden_act', UnsupportedError))
})

describe('the original repository’s form', () => {
  test('is read', () => {
    expect(read(ORIGINAL)).toEqual({
      modelType: 'mamba2', vocabSize: 50288, dModel: 768, nLayers: 24, layers: Array.from({ length: 24 }, () => 'mamba'), contextLength: null,
      embeddingMultiplier: 1, logitMultiplier: 1, dInner: 1536, nHeads: 24, headDim: 64, dState: 128, nGroups: 1, dConv: 4,
      dtLimit: [0, Infinity], useBias: false, useConvBias: true, normGroups: 1, normEps: 1e-5, gatedNormEps: 1e-5, tieEmbeddings: true,
      bosTokenId: null, eosTokenIds: [0]
    })
    const ssm = { layer: 'Mamba2', d_state: 64, d_conv: 3, expand: 3, headdim: 32, ngroups: 8, dt_limit: [0.01, 0.2], bias: true, conv_bias: false, rmsnorm: true }
    expect(read({ ...ORIGINAL, ssm_cfg: ssm, norm_epsilon: 1e-6 })).toMatchObject({
      dInner: 2304, nHeads: 72, headDim: 32, dState: 64, nGroups: 8, normGroups: 8, dConv: 3, dtLimit: [0.01, 0.2], useBias: true, useConvBias: false,
      normEps: 1e-6, gatedNormEps: 1e-5
    })
  })

  test.each<[string, unknown]>([['norm_before_gate', true], ['rmsnorm', false], ['D_has_hdim', true], ['d_ssm', 768]])('%s %s is not supported', (key, value) => {
    expectRefused({ ...ORIGINAL, ssm_cfg: { layer: 'Mamba2', [key]: value } }, `ssm_cfg: ${key}`, UnsupportedError)
  })

  test('mamba2-130m has the parameters and the state of mamba2-130m', () => {
    const { program } = buildModel(read(ORIGINAL), () => false)
    expect(program.parameters.reduce((sum, { shape }) => sum + elementsOf(shape), 0)).toBe(128_989_632)
    expect(program.stateSize).toBe(24 * (24 * 64 * 128 + (1536 + 2 * 128) * 3))
  })

  test('heads and groups that do not fit', () => {
    expectRefused({ ...ORIGINAL, ssm_cfg: { layer: 'Mamba2', headdim: 100 } }, 'headdim')
    expectRefused({ ...ORIGINAL, ssm_cfg: { layer: 'Mamba2', headdim: 4096 } }, 'headdim')
    expectRefused({ ...ORIGINAL, ssm_cfg: { layer: 'Mamba2', ngroups: 5 } }, 'ngroups')
  })

  test('other layers', () => {
    expectRefused({ ...ORIGINAL, ssm_cfg: { layer: 'Mamba3' } }, 'ssm_cfg: layer: expected one of Mamba1, Mamba2', UnsupportedError)
    expectRefused({ ...ORIGINAL, ssm_cfg: { layer: 2 } }, 'ssm_cfg: layer')
    expectRefused({ ...ORIGINAL, attn_layer_idx: [9] }, 'attn_layer_idx', UnsupportedError)
  })

  test('a whole checkpoint gives the bits of the same one in transformers’ form with a norm for each group', async () => {
    const checkpoint = readGolden(`${GROUPS}/model.safetensors`)
    const tensors = checkpoint.names.map((name) => ({ name: name.replace('embeddings', 'embedding'), dtype: 'F32', ...checkpoint.floats(name) }))
    const ssm = { layer: 'Mamba2', d_state: 8, headdim: 8, ngroups: 2, dt_limit: [0, 0.5] }
    const config = { ...ORIGINAL, d_model: 48, n_layer: 2, vocab_size: 160, ssm_cfg: ssm, tie_embeddings: false }
    const files = { 'config.json': new TextEncoder().encode(configText(config)), 'model.safetensors': writeSafetensors(tensors) }
    expectSameBits(await logitsOf(files), await logitsOf(GROUPS, { normGroups: 2 }), 'logits')
  })
})

async function logitsOf(source: string | Record<string, Uint8Array>, options: LoadOptions = {}): Promise<Float32Array> {
  await using mamba = await Mamba.load(source, { threads: 1, ...options })
  return mamba.forward(IDS, { allLogits: true })
}

describe('normGroups', () => {
  test('decides how many columns the gated norm takes together', async () => {
    const whole = await logitsOf(GROUPS)
    expectSameBits(await logitsOf(GROUPS, { normGroups: 1 }), whole, 'one group')
    const grouped = await logitsOf(GROUPS, { normGroups: 2 })
    expect(relativeError(grouped, whole)).toBeGreaterThan(1e-3)
    const reference = await logitsOf(GROUPS, { normGroups: 2, backend: 'reference' })
    expect(relativeError(grouped, reference)).toBeLessThan(1e-5)
    await using mamba = await Mamba.load(GROUPS, { normGroups: 2 })
    expect(mamba.config).toMatchObject({ nGroups: 2, normGroups: 2 })
  })

  test('is refused where it does not fit', async () => {
    for (const normGroups of [0, -1, 1.5, NaN, '2' as unknown as number]) {
      const error = await reasonOf(() => Mamba.load(GROUPS, { normGroups }))
      expect(error).toBeInstanceOf(RangeError)
      expect(String(error)).toContain('normGroups')
    }
    expect(String(await reasonOf(() => Mamba.load(GROUPS, { normGroups: 5 })))).toBe('RangeError: normGroups: expected a divisor of the inner width 96, got 5')
    const error = await reasonOf(() => loadTiny({}, { normGroups: 1 }))
    expect(error).toBeInstanceOf(UnsupportedError)
    expect(String(error)).toContain('normGroups')
  })

  test('leaves a config as it is where it is not given', () => {
    const config = read(CODESTRAL)
    expect(overrideConfig(config, {})).toBe(config)
    expect(overrideConfig(config, { normGroups: 8 })).toEqual({ ...config, normGroups: 8 })
  })
})

test('a checkpoint whose in_proj has more parts than the config says is refused by name', async () => {
  const files = filesOf(GROUPS)
  const config = JSON.parse(new TextDecoder().decode(files['config.json'])) as Config
  const error = await reasonOf(() => Mamba.load({ ...files, 'config.json': new TextEncoder().encode(configText({ ...config, n_groups: 1 })) }))
  expect(error).toBeInstanceOf(CheckpointError)
  expect(String(error)).toContain('backbone.layers.0.mixer.in_proj.weight: expected a tensor (220, 48), got (236, 48)')
})
