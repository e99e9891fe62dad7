/** llama.cpp's `jamba`. */
import { UnsupportedError } from '../../errors.ts'
import { uint32Value } from '../gguf-metadata.ts'
import { checkExpansion, innerPart, readAttentionKeys, writeAttentionKeys } from './block-keys.ts'
import type { JambaFacts } from './facts.ts'
import { type ArchitectureReading, type ArchitectureWriting, frameKeys, type GgufFile, readKeys, writeKeys } from './keys.ts'
import { mamba1Keys } from './mamba.ts'
import { attentionRows, frameRows, mamba1Rows, mlpRows, row, type TensorNames } from './rows.ts'

const FRAME_KEYS = frameKeys('rms_norm_eps')
const MAMBA1_KEYS = mamba1Keys({ dState: 'mamba_d_state', dConv: 'mamba_d_conv', dtRank: 'mamba_dt_rank' })

const NAMES: TensorNames = {
  frame: frameRows({ embedding: ['model.embed_tokens.weight'], lastNorm: ['model.final_layernorm.weight'] }),
  layers: 'model.layers',
  layer: [
    row('attn_norm.weight', 'input_layernorm.weight'),
    ...mamba1Rows('mamba'),
    ...['dt', 'b', 'c'].map((part) => row(`ssm_${part}_norm.weight`, `mamba.${part}_layernorm.weight`)),
    ...attentionRows('self_attn'),
    row('ffn_norm.weight', 'pre_ff_layernorm.weight'),
    ...mlpRows('feed_forward'),
    row('ffn_gate_inp.weight', 'feed_forward.router.weight'),
    ...['gate', 'up', 'down'].map((part) =>
      row(`ffn_${part}_exps.weight`, `feed_forward.experts.${part}_proj.weight`, { each: `feed_forward.experts.{}.${part}_proj.weight` })
    )
  ]
}

export function readJamba(file: GgufFile): ArchitectureReading {
  const { keys, shapes } = file
  const { config, nKvHeads } = readAttentionKeys(file)
  return {
    config: {
      model_type: 'jamba',
      ...readKeys(keys, FRAME_KEYS),
      ...config,
      ...readKeys(keys, MAMBA1_KEYS),
      mamba_expand: innerPart(keys, 'embedding_length').quotient,
      layers_block_type: nKvHeads.map((count) => (count === 0 ? 'mamba' : 'attention')),
      intermediate_size: keys.natural('feed_forward_length'),
      num_experts: keys.natural('expert_count', 1),
      num_experts_per_tok: keys.natural('expert_used_count', 1),
      // llama.cpp tells these layers by their router.
      expert_layer_indices: nKvHeads.flatMap((_count, i) => (shapes.has(`blk.${i}.ffn_gate_inp.weight`) ? [i] : [])),
      max_position_embeddings: keys.natural('context_length')
    },
    names: NAMES
  }
}

export function writeJamba(facts: JambaFacts, place: string): ArchitectureWriting {
  const { mamba, attention, mlp, experts, layers, contextLength, dModel } = facts
  checkExpansion(mamba, { dModel, place })
  if (attention.nHeads * attention.headDim !== dModel) {
    throw new UnsupportedError({ place: `${place}: num_attention_heads`, expected: "heads as wide as the model, as in llama.cpp's jamba", got: `${attention.nHeads} of ${attention.headDim}` })
  }
  return {
    architecture: 'jamba',
    metadata: [
      ['context_length', uint32Value(contextLength ?? 0)],
      ...writeKeys(FRAME_KEYS, facts),
      ['feed_forward_length', uint32Value(mlp.dHidden)],
      ...writeAttentionKeys(attention, layers, (layer) => layer === 'attention'),
      ['ssm.inner_size', uint32Value(mamba.dInner)],
      ...writeKeys(MAMBA1_KEYS, mamba),
      ...(experts ? ([['expert_count', uint32Value(experts.nExperts)], ['expert_used_count', uint32Value(experts.topK)]] as const) : [])
    ],
    names: NAMES
  }
}
