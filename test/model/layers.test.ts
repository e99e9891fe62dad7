/** Every spelling of what a model's layers are, old and new: they mean the same, and those that contradict each other are both named. */
import { describe, expect, test } from 'vitest'
import { UnsupportedError } from '../../src/errors.ts'
import { expectRefused, fixtureConfig, readConfig, without } from '../support/configs.ts'
import type { Config } from '../support/tiny-checkpoint.ts'

const bamba = without(fixtureConfig('bamba'), 'attn_layer_indices')
const granite = without(fixtureConfig('granitemoehybrid'), 'layer_types')
const nemotron = without(fixtureConfig('nemotron_h'), 'layers_block_type')
const jamba = without(fixtureConfig('jamba'), 'attn_layer_period', 'attn_layer_offset')
const zamba2 = without(fixtureConfig('zamba2'), 'layers_block_type', 'hybrid_layer_ids')

const [M, A] = ['mamba', 'attention']

describe('the same layers', () => {
  test.each<[string, Config, Config, readonly string[]]>([
    ['bamba', bamba, { attn_layer_indices: [1] }, [M, A, M]],
    ['bamba', bamba, { layers_block_type: ['mamba', 'attention', 'mamba'] }, [M, A, M]],
    ['bamba', bamba, { layer_types: ['linear_attention', 'full_attention', 'linear_attention'] }, [M, A, M]],
    ['bamba', bamba, { attn_layer_indices: [1], layer_types: ['mamba', 'full_attention', 'linear_attention'] }, [M, A, M]],
    ['bamba', bamba, { attn_layer_indices: null }, [M, M, M]],
    ['bamba', bamba, { attn_layer_indices: [] }, [M, M, M]],
    ['bamba', bamba, {}, [M, M, M]],
    ['granitemoehybrid', granite, { layer_types: ['attention', 'mamba', 'mamba'] }, [A, M, M]],
    ['granitemoehybrid', granite, { layers_block_type: ['full_attention', 'linear_attention', 'linear_attention'] }, [A, M, M]],
    ['granitemoehybrid', granite, { layer_types: null }, [M, M, M]],
    ['nemotron_h', nemotron, { hybrid_override_pattern: 'M-M*' }, [M, 'mlp', M, A]],
    ['nemotron_h', nemotron, { hybrid_override_pattern: 'M-M*', num_hidden_layers: 4 }, [M, 'mlp', M, A]],
    ['nemotron_h', nemotron, { layers_block_type: ['mamba', 'mlp', 'mamba', 'attention'] }, [M, 'mlp', M, A]],
    ['nemotron_h', nemotron, { layer_types: ['linear_attention', '-', 'M', '*'], hybrid_override_pattern: 'M-M*' }, [M, 'mlp', M, A]],
    ['jamba', jamba, { attn_layer_period: 4, attn_layer_offset: 2 }, [M, M, A, M]],
    ['jamba', jamba, { attn_layer_period: 2, attn_layer_offset: 0 }, [A, M, A, M]],
    ['jamba', jamba, { num_hidden_layers: 6 }, [M, M, M, M, A, M]],
    ['jamba', jamba, { layers_block_type: ['mamba', 'mamba', 'attention', 'mamba'] }, [M, M, A, M]],
    ['zamba2', zamba2, { hybrid_layer_ids: [1, 3] }, [M, 'hybrid', M, 'hybrid']],
    ['zamba2', zamba2, { layers_block_type: ['mamba', 'hybrid', 'mamba', 'hybrid'] }, [M, 'hybrid', M, 'hybrid']],
    ['falcon_h1', fixtureConfig('falcon_h1'), {}, ['hybrid', 'hybrid']],
    ['falcon_h1', fixtureConfig('falcon_h1'), { layers_block_type: ['hybrid', 'hybrid'] }, ['hybrid', 'hybrid']],
    ['mamba', fixtureConfig('mamba'), {}, [M, M, M]],
    ['mamba', fixtureConfig('mamba'), { layer_types: ['mamba', 'linear_attention', 'mamba'] }, [M, M, M]],
    ['mamba', without(fixtureConfig('mamba'), 'num_hidden_layers'), { hybrid_override_pattern: 'MM' }, [M, M]],
    ['falcon_mamba', fixtureConfig('falcon_mamba'), { attn_layer_indices: [] }, [M, M]],
    ['mamba2', fixtureConfig('mamba2'), { layer_types: null }, [M, M, M]]
  ])('%s: %#', (modelType, config, keys, layers) => {
    expect(readConfig({ ...config, ...keys })).toMatchObject({ modelType, layers, nLayers: layers.length })
  })
})

