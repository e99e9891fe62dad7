/**
 * Falcon-H1 (TII, 2025): Mamba-2 and attention side by side in every layer, then a SwiGLU block, with a fixed factor on almost every edge
 * (maximal update parametrization).
 */

import { UnsupportedError } from '../errors.ts'
import type { View } from '../program/ops.ts'
import { type Architecture, DECODER } from './architecture.ts'
import { addAttention, type AttentionConfig, readAttention, readRotary } from './attention.ts'
import { readBambaMixer } from './bamba.ts'
import { type CommonConfig, readCommonConfig } from './config.ts'
import type { ConfigReader } from './config-reader.ts'
import { layersOf } from './layers.ts'
import { addMamba2Mixer, type Mamba2MixerConfig, type Mamba2Multipliers, readNormGroups, withMixerNormGroups } from './mamba2.ts'
import { addMlp, GATED_NAMES, type MlpConfig } from './mlp.ts'
import { addBranch, addNormed, type Scope, scaled } from './scope.ts'

/** Falcon-H1: Mamba-2 and attention side by side in every layer. */
export interface FalconH1Config extends CommonConfig {
  readonly modelType: 'falcon_h1'
  readonly mamba: Mamba2MixerConfig
  /** A bias on Mamba-2's out_proj. */
  readonly useOutBias: boolean
  /** The factor of the keys is in its scale. */
  readonly attention: AttentionConfig
  readonly mlp: MlpConfig
  readonly multipliers: {
    readonly mamba: Mamba2Multipliers
    readonly mambaOut: number
    readonly attentionIn: number
    readonly attentionOut: number
    readonly mlpGate: number
    readonly mlpOut: number
  }
}

/** transformers' `FalconH1Config`. */
function readFalconH1Config(reader: ConfigReader): FalconH1Config {
  const common = readCommonConfig(reader, {
    tieEmbeddings: false, normEps: ['rms_norm_eps', 1e-5], readLayers: layersOf({ kinds: ['hybrid'], fallback: () => 'hybrid' }), contextLength: 8192
  })
  const { dModel } = common
  reader.only('hidden_act', 'silu')
  const factor = (key: string): number => reader.number(key, 1)
  const attention = readAttention(reader, { dModel, nKvHeads: 8 })
  const [mlpGate, mlpOut] = reader.numbers('mlp_multipliers', [1, 1])
  const [z, x, B, C, dt] = reader.numbers('ssm_multipliers', [1, 1, 1, 1, 1])
  return {
    ...common,
    modelType: 'falcon_h1',
    embeddingMultiplier: factor('embedding_multiplier'),
    logitMultiplier: factor('lm_head_multiplier'),
    mamba: readMixer(reader, common),
    useOutBias: reader.flag('projectors_bias', false),
    attention: { ...attention, scale: attention.scale * factor('key_multiplier'), rotary: readRotary(reader, attention.headDim) },
    mlp: { dHidden: reader.size('intermediate_size', { fallback: 14_336 }), activation: 'silu', useBias: reader.flag('mlp_bias', false) },
    multipliers: {
      mamba: { input: factor('ssm_in_multiplier'), z, x, B, C, dt },
      mambaOut: factor('ssm_out_multiplier'),
      attentionIn: factor('attention_in_multiplier'),
      attentionOut: factor('attention_out_multiplier'),
      mlpGate,
      mlpOut
    }
  }
}

/** The gated norm is one of each group by itself, where there is one: else the gate stands alone. */
function readMixer(reader: ConfigReader, { dModel, normEps }: Omit<CommonConfig, 'modelType'>): Mamba2MixerConfig {
  // null asks for the expanded width, an absent key for the class's own number.
  const isExpanded = reader.raw('mamba_d_ssm') === null
  const dInner = isExpanded ? dModel * reader.size('mamba_expand', { fallback: 2 }) : reader.size('mamba_d_ssm', { fallback: 1024 })
  const mixer = readBambaMixer(reader, { dInner, dInnerKey: isExpanded ? 'mamba_expand' : 'mamba_d_ssm', normEps })
  if (!reader.flag('mamba_rms_norm', false)) return { ...mixer, gatedNormEps: null }
  if (reader.flag('mamba_norm_before_gate', true)) {
    throw new UnsupportedError({ place: `${reader.place}: mamba_norm_before_gate`, expected: 'false where mamba_rms_norm is true', got: 'true' })
  }
  return { ...mixer, normGroups: readNormGroups(reader, dInner, mixer.nGroups) }
}

function addFalconH1Layer(layers: Scope, config: FalconH1Config, residual: View, index: number): void {
  const scope = layers.below(`${index}`)
  const { normEps, mamba, attention, mlp, multipliers, useOutBias } = config
  const x = addNormed(scope, 'input_layernorm', residual, normEps)
  addBranch(scope, residual, multipliers.mambaOut, (target) =>
    addMamba2Mixer(scope.below('mamba'), mamba, { x, target, useOutBias, multipliers: multipliers.mamba })
  )
  addBranch(scope, residual, multipliers.attentionOut, (target) =>
    addAttention(scope.below('self_attn'), attention, { x: scaled(scope, x, multipliers.attentionIn), target })
  )
  const mixed = addNormed(scope, 'pre_ff_layernorm', residual, normEps)
  addBranch(scope, residual, multipliers.mlpOut, (target) =>
    addMlp(scope.below('feed_forward'), mlp, { names: GATED_NAMES, x: mixed, target, gateMultiplier: multipliers.mlpGate })
  )
}

export const falconH1: Architecture<FalconH1Config> = {
  frame: DECODER,
  readConfig: readFalconH1Config,
  addLayer: addFalconH1Layer,
  withNormGroups: withMixerNormGroups
}
