/** Granite 4 (IBM, 2025): Bamba's layers with a shared SwiGLU block and, in the larger models, a mixture of experts beside it; fixed factors. */

import type { View } from '../program/ops.ts'
import { UnsupportedError, describe } from '../errors.ts'
import { type Architecture, DECODER } from './architecture.ts'
import { addAttention, type AttentionConfig, readAttention, readRotary, type RotaryConfig } from './attention.ts'
import { readBambaMixer } from './bamba.ts'
import { type CommonConfig, readCommonConfig } from './config.ts'
import type { ConfigReader } from './config-reader.ts'
import { layersOf } from './layers.ts'
import { addMamba2Mixer, type Mamba2MixerConfig, withMixerNormGroups } from './mamba2.ts'
import { addMlp, type MlpConfig } from './mlp.ts'
import { addExperts, type ExpertsConfig, readTopK } from './moe.ts'
import { addBranch, addNormed, type Scope } from './scope.ts'

/** Granite 4: Mamba-2 or attention, then an MLP with or without experts. */
export interface GraniteConfig extends CommonConfig {
  readonly modelType: 'granitemoehybrid'
  readonly mamba: Mamba2MixerConfig
  readonly attention: AttentionConfig
  readonly mlp: MlpConfig
  /** null in the dense models. */
  readonly experts: ExpertsConfig | null
  /** Factor of what each block adds to the residual. */
  readonly residualMultiplier: number
}

const MLP_NAMES = { gateUp: 'input_linear', down: 'output_linear' }
const EXPERT_NAMES = { router: 'router.layer', gateUp: 'input_linear.weight', down: 'output_linear.weight' }
/** GGUF files have gate and up apart. */
const APART = { gate: 'gate_proj', up: 'up_proj', down: 'output_linear' }
const EXPERTS_APART = { router: 'router.layer', gate: 'gate_proj.weight', up: 'up_proj.weight', down: 'output_linear.weight' }

/** transformers' `GraniteMoeHybridConfig`. */
function readGraniteConfig(reader: ConfigReader): GraniteConfig {
  const common = readCommonConfig(reader, {
    tieEmbeddings: false, normEps: ['rms_norm_eps', 1e-6], readLayers: layersOf({ kinds: ['mamba', 'attention'], fallback: () => 'mamba' }), contextLength: 2048
  })
  const { dModel, normEps } = common
  reader.only('hidden_act', 'silu')
  reader.only('normalization_function', 'rmsnorm')
  const attention = readAttention(reader, { dModel, nKvHeads: null })
  return {
    ...common,
    modelType: 'granitemoehybrid',
    embeddingMultiplier: reader.number('embedding_multiplier', 1),
    logitMultiplier: 1 / reader.positive('logits_scaling', 1),
    residualMultiplier: reader.number('residual_multiplier', 1),
    mamba: readBambaMixer(reader, { dInner: dModel * reader.size('mamba_expand', { fallback: 2 }), dInnerKey: 'mamba_expand', normEps }),
    attention: { ...attention, scale: reader.number('attention_multiplier', 1), rotary: readPositions(reader, attention.headDim) },
    mlp: { dHidden: reader.size('shared_intermediate_size', { fallback: 1024 }), activation: 'silu', useBias: false },
    experts: readExperts(reader)
  }
}

function readPositions(reader: ConfigReader, headDim: number): RotaryConfig | null {
  const type = reader.text('position_embedding_type', 'nope')
  if (type === 'nope') return null
  if (type === 'rope') return readRotary(reader, headDim)
  throw new UnsupportedError({ place: `${reader.place}: position_embedding_type`, expected: '"rope" or "nope"', got: describe(type) })
}

function readExperts(reader: ConfigReader): ExpertsConfig | null {
  const nExperts = reader.size('num_local_experts', { fallback: 8, least: 0, limit: 'experts' })
  if (nExperts === 0) return null
  const topK = readTopK(reader, { key: 'num_local_experts', nExperts })
  return { nExperts, topK, dHidden: reader.size('intermediate_size', { fallback: 11_008 }), softmaxOver: 'chosen' }
}

function addGraniteLayer(layers: Scope, config: GraniteConfig, residual: View, index: number): void {
  const scope = layers.below(`${index}`)
  const { normEps, mamba, attention, mlp, experts, residualMultiplier } = config
  const x = addNormed(scope, 'input_layernorm', residual, normEps)
  addBranch(scope, residual, residualMultiplier, (target) =>
    config.layers[index] === 'mamba'
      ? addMamba2Mixer(scope.below('mamba'), mamba, { x, target })
      : addAttention(scope.below('self_attn'), attention, { x, target })
  )
  const mixed = addNormed(scope, 'post_attention_layernorm', residual, normEps)
  addBranch(scope, residual, residualMultiplier, (target) => {
    const isApart = scope.has('shared_mlp.gate_proj.weight')
    addMlp(scope.below('shared_mlp'), mlp, { names: isApart ? APART : MLP_NAMES, x: mixed, target })
    const names = isApart ? EXPERTS_APART : EXPERT_NAMES
    if (experts) addExperts(scope.below('block_sparse_moe'), experts, { names, x: mixed, target: { ...target, accumulate: true } })
  })
}

export const granite: Architecture<GraniteConfig> = {
  frame: { ...DECODER, lastNorm: 'model.norm' },
  readConfig: readGraniteConfig,
  addLayer: addGraniteLayer,
  withNormGroups: withMixerNormGroups
}
