/**
 * Zamba2 (Zyphra, 2024): layers of Mamba-2, some of them led by a transformer block whose weights a few blocks share in turn, each time with
 * adapters of its own. The block reads the residual beside the embedding, and what it makes is an input of the layer's Mamba-2 alone:
 *
 *   embedding ─┐
 *   residual ──┴─► norm ─► attention ─► norm ─► mlp ─► linear ─┐
 *       │                                                      │
 *       ├─────────────────────────────────────────────────────(+)─► norm ─► Mamba-2 ─┐
 *       └───────────────────────────────────────────────────────────────────────────(+)─►
 */

import { columns } from '../program/builder.ts'
import type { View } from '../program/ops.ts'
import { type Architecture, DECODER } from './architecture.ts'
import { addAttention, type AttentionConfig, readAttention, readRotary } from './attention.ts'
import { agree, type CommonConfig, readCommonConfig } from './config.ts'
import type { ConfigReader } from './config-reader.ts'
import { layersOf } from './layers.ts'
import { addMamba2Mixer, checkGroups, type Mamba2MixerConfig, readFlooredLimits, readNormGroups, withMixerNormGroups } from './mamba2.ts'
import { addMlp, type MlpConfig } from './mlp.ts'
import { addBranch, addNormed, type Scope } from './scope.ts'

/** Zamba2: Mamba-2 layers, and attention blocks that they share. */
export interface Zamba2Config extends CommonConfig {
  readonly modelType: 'zamba2'
  readonly mamba: Mamba2MixerConfig
  readonly attention: AttentionConfig
  readonly mlp: MlpConfig
  /** Sets of weights that the hybrid layers take in turn. */
  readonly nBlocks: number
  readonly adapterRank: number
  /** Adapters on q, k and v; those on the mlp are always there. */
  readonly useAttentionAdapters: boolean
}

const MLP_NAMES = { gateUp: 'gate_up_proj', down: 'down_proj' }

/** Of `Zamba2RMSNormGated`, whatever rms_norm_eps is. */
const GATED_NORM_EPS = 1e-5

/** transformers' `Zamba2Config`. Its model takes no notice of `use_shared_mlp_adapter`. */
function readZamba2Config(reader: ConfigReader): Zamba2Config {
  const common = readCommonConfig(reader, {
    tieEmbeddings: true, normEps: ['rms_norm_eps', 1e-5], readLayers: layersOf({ kinds: ['mamba', 'hybrid'], fallback: null }), contextLength: 4096
  })
  const { dModel } = common
  reader.only('hidden_act', 'gelu')
  reader.only('use_long_context', false)
  const useBias = reader.flag('add_bias_linear', false)
  return {
    ...common,
    modelType: 'zamba2',
    mamba: readMixer(reader, { dModel, useBias }),
    attention: readBlockAttention(reader, dModel),
    mlp: { dHidden: reader.size('intermediate_size', { fallback: 4 * dModel }), activation: 'gelu', useBias },
    nBlocks: reader.size('num_mem_blocks', { fallback: 1 }),
    adapterRank: reader.size('adapter_rank', { fallback: 128 }),
    useAttentionAdapters: reader.flag('use_shared_attention_adapter', false)
  }
}

/** Its input is twice as wide as the model, and its heads share that width. */
function readBlockAttention(reader: ConfigReader, dModel: number): AttentionConfig {
  const attention = readAttention(reader, { dModel: 2 * dModel, nKvHeads: null, headDimKeys: ['attention_head_dim'] })
  agree(reader, 'num_attention_heads', attention.nHeads, { key: 'attention_head_dim', expected: (2 * dModel) / attention.headDim })
  if (reader.has('attention_hidden_size')) agree(reader, 'attention_hidden_size', reader.size('attention_hidden_size'), { key: 'hidden_size', expected: 2 * dModel })
  return {
    ...attention, scale: (attention.headDim / 2) ** -0.5, useBias: false,
    rotary: reader.flag('use_mem_rope', false) ? readRotary(reader, attention.headDim) : null
  }
}

