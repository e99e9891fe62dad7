/** Jamba (AI21, 2024): layers of Mamba-1 with learned norms on dt, B and C, or attention without positions; then SwiGLU or experts. */

import { CheckpointError } from '../errors.ts'
import type { View } from '../program/ops.ts'
import { type Architecture, DECODER } from './architecture.ts'
import { addAttention, type AttentionConfig, readAttention } from './attention.ts'
import { type CommonConfig, readCommonConfig } from './config.ts'
import type { ConfigReader } from './config-reader.ts'
import { layersOf, readPeriodic } from './layers.ts'
import { addMamba1Mixer, type Mamba1MixerConfig, readDtRank } from './mamba1.ts'
import { addMlp, GATED_NAMES, type MlpConfig } from './mlp.ts'
import { addExperts, type ExpertsConfig, readTopK } from './moe.ts'
import { addBranch, addNormed, type Scope } from './scope.ts'

/** Jamba: Mamba-1 or attention, then an MLP or experts. */
export interface JambaConfig extends CommonConfig {
  readonly modelType: 'jamba'
  readonly mamba: Mamba1MixerConfig
  readonly attention: AttentionConfig
  readonly mlp: MlpConfig
  /** null where no layer has any. */
  readonly experts: ExpertsConfig | null
  /** Layers with experts in place of the one block. */
  readonly expertLayers: readonly number[]
}

const PART_NORMS = ['dt_layernorm', 'b_layernorm', 'c_layernorm'] as const

const EXPERT_NAMES = {
  router: 'router',
  each: (expert: number) => ({ gate: `experts.${expert}.gate_proj.weight`, up: `experts.${expert}.up_proj.weight`, down: `experts.${expert}.down_proj.weight` })
}
/** GGUF files have all experts in one. */
const STACKED_NAMES = { router: 'router', gate: 'experts.gate_proj.weight', up: 'experts.up_proj.weight', down: 'experts.down_proj.weight' }

/** Each has three tensors of its own. */
const MAX_EXPERTS = 2 ** 16

/** transformers' `JambaConfig`. */
function readJambaConfig(reader: ConfigReader): JambaConfig {
  const isAttention = readPeriodic(reader, { period: ['attn_layer_period', 8], offset: ['attn_layer_offset', 4] })
  const common = readCommonConfig(reader, {
    tieEmbeddings: false, normEps: ['rms_norm_eps', 1e-6], contextLength: 262_144,
    readLayers: layersOf({ kinds: ['mamba', 'attention'], fallback: (i) => (isAttention(i) ? 'attention' : 'mamba') })
  })
  const { dModel, nLayers, normEps } = common
  reader.only('hidden_act', 'silu')
  reader.none('sliding_window')
  const nExperts = reader.size('num_experts', { fallback: 16, limit: 'experts' })
  const expertLayers = nExperts > 1 ? readExpertLayers(reader, nLayers) : []
  if (expertLayers.length * nExperts > MAX_EXPERTS) {
    throw new CheckpointError({ place: `${reader.place}: num_experts`, expected: `at most ${MAX_EXPERTS} experts in all layers`, got: `${nExperts} in ${expertLayers.length}` })
  }
  const dHidden = reader.size('intermediate_size', { fallback: 14_336 })
  return {
    ...common,
    modelType: 'jamba',
    mamba: {
      dInner: dModel * reader.size('mamba_expand', { fallback: 2 }),
      dState: reader.size('mamba_d_state', { fallback: 16 }),
      dConv: reader.size('mamba_d_conv', { fallback: 4 }),
      dtRank: readDtRank(reader, 'mamba_dt_rank', dModel),
      useBias: reader.flag('mamba_proj_bias', false),
      useConvBias: reader.flag('mamba_conv_bias', true),
      mixerNormEps: normEps
    },
    attention: readAttention(reader, { dModel, nKvHeads: 8 }),
    mlp: { dHidden, activation: 'silu', useBias: false },
    experts: expertLayers.length > 0 ? { nExperts, topK: readTopK(reader, { key: 'num_experts', nExperts }), dHidden, softmaxOver: 'all' } : null,
    expertLayers
  }
}

/** By `expert_layer_indices`, a key of our own, which a GGUF file's config has; else by period and offset. */
function readExpertLayers(reader: ConfigReader, nLayers: number): readonly number[] {
  const listed = reader.raw('expert_layer_indices')
  const hasExperts = Array.isArray(listed)
    ? (i: number): boolean => listed.includes(i)
    : readPeriodic(reader, { period: ['expert_layer_period', 2], offset: ['expert_layer_offset', 1] })
  return Array.from({ length: nLayers }, (_, i) => i).filter(hasExperts)
}

function addJambaLayer(layers: Scope, config: JambaConfig, residual: View, index: number): void {
  const scope = layers.below(`${index}`)
  const { normEps, mamba, attention, mlp, experts } = config
  const x = addNormed(scope, 'input_layernorm', residual, normEps)
  addBranch(scope, residual, 1, (target) =>
    config.layers[index] === 'mamba'
      ? addMamba1Mixer(scope.below('mamba'), mamba, { x, target, partNorms: PART_NORMS })
      : addAttention(scope.below('self_attn'), attention, { x, target })
  )
  const mixed = addNormed(scope, 'pre_ff_layernorm', residual, normEps)
  addBranch(scope, residual, 1, (target) =>
    experts && config.expertLayers.includes(index)
      ? addExperts(scope.below('feed_forward'), experts, { names: scope.has('feed_forward.experts.gate_proj.weight') ? STACKED_NAMES : EXPERT_NAMES, x: mixed, target })
      : addMlp(scope.below('feed_forward'), mlp, { names: GATED_NAMES, x: mixed, target })
  )
}

export const jamba: Architecture<JambaConfig> = {
  frame: DECODER,
  readConfig: readJambaConfig,
  addLayer: addJambaLayer
}
