/** llama.cpp's `granitehybrid`: Granite 4's hybrids, and Bamba, which is one of them without its factors. */
import { UnsupportedError } from '../../errors.ts'
import { perLayer } from '../gguf-arrays.ts'
import { boolValue, float32Value, uint32Value } from '../gguf-metadata.ts'
import { BAMBA_NAMES, checkExpansion, innerPart, readAttentionKeys, readMamba2, readRope, writeAttentionKeys, writeMamba2, writeRope } from './block-keys.ts'
import type { BambaFacts, GraniteFacts } from './facts.ts'
import { type ArchitectureReading, type ArchitectureWriting, type Entries, frameKeys, type GgufFile, readKeys, writeKeys } from './keys.ts'
import { attentionRows, frameRows, mamba2Rows, type Origins, row, type Row, type TensorNames } from './rows.ts'

const FRAME_KEYS = frameKeys('rms_norm_eps')

interface Layout {
  readonly nGroups: number
  readonly headDim: number
  readonly rotaryDim: number
  /** The feed-forward block is then a shared one beside the experts. */
  readonly hasExperts: boolean
}

/** Without positions the rows of queries and keys are in pairs all the same. */
function namesOf({ nGroups, headDim, rotaryDim, hasExperts }: Layout): TensorNames {
  const shared = hasExperts ? '_shexp' : ''
  const halves = (gate: string, up: string, { of, names: [ownGate, ownUp] }: { readonly of: string; readonly names: readonly [Origins, Origins] }): readonly Row[] => [
    row(gate, ...ownGate, { half: 0, of }), row(up, ...ownUp, { half: 1, of })
  ]
  return {
    frame: frameRows({ embedding: ['model.embed_tokens.weight'], lastNorm: ['model.norm.weight', 'model.final_layernorm.weight'] }),
    layers: 'model.layers',
    layer: [
      row('attn_norm.weight', 'input_layernorm.weight'),
      ...mamba2Rows('mamba', nGroups),
      ...attentionRows('self_attn', { headDim, rotaryDim }),
      row('ffn_norm.weight', 'post_attention_layernorm.weight', 'pre_ff_layernorm.weight'),
      ...halves(`ffn_gate${shared}.weight`, `ffn_up${shared}.weight`, {
        of: 'shared_mlp.input_linear.weight',
        names: [['shared_mlp.gate_proj.weight', 'feed_forward.gate_proj.weight'], ['shared_mlp.up_proj.weight', 'feed_forward.up_proj.weight']]
      }),
      row(`ffn_down${shared}.weight`, 'shared_mlp.output_linear.weight', 'feed_forward.down_proj.weight'),
      row('ffn_gate_inp.weight', 'block_sparse_moe.router.layer.weight'),
      ...halves('ffn_gate_exps.weight', 'ffn_up_exps.weight', {
        of: 'block_sparse_moe.input_linear.weight', names: [['block_sparse_moe.gate_proj.weight'], ['block_sparse_moe.up_proj.weight']]
      }),
      row('ffn_down_exps.weight', 'block_sparse_moe.output_linear.weight')
    ]
  }
}

export function readGranite(file: GgufFile): ArchitectureReading {
  const { keys } = file
  const frame = readKeys(keys, FRAME_KEYS)
  const attention = readAttentionKeys(file)
  const { headDim, nKvHeads } = attention
  const rope = readRope(keys, headDim)
  const hasPositions = keys.flag('rope.scaling.finetuned', true)
  const nExperts = keys.natural('expert_count', 0)
  const dHidden = Math.max(...perLayer(keys, 'feed_forward_length', nKvHeads.length))
  return {
    config: {
      model_type: 'granitemoehybrid',
      ...frame,
      ...attention.config,
      ...readMamba2(keys, BAMBA_NAMES),
      mamba_expand: innerPart(keys, 'embedding_length').quotient,
      layer_types: nKvHeads.map((count) => (count === 0 ? 'mamba' : 'attention')),
      intermediate_size: dHidden,
      shared_intermediate_size: nExperts > 0 ? keys.natural('expert_shared_feed_forward_length') : dHidden,
      num_local_experts: nExperts,
      num_experts_per_tok: keys.natural('expert_used_count', 0),
      max_position_embeddings: keys.natural('context_length'),
      embedding_multiplier: keys.positive('embedding_scale', 1),
      residual_multiplier: keys.positive('residual_scale', 1),
      logits_scaling: keys.positive('logit_scale', 1),
      attention_multiplier: keys.positive('attention.scale', headDim ** -0.5),
      position_embedding_type: hasPositions ? 'rope' : 'nope',
      ...(hasPositions ? rope.config : {})
    },
    names: namesOf({ nGroups: keys.natural('ssm.group_count'), headDim, rotaryDim: hasPositions ? rope.rotaryDim : headDim, hasExperts: nExperts > 0 })
  }
}

export function writeGranite(facts: GraniteFacts | BambaFacts, place: string): ArchitectureWriting {
  const { mamba, attention, mlp, normEps, layers, contextLength, dModel } = facts
  const { headDim, rotary, scale } = attention
  const isGranite = facts.modelType === 'granitemoehybrid'
  const experts = isGranite ? facts.experts : null
  checkExpansion(mamba, { dModel, place })
  const scales = [
    ['embedding_scale', facts.embeddingMultiplier], ['residual_scale', isGranite ? facts.residualMultiplier : 1], ['logit_scale', 1 / facts.logitMultiplier],
    ['attention.scale', scale === headDim ** -0.5 ? 1 : scale]
  ] as const
  const moe: Entries = experts
    ? [['expert_count', uint32Value(experts.nExperts)], ['expert_used_count', uint32Value(experts.topK)], ['expert_shared_feed_forward_length', uint32Value(mlp.dHidden)]]
    : []
  return {
    architecture: 'granitehybrid',
    metadata: [
      ['context_length', uint32Value(contextLength ?? 0)],
      ...writeKeys(FRAME_KEYS, facts),
      ['feed_forward_length', uint32Value(experts?.dHidden ?? mlp.dHidden)],
      ...moe,
      ...writeAttentionKeys(attention, layers, (layer) => layer === 'attention'),
      ...writeRope(attention),
      // By this llama.cpp tells whether there are positions.
      ['rope.scaling.finetuned', boolValue(rotary !== null)],
      ...scales.flatMap(([key, value]): Entries => (value === 1 ? [] : [[key, float32Value(scaleOf(value, `${place}: ${key}`))]])),
      ...writeMamba2(mamba, { place, normEps })
    ],
    names: namesOf({ nGroups: mamba.nGroups, headDim, rotaryDim: rotary?.rotaryDim ?? headDim, hasExperts: experts !== null })
  }
}

/** llama.cpp takes zero for none. */
function scaleOf(value: number, place: string): number {
  if (value > 0 && value < Infinity) return value
  throw new UnsupportedError({ place, expected: 'a factor above 0', got: `${value}` })
}
