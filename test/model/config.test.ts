/** What a config.json may say, and what is refused: each error names the file and the key. */
import { describe, expect, test } from 'vitest'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import { Mamba } from '../../src/mamba.ts'
import { readModelConfig } from '../support/architectures.ts'
import { reasonOf } from '../support/anything.ts'
import { type Config, loadTiny, tinyConfig, tinyFiles } from '../support/tiny-checkpoint.ts'

/** A config of the original repository, of the same model. */
function originalConfig(): Config {
  return { d_model: 32, n_layer: 3, vocab_size: 160, ssm_cfg: {}, rms_norm: true, residual_in_fp32: true, fused_add_norm: true, pad_vocab_size_multiple: 8 }
}

const NO_SIZES: [string, unknown][] = [
  ['0', 0], ['a negative', -4], ['1e9', 1e9], ['1e300', 1e300], ['NaN', NaN], ['Infinity', Infinity], ['a fraction', 32.5], ['a string', '32'],
  ['a word', 'many'], ['an array', [32]], ['an object', { size: 32 }], ['true', true]
]
const NO_NUMBERS: [string, unknown][] = [['0', 0], ['a negative', -1e-5], ['NaN', NaN], ['Infinity', Infinity], ['a string', '1e-5'], ['an array', [1e-5]], ['true', true]]
const NO_FLAGS: [string, unknown][] = [['a number', 1], ['a string', 'true'], ['an array', [true]], ['an object', {}]]

async function expectRefused(config: Config, key: string, type: typeof CheckpointError | typeof UnsupportedError = CheckpointError): Promise<void> {
  const error = await reasonOf(() => loadTiny({ config }))
  expect(error).toBeInstanceOf(type)
  expect(error).toMatchObject({ name: type.name })
  expect(String(error)).toContain('config.json')
  expect(String(error)).toContain(key)
}

describe('sizes of transformers’ form', () => {
  describe.each(['vocab_size', 'hidden_size', 'num_hidden_layers', 'intermediate_size', 'expand', 'state_size', 'conv_kernel', 'time_step_rank'])('%s', (key) => {
    test.each(NO_SIZES)('%s', async (_, value) => {
      // What `expand` says does not matter beside an intermediate_size.
      const { intermediate_size: inner, ...others } = tinyConfig()
      await expectRefused({ ...others, ...(key === 'expand' ? {} : { intermediate_size: inner }), [key]: value }, key)
    })
  })

  test.each(['vocab_size', 'hidden_size', 'num_hidden_layers'])('%s must be there', async (key) => {
    const { [key]: _, ...others } = tinyConfig()
    await expectRefused(others, key)
    await expectRefused({ ...others, [key]: null }, key)
  })

  test('others have the defaults of transformers', () => {
    const { intermediate_size: _a, expand: _b, state_size: _c, conv_kernel: _d, use_bias: _e, use_conv_bias: _f, time_step_rank: _g, ...others } = tinyConfig()
    const config = { ...others, hidden_size: 40, layer_norm_epsilon: undefined, tie_word_embeddings: undefined }
    expect(readModelConfig(JSON.parse(JSON.stringify(config)))).toMatchObject({
      dInner: 80, dState: 16, dConv: 4, useBias: false, useConvBias: true, dtRank: 3, normEps: 1e-5, tieEmbeddings: true
    })
  })

  test.each([[32, 2], [33, 3], [16, 1], [1, 1], [768, 48]])('time_step_rank "auto" of %i is %i', (dModel, dtRank) => {
    for (const value of ['auto', null]) {
      expect(readModelConfig({ model_type: 'mamba', vocab_size: 8, hidden_size: dModel, num_hidden_layers: 1, time_step_rank: value })).toMatchObject({ dtRank })
    }
  })

  test('"auto" loads', async () => {
    await using mamba = await loadTiny({ config: { ...tinyConfig(), time_step_rank: 'auto' } })
    expect(mamba.config).toMatchObject({ dtRank: 2 })
  })
})

describe('other keys of transformers’ form', () => {
  test.each(NO_NUMBERS)('layer_norm_epsilon: %s', async (_, value) => expectRefused({ ...tinyConfig(), layer_norm_epsilon: value }, 'layer_norm_epsilon'))

  describe.each(['use_bias', 'use_conv_bias', 'tie_word_embeddings'])('%s', (key) => {
    test.each(NO_FLAGS)('%s', async (_, value) => expectRefused({ ...tinyConfig(), [key]: value }, key))
  })

  describe.each(['eos_token_id', 'bos_token_id'])('%s', (key) => {
    test.each([['a fraction', 1.5], ['a string', '2'], ['NaN', NaN], ['an object', {}], ['some strings', ['2']], ['a nested array', [[2]]], ['true', true], ['very negative', -100]])('%s', async (_, value) => expectRefused({ ...tinyConfig(), [key]: value }, key))
  })

  test('ends of text: none, one or several; those beyond the vocabulary never come', () => {
    for (const [value, ids] of [[null, []], [undefined, []], [7, [7]], [[7, 9], [7, 9]], [[], []], [50_256, [50_256]]]) {
      expect(readModelConfig(JSON.parse(JSON.stringify({ ...tinyConfig(), eos_token_id: value }))).eosTokenIds).toEqual(ids)
    }
  })

  test.each([['gelu'], ['relu'], [1], [['silu']]])('hidden_act %s is not supported', async (value) => expectRefused({ ...tinyConfig(), hidden_act: value }, 'hidden_act', UnsupportedError))

  test.each([['llama'], ['MAMBA'], [''], ['__proto__'], ['toString']])('model_type "%s" is not supported', async (value) => expectRefused({ ...tinyConfig(), model_type: value }, 'model_type', UnsupportedError))

  test.each([['a number', 5], ['an array', ['mamba']], ['true', true]])('model_type that is %s', async (_, value) => expectRefused({ ...tinyConfig(), model_type: value }, 'model_type'))

  test('no model_type at all', async () => {
    const { model_type: _, ...others } = tinyConfig()
    await expectRefused(others, 'model_type', UnsupportedError)
    await expectRefused({}, 'model_type', UnsupportedError)
  })
})