describe('contradictions name both keys', () => {
  test.each<[Config, Config, readonly string[]]>([
    [bamba, { attn_layer_indices: [1], layers_block_type: ['mamba', 'mamba', 'attention'] }, ['attn_layer_indices', 'layers_block_type', 'layer 1']],
    [bamba, { layer_types: ['mamba', 'attention', 'mamba'], layers_block_type: ['mamba', 'mamba', 'mamba'] }, ['layer_types', 'layers_block_type']],
    [nemotron, { hybrid_override_pattern: 'M-M*', layers_block_type: ['mamba', 'mlp', 'attention', 'attention'] }, ['hybrid_override_pattern', 'layers_block_type', 'layer 2']],
    [nemotron, { hybrid_override_pattern: 'M-M*', num_hidden_layers: 5 }, ['hybrid_override_pattern', 'num_hidden_layers', '5']],
    [nemotron, { layers_block_type: ['mamba', 'mlp'], num_hidden_layers: 4 }, ['layers_block_type', 'num_hidden_layers']],
    [jamba, { attn_layer_period: 4, attn_layer_offset: 2, layers_block_type: ['attention', 'mamba', 'mamba', 'mamba'] }, ['attn_layer_period', 'layers_block_type']],
    [jamba, { attn_layer_period: 4, attn_layer_offset: 4 }, ['attn_layer_offset', 'attn_layer_period 4']],
    // The default of the offset is 4.
    [jamba, { attn_layer_period: 3 }, ['attn_layer_offset', 'attn_layer_period 3']],
    [jamba, { expert_layer_period: 1 }, ['expert_layer_offset', 'expert_layer_period 1']],
    [zamba2, { hybrid_layer_ids: [1], layers_block_type: ['mamba', 'hybrid', 'mamba', 'hybrid'] }, ['hybrid_layer_ids', 'layers_block_type', 'layer 3']]
  ])('%#', (config, keys, parts) => expectRefused({ ...config, ...keys }, parts))
})

describe('refused', () => {
  test.each<[Config, Config, string]>([
    [nemotron, { hybrid_override_pattern: 'MEM*' }, 'hybrid_override_pattern'],
    [nemotron, { layers_block_type: ['mamba', 'moe'] }, 'layers_block_type'],
    [nemotron, { layers_block_type: ['mamba', 'hybrid'] }, 'layers_block_type'],
    [bamba, { layer_types: ['mamba', 'mlp', 'mamba'] }, 'layer_types'],
    [bamba, { layer_types: ['mamba', 'sliding_attention', 'mamba'] }, 'layer_types'],
    [zamba2, { layers_block_type: ['mamba', 'attention', 'mamba', 'hybrid'] }, 'layers_block_type'],
    [fixtureConfig('falcon_h1'), { layers_block_type: ['hybrid', 'mamba'] }, 'layers_block_type'],
    [fixtureConfig('mamba'), { attn_layer_indices: [1] }, 'attn_layer_indices'],
    [granite, { layer_types: [1, 2, 3] }, 'layer_types']
  ])('a kind that the architecture has not: %#', (config, keys, key) => expectRefused({ ...config, ...keys }, [`config.json: ${key}`], UnsupportedError))

  test.each<[Config, Config, string]>([
    [bamba, { layer_types: 'mamba' }, 'layer_types'],
    [bamba, { attn_layer_indices: [3] }, 'attn_layer_indices'],
    [bamba, { attn_layer_indices: [-1] }, 'attn_layer_indices'],
    [bamba, { attn_layer_indices: [0.5] }, 'attn_layer_indices'],
    [bamba, { attn_layer_indices: 1 }, 'attn_layer_indices'],
    [zamba2, { hybrid_layer_ids: ['1'] }, 'hybrid_layer_ids'],
    [zamba2, {}, 'layers_block_type'],
    [nemotron, {}, 'num_hidden_layers'],
    [nemotron, { num_hidden_layers: 4 }, 'layers_block_type'],
    [nemotron, { hybrid_override_pattern: '' }, 'hybrid_override_pattern'],
    [nemotron, { hybrid_override_pattern: ['M'] }, 'hybrid_override_pattern'],
    [nemotron, { layers_block_type: [] }, 'layers_block_type'],
    [jamba, { attn_layer_period: 0 }, 'attn_layer_period'],
    [jamba, { attn_layer_offset: -1 }, 'attn_layer_offset']
  ])('what is no account of layers: %#', (config, keys, key) => expectRefused({ ...config, ...keys }, [`config.json: ${key}`]))
})
