/** Nemotron-H (NVIDIA, 2025): each layer is one thing, Mamba-2, attention without positions or a feed-forward block with squared relu. */

import type { View } from '../program/ops.ts'
import { type Architecture, BACKBONE } from './architecture.ts'
import { addAttention, type AttentionConfig, readAttention } from './attention.ts'
import { type CommonConfig, readCommonConfig, sameBySeveral } from './config.ts'
import type { ConfigReader } from './config-reader.ts'
import { layersOf } from './layers.ts'
import { addMamba2Mixer, checkGroups, type Mamba2MixerConfig, readFlooredLimits, readNormGroups, withMixerNormGroups } from './mamba2.ts'
import { addMlp, type MlpConfig, PLAIN_NAMES } from './mlp.ts'
import { addBranch, addNormed, type Scope } from './scope.ts'

/** Nemotron-H: each layer is Mamba-2, attention or an MLP. */
export interface NemotronHConfig extends CommonConfig {
  readonly modelType: 'nemotron_h'
  readonly mamba: Mamba2MixerConfig
  readonly attention: AttentionConfig
  readonly mlp: MlpConfig
}

/** transformers' `NemotronHConfig`, also by the keys of NVIDIA's own code. Layers of experts ("moe", "E") are not built. */
function readNemotronHConfig(reader: ConfigReader): NemotronHConfig {
  const common = readCommonConfig(reader, {
    tieEmbeddings: false, normEps: [sameBySeveral(reader, ['layer_norm_epsilon', 'rms_norm_eps']), 1e-5], readLayers: layersOf({ kinds: ['mamba', 'attention', 'mlp'], fallback: null }), contextLength: 4096
  })
  const { dModel } = common
  reader.only('mamba_hidden_act', 'silu')
  reader.only('mlp_hidden_act', 'relu2')
  reader.none('sliding_window')
  reader.only('num_nextn_predict_layers', 0)
  return {
    ...common,
    modelType: 'nemotron_h',
    mamba: readMixer(reader, common.normEps),
    attention: readAttention(reader, { dModel, nKvHeads: 8, headDimKeys: ['head_dim', 'attention_head_dim'], headDim: 128 }),
    mlp: { dHidden: reader.size('intermediate_size', { fallback: 21_504 }), activation: 'relu2', useBias: reader.flag('mlp_bias', false) }
  }
}

/** The inner width is that of the heads, whatever `expand` says. */
function readMixer(reader: ConfigReader, normEps: number): Mamba2MixerConfig {
  const nHeads = reader.size('mamba_num_heads', { fallback: 128 })
  const headDim = reader.size('mamba_head_dim', { fallback: 64 })
  const dInner = nHeads * headDim
  const groupsKey = sameBySeveral(reader, ['n_groups', 'mamba_n_groups'])
  const nGroups = reader.size(groupsKey, { fallback: 8 })
  checkGroups(reader, groupsKey, nGroups, nHeads)
  return {
    dInner, nHeads, headDim, nGroups,
    dState: reader.size('ssm_state_size', { fallback: 128 }),
    dConv: reader.size(sameBySeveral(reader, ['conv_kernel', 'mamba_d_conv']), { fallback: 4 }),
    dtLimit: readFlooredLimits(reader, {
      limit: sameBySeveral(reader, ['time_step_limit', 'mamba_dt_limit']), least: sameBySeveral(reader, ['time_step_min', 'mamba_dt_min'])
    }),
    useBias: reader.flag('use_bias', false),
    useConvBias: reader.flag(sameBySeveral(reader, ['use_conv_bias', 'mamba_conv_bias']), true),
    normGroups: readNormGroups(reader, dInner, nGroups),
    gatedNormEps: normEps
  }
}

function addNemotronHLayer(layers: Scope, config: NemotronHConfig, residual: View, index: number): void {
  const scope = layers.below(`${index}`)
  const { normEps, mamba, attention, mlp } = config
  const x = addNormed(scope, 'norm', residual, normEps)
  const mixer = scope.below('mixer')
  addBranch(scope, residual, 1, (target) => {
    const kind = config.layers[index]
    if (kind === 'mamba') addMamba2Mixer(mixer, mamba, { x, target })
    else if (kind === 'attention') addAttention(mixer, attention, { x, target })
    else addMlp(mixer, mlp, { names: PLAIN_NAMES, x, target })
  })
}

export const nemotronH: Architecture<NemotronHConfig> = {
  frame: { ...BACKBONE, marks: 'inputs' },
  readConfig: readNemotronHConfig,
  addLayer: addNemotronHLayer,
  withNormGroups: withMixerNormGroups
}