describe('falcon_mamba', () => {
  const falcon = { ...tinyConfig(), model_type: 'falcon_mamba' }

  test('has norms of their own on dt, B and C', () => {
    expect(readModelConfig(JSON.parse(JSON.stringify({ ...falcon, mixer_rms_eps: 1e-4 })))).toMatchObject({ modelType: 'falcon_mamba', mixerNormEps: 1e-4 })
    expect(readModelConfig(JSON.parse(JSON.stringify(falcon)))).toMatchObject({ modelType: 'falcon_mamba', mixerNormEps: 1e-6 })
    expect(readModelConfig(JSON.parse(JSON.stringify(tinyConfig())))).toMatchObject({ modelType: 'mamba', mixerNormEps: null })
  })

  test.each(NO_NUMBERS)('mixer_rms_eps: %s', async (_, value) => expectRefused({ ...falcon, mixer_rms_eps: value }, 'mixer_rms_eps'))
})

describe('the original repository’s form', () => {
  test('is read', () => {
    expect(readModelConfig(JSON.parse(JSON.stringify({ ...originalConfig(), vocab_size: 157 })))).toMatchObject({
      modelType: 'mamba', vocabSize: 160, dModel: 32, nLayers: 3, dInner: 64, dState: 16, dConv: 4, dtRank: 2, normEps: 1e-5, tieEmbeddings: true,
      useBias: false, useConvBias: true
    })
    const ssm = { layer: 'Mamba1', d_state: 8, d_conv: 3, expand: 3, dt_rank: 5, bias: true, conv_bias: false }
    expect(readModelConfig(JSON.parse(JSON.stringify({ ...originalConfig(), ssm_cfg: ssm, pad_vocab_size_multiple: 1, tie_embeddings: false, norm_epsilon: 1e-6 })))).toMatchObject({
      vocabSize: 160, dInner: 96, dState: 8, dConv: 3, dtRank: 5, useBias: true, useConvBias: false, tieEmbeddings: false, normEps: 1e-6
    })
  })

  describe.each(['d_model', 'n_layer', 'vocab_size', 'pad_vocab_size_multiple'])('%s', (key) => {
    test.each(NO_SIZES)('%s', async (_, value) => expectRefused({ ...originalConfig(), [key]: value }, key))
  })

  describe.each(['d_state', 'd_conv', 'expand', 'dt_rank'])('ssm_cfg.%s', (key) => {
    test.each(NO_SIZES)('%s', async (_, value) => expectRefused({ ...originalConfig(), ssm_cfg: { [key]: value } }, key))
  })

  test.each([['a string', 'Mamba1'], ['an array', []], ['a number', 1]])('ssm_cfg that is %s', async (_, value) => expectRefused({ ...originalConfig(), ssm_cfg: value }, 'ssm_cfg'))

  test('other kinds of layers are not supported', async () => {
    await expectRefused({ ...originalConfig(), ssm_cfg: { layer: 'Mamba3' } }, 'layer', UnsupportedError)
    await expectRefused({ ...originalConfig(), attn_layer_idx: [1], attn_cfg: { num_heads: 4 } }, 'attn_layer_idx', UnsupportedError)
    await expectRefused({ ...originalConfig(), d_intermediate: 64 }, 'd_intermediate', UnsupportedError)
    await expectRefused({ ...originalConfig(), rms_norm: false }, 'rms_norm', UnsupportedError)
  })

  test.each([['a number', 1], ['a string', 'all'], ['an object', { 0: 1 }], ['true', true]])('attn_layer_idx that is %s is not passed over', async (_, value) => {
    const error = await reasonOf(() => loadTiny({ config: { ...originalConfig(), attn_layer_idx: value } }))
    expect(String(error)).toContain('attn_layer_idx')
  })
})

describe('a config that is no object', () => {
  test.each(['[]', '5', 'null', '"mamba"', '', '{', '{"a":1}x', '{"model_type":"mamba","model_type":"mamba"}'])('%s', async (text) => {
    const error = await reasonOf(() => Mamba.load({ ...tinyFiles(), 'config.json': new TextEncoder().encode(text) }))
    expect(error).toBeInstanceOf(CheckpointError)
    expect(String(error)).toContain('config.json')
  })
})