function readMixer(reader: ConfigReader, { dModel, useBias }: { readonly dModel: number; readonly useBias: boolean }): Mamba2MixerConfig {
  const dInner = dModel * reader.size('mamba_expand', { fallback: 2 })
  const nHeads = reader.size('n_mamba_heads', { fallback: 8 })
  const headDim = reader.size('mamba_headdim', { fallback: Math.max(1, Math.floor(dInner / nHeads)) })
  agree(reader, 'n_mamba_heads', nHeads, { key: reader.has('mamba_headdim') ? 'mamba_headdim' : 'mamba_expand', expected: dInner / headDim })
  const nGroups = reader.size('mamba_ngroups', { fallback: 1 })
  checkGroups(reader, 'mamba_ngroups', nGroups, nHeads)
  reader.only('use_conv_bias', true)
  return {
    dInner, nHeads, headDim, nGroups, useBias, useConvBias: true,
    dState: reader.size('mamba_d_state', { fallback: 64 }),
    dConv: reader.size('mamba_d_conv', { fallback: 4 }),
    dtLimit: readFlooredLimits(reader, { limit: 'time_step_limit', least: 'time_step_min' }),
    normGroups: readNormGroups(reader, dInner, nGroups),
    gatedNormEps: GATED_NORM_EPS
  }
}

/** The layers that have a shared block, in order: the n-th has the weights of block n % nBlocks. */
function hybridLayers({ layers }: Zamba2Config): readonly number[] {
  return layers.flatMap((kind, i) => (kind === 'hybrid' ? [i] : []))
}

/** `layers`: what all layers' names start with. `pair` holds the residual and, beside it, the embedding. */
function addZamba2Layer(layers: Scope, config: Zamba2Config, pair: View, index: number): void {
  const scope = layers.below(`${index}`)
  const residual = columns(pair, 0, config.dModel)
  if (config.layers[index] === 'mamba') {
    const x = addNormed(scope, 'input_layernorm', residual, config.normEps)
    addBranch(scope, residual, 1, (target) => addMamba2Mixer(scope.below('mamba'), config.mamba, { x, target }))
    return
  }
  const led = addSharedBlock(layers, config, pair, index)
  scope.builder.add({ kind: 'scaledAdd', x: residual, factor: 1, accumulate: true, out: led })
  const decoder = scope.below('mamba_decoder')
  const x = addNormed(decoder, 'input_layernorm', led, config.normEps)
  addBranch(scope, residual, 1, (target) => addMamba2Mixer(decoder.below('mamba'), config.mamba, { x, target }))
}

export const zamba2: Architecture<Zamba2Config> = {
  frame: { ...DECODER, hasEmbeddingBeside: true },
  readConfig: readZamba2Config,
  addLayer: addZamba2Layer,
  withNormGroups: withMixerNormGroups,
  copies: sharedCopies
}

function addSharedBlock(layers: Scope, config: Zamba2Config, pair: View, index: number): View {
  const { builder } = layers
  const scope = layers.below(`${index}`)
  const { dModel, normEps, attention, mlp, nBlocks, adapterRank: rank, useAttentionAdapters } = config
  const hybrids = hybridLayers(config)
  const place = hybrids.indexOf(index)
  // The first layer of those that share a block has its tensors, with all of their adapters.
  const block = layers.below(`${hybrids[place % nBlocks]}.shared_transformer`)
  const x = builder.buffer('normedPair', 2 * dModel)
  block.norm('input_layernorm', { x: pair, out: x, eps: normEps })
  const attended = builder.buffer('blockAttended', dModel)
  addAttention(block.below('self_attn'), attention, {
    x, target: { out: attended }, cacheName: `${scope.prefix}.self_attn`,
    adapter: useAttentionAdapters ? { name: (part) => `linear_${part}_adapter_list.${place}`, rank } : undefined
  })
  block.norm('pre_ff_layernorm', { x: attended, out: attended, eps: normEps })
  const out = builder.buffer('blockOut', dModel)
  addMlp(block.below('feed_forward'), mlp, {
    names: MLP_NAMES, x: attended, target: { out }, adapter: { name: `gate_up_proj_adapter_list.${place}`, rank }
  })
  const led = builder.buffer('led', dModel)
  scope.linear('linear', { x: out, out: led })
  return led
}

/**
 * Blocks that were saved once more with the layers that share them: by their tensors' names the same tensors of the first such layer.
 * `names`: of the program's parameters.
 */
function sharedCopies(layers: Scope, config: Zamba2Config, names: readonly string[]): ReadonlyMap<string, string> {
  const hybrids = hybridLayers(config)
  const copies = new Map<string, string>()
  hybrids.forEach((layer, place) => {
    const copy = layers.below(`${layer}.shared_transformer`)
    if (place < config.nBlocks || !copy.has('input_layernorm.weight')) return
    const { prefix } = layers.below(`${hybrids[place % config.nBlocks]}.shared_transformer`)
    for (const name of names) if (name.startsWith(`${prefix}.`)) copies.set(copy.prefix + name.slice(prefix.length), name)
  })
  return copies
}
