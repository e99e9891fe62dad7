/** llama.cpp's `falcon-h1`: its converter multiplies the weights by the model's factors, and no more is known of them. */
import { uint32Value } from '../gguf-metadata.ts'
import { BAMBA_NAMES, readAttentionKeys, readMamba2, readRope, writeAttentionKeys, writeMamba2, writeRope } from './block-keys.ts'
import type { FalconH1Facts } from './facts.ts'
import { type ArchitectureReading, type ArchitectureWriting, frameKeys, type GgufFile, readKeys, type RowFactor, writeKeys } from './keys.ts'
import { attentionRows, frameRows, mamba2Rows, mlpRows, row, type TensorNames } from './rows.ts'

const FRAME_KEYS = frameKeys('rms_norm_eps')

function namesOf(nGroups: number): TensorNames {
  return {
    frame: frameRows({ embedding: ['model.embed_tokens.weight'], lastNorm: ['model.final_layernorm.weight'] }),
    layers: 'model.layers',
    layer: [
      row('attn_norm.weight', 'input_layernorm.weight'),
      ...mamba2Rows('mamba', nGroups),
      ...attentionRows('self_attn'),
      // Without `.weight`, unlike the others'.
      row('ffn_norm', 'pre_ff_layernorm.weight'),
      ...mlpRows('feed_forward')
    ]
  }
}

export function readFalconH1(file: GgufFile): ArchitectureReading {
  const { keys, shapes } = file
  const { config, headDim } = readAttentionKeys(file)
  return {
    config: {
      model_type: 'falcon_h1',
      ...readKeys(keys, FRAME_KEYS),
      ...config,
      ...readRope(keys, headDim).config,
      ...readMamba2(keys, BAMBA_NAMES),
      mamba_d_ssm: keys.natural('ssm.inner_size'),
      mamba_rms_norm: shapes.has('blk.0.ssm_norm.weight'),
      mamba_norm_before_gate: false,
      intermediate_size: keys.natural('feed_forward_length'),
      max_position_embeddings: keys.natural('context_length')
    },
    names: namesOf(keys.natural('ssm.group_count'))
  }
}

export function writeFalconH1(facts: FalconH1Facts, place: string): ArchitectureWriting {
  const { mamba, attention, mlp, normEps, layers, contextLength } = facts
  return {
    architecture: 'falcon-h1',
    metadata: [
      ['context_length', uint32Value(contextLength ?? 0)],
      ...writeKeys(FRAME_KEYS, facts),
      ['feed_forward_length', uint32Value(mlp.dHidden)],
      ...writeAttentionKeys(attention, layers, () => true),
      ...writeRope(attention),
      ...writeMamba2(mamba, { place, normEps })
    ],
    names: namesOf(mamba.nGroups),
    factors: factorsOf(facts)
  }
}

/** All factors stand before or behind a matrix product: they are the matrix's. */
function factorsOf({ attention, mamba, multipliers, embeddingMultiplier, logitMultiplier }: FalconH1Facts): ReadonlyMap<string, readonly RowFactor[]> {
  const { attentionIn, attentionOut, mambaOut, mlpGate, mlpOut, mamba: { input, z, x, B, C, dt } } = multipliers
  const all = (factor: number): readonly RowFactor[] => [{ nRows: Infinity, factor }]
  const key = attention.scale * Math.sqrt(attention.headDim)
  const groupWidth = mamba.nGroups * mamba.dState
  const parts = [[mamba.dInner, z], [mamba.dInner, x], [groupWidth, B], [groupWidth, C], [mamba.nHeads, dt]] as const
  return new Map([
    ['token_embd.weight', all(embeddingMultiplier)],
    ['output.weight', all(logitMultiplier)],
    ['attn_q.weight', all(attentionIn)],
    ['attn_k.weight', all(attentionIn * key)],
    ['attn_v.weight', all(attentionIn)],
    ['attn_output.weight', all(attentionOut)],
    ['ssm_in.weight', parts.map(([nRows, factor]) => ({ nRows, factor: input * factor }))],
    ['ssm_out.weight', all(mambaOut)],
    ['ffn_gate.weight', all(mlpGate)],
    ['ffn_down.weight', all(mlpOut)]
  ])
}
