/** Bamba (IBM, 2024): layers of Mamba-2 or attention, each followed by a SwiGLU block. Its keys for Mamba-2 are Falcon-H1's and Granite 4's too. */

import type { View } from '../program/ops.ts'
import { type Architecture, DECODER } from './architecture.ts'
import { addAttention, type AttentionConfig, readAttention, readRotary } from './attention.ts'
import { agree, type CommonConfig, readCommonConfig } from './config.ts'
import type { ConfigReader } from './config-reader.ts'
import { layersOf } from './layers.ts'
import { addMamba2Mixer, checkGroups, type Mamba2MixerConfig, readLimits, readNormGroups, withMixerNormGroups } from './mamba2.ts'
import { addMlp, GATED_NAMES, type MlpConfig } from './mlp.ts'
import { addBranch, addNormed, type Scope } from './scope.ts'

/** Bamba: Mamba-2 layers, attention in some of them. */
export interface BambaConfig extends CommonConfig {
  readonly modelType: 'bamba'
  readonly mamba: Mamba2MixerConfig
  readonly attention: AttentionConfig
  readonly mlp: MlpConfig
}

/** transformers' `BambaConfig`. */
function readBambaConfig(reader: ConfigReader): BambaConfig {
  const common = readCommonConfig(reader, {
    tieEmbeddings: false, normEps: ['rms_norm_eps', 1e-5], readLayers: layersOf({ kinds: ['mamba', 'attention'], fallback: () => 'mamba' }), contextLength: 262_144
  })
  const { dModel, normEps } = common
  reader.only('hidden_act', 'silu')
  const attention = readAttention(reader, { dModel, nKvHeads: 8 })
  return {
    ...common,
    modelType: 'bamba',
    mamba: readBambaMixer(reader, { dInner: dModel * reader.size('mamba_expand', { fallback: 2 }), dInnerKey: 'mamba_expand', normEps }),
    // Half of each head, as the class has it whatever else is said.
    attention: { ...attention, rotary: readRotary(reader, attention.headDim, { part: 0.5 }) },
    mlp: { dHidden: reader.size('intermediate_size', { fallback: 14_336 }), activation: 'silu', useBias: reader.flag('mlp_bias', false) }
  }
}

/** The keys `mamba_*` and `time_step_limit`; `dInnerKey` is the one that says the inner width. The gated norm takes the whole width. */
export function readBambaMixer(reader: ConfigReader, { dInner, dInnerKey, normEps }: { readonly dInner: number; readonly dInnerKey: string; readonly normEps: number }): Mamba2MixerConfig {
  const nHeads = reader.size('mamba_n_heads', { fallback: 128 })
  const isAuto = !reader.has('mamba_d_head') || reader.raw('mamba_d_head') === 'auto'
  const headDim = isAuto ? Math.max(1, Math.floor(dInner / nHeads)) : reader.size('mamba_d_head')
  agree(reader, 'mamba_n_heads', nHeads, { key: dInnerKey, expected: dInner / headDim })
  const nGroups = reader.size('mamba_n_groups', { fallback: 1 })
  checkGroups(reader, 'mamba_n_groups', nGroups, nHeads)
  return {
    dInner, nHeads, headDim, nGroups,
    dState: reader.size('mamba_d_state', { fallback: 256 }),
    dConv: reader.size('mamba_d_conv', { fallback: 4 }),
    dtLimit: readLimits(reader, 'time_step_limit'),
    useBias: reader.flag('mamba_proj_bias', false),
    useConvBias: reader.flag('mamba_conv_bias', true),
    normGroups: readNormGroups(reader, dInner, 1),
    gatedNormEps: normEps
  }
}

function addBambaLayer(layers: Scope, config: BambaConfig, residual: View, index: number): void {
  const scope = layers.below(`${index}`)
  const { normEps, mamba, attention, mlp } = config
  const x = addNormed(scope, 'input_layernorm', residual, normEps)
  addBranch(scope, residual, 1, (target) =>
    config.layers[index] === 'mamba'
      ? addMamba2Mixer(scope.below('mamba'), mamba, { x, target })
      : addAttention(scope.below('self_attn'), attention, { x, target })
  )
  const mixed = addNormed(scope, 'pre_ff_layernorm', residual, normEps)
  addBranch(scope, residual, 1, (target) => addMlp(scope.below('feed_forward'), mlp, { names: GATED_NAMES, x: mixed, target }))
}

export const bamba: Architecture<BambaConfig> = {
  frame: DECODER,
  readConfig: readBambaConfig,
  addLayer: addBambaLayer,
  withNormGroups: withMixerNormGroups
}
