/** llama.cpp's `nemotron_h`: what a layer is shows in its widths. */
import { UnsupportedError } from '../../errors.ts'
import { perLayer } from '../gguf-arrays.ts'
import { float32Value, uint32ArrayValue, uint32Value } from '../gguf-metadata.ts'
import { readAttentionKeys, readMamba2, writeAttentionKeys, writeMamba2, writeRope } from './block-keys.ts'
import type { NemotronHFacts } from './facts.ts'
import { type ArchitectureReading, type ArchitectureWriting, type Entries, frameKeys, type GgufFile, readKeys, writeKeys } from './keys.ts'
import { attentionRows, frameRows, mamba2Rows, mlpRows, row, type TensorNames } from './rows.ts'

const FRAME_KEYS = frameKeys('layer_norm_epsilon')
/**
 * A key of our own: transformers raises dt to its `time_step_min`, llama.cpp does not, and neither do the kernels that the published models were
 * trained with. llama.cpp takes no notice of it; a file without it is read as llama.cpp runs it.
 */
const LEAST_DT = 'ssm.time_step_min'

function namesOf(nGroups: number): TensorNames {
  return {
    frame: frameRows({ embedding: ['backbone.embeddings.weight'], lastNorm: ['backbone.norm_f.weight'] }),
    layers: 'backbone.layers',
    layer: [row('attn_norm.weight', 'norm.weight'), ...mamba2Rows('mixer', nGroups), ...attentionRows('mixer'), ...mlpRows('mixer')]
  }
}

export function readNemotronH(file: GgufFile): ArchitectureReading {
  const { keys } = file
  const { config, nKvHeads } = readAttentionKeys(file)
  const widths = perLayer(keys, 'feed_forward_length', nKvHeads.length)
  const [width, ...others] = new Set(widths.filter((length) => length > 0))
  if (others.length > 0) throw new UnsupportedError({ place: keys.placeOf('feed_forward_length'), expected: 'one width in all layers that have it', got: [width, ...others].join(', ') })
  return {
    config: {
      model_type: 'nemotron_h',
      ...readKeys(keys, FRAME_KEYS),
      ...config,
      ...readMamba2(keys, { dState: 'ssm_state_size', dConv: 'conv_kernel', nHeads: 'mamba_num_heads', nGroups: 'n_groups', headDim: 'mamba_head_dim' }),
      layers_block_type: nKvHeads.map((count, i) => (count > 0 ? 'attention' : widths[i] > 0 ? 'mlp' : 'mamba')),
      ...(width === undefined ? {} : { intermediate_size: width }),
      time_step_min: keys.has(LEAST_DT) ? keys.positive(LEAST_DT) : 0,
      max_position_embeddings: keys.natural('context_length')
    },
    names: namesOf(keys.natural('ssm.group_count'))
  }
}

export function writeNemotronH(facts: NemotronHFacts, place: string): ArchitectureWriting {
  const { mamba, attention, mlp, normEps, layers, contextLength } = facts
  const [leastDt] = mamba.dtLimit
  const dtEntries: Entries = leastDt > 0 ? [[LEAST_DT, float32Value(leastDt)]] : []
  return {
    architecture: 'nemotron_h',
    metadata: [
      ['context_length', uint32Value(contextLength ?? 0)],
      ...writeKeys(FRAME_KEYS, facts),
      // Of no use to the architecture, but llama.cpp asks for it.
      ['attention.layer_norm_epsilon', float32Value(normEps)],
      ['feed_forward_length', uint32ArrayValue(layers.map((layer) => (layer === 'mlp' ? mlp.dHidden : 0)))],
      ...writeAttentionKeys(attention, layers, (layer) => layer === 'attention'),
      ...writeRope(attention),
      ...writeMamba2(mamba, { place, normEps, canFloorDt: true }),
      ...dtEntries
    ],
    names: namesOf(mamba.nGroups)
  }
}
