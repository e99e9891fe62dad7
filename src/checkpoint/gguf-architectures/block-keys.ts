/** Metadata of blocks that several architectures have: Mamba-2, attention, rotary positions. */
import { CheckpointError, UnsupportedError, describe } from '../../errors.ts'
import { perLayer } from '../gguf-arrays.ts'
import { float32Value, type MetadataReader, uint32ArrayValue, uint32Value } from '../gguf-metadata.ts'
import type { JsonObject, JsonValue } from '../json.ts'
import type { AttentionFacts, Mamba2Facts } from './facts.ts'
import { type Entries, type GgufFile, type Key, readKeys, writeKeys } from './keys.ts'

/** The names of Mamba-2's sizes in an architecture's config. */
export interface Mamba2Names {
  readonly dState: string
  readonly dConv: string
  readonly nHeads: string
  readonly nGroups: string
  readonly headDim: string
}

/** As Bamba has them, and all that came from it. */
export const BAMBA_NAMES: Mamba2Names = { dState: 'mamba_d_state', dConv: 'mamba_d_conv', nHeads: 'mamba_n_heads', nGroups: 'mamba_n_groups', headDim: 'mamba_d_head' }

/** llama.cpp keeps the number of heads as time_step_rank. */
const mamba2Keys = (names: Mamba2Names): readonly Key<Mamba2Facts>[] => [
  { key: 'ssm.state_size', config: names.dState, value: ({ dState }) => dState },
  { key: 'ssm.conv_kernel', config: names.dConv, value: ({ dConv }) => dConv },
  { key: 'ssm.time_step_rank', config: names.nHeads, value: ({ nHeads }) => nHeads },
  { key: 'ssm.group_count', config: names.nGroups, value: ({ nGroups }) => nGroups }
]

/** A divisor of the inner width: CheckpointError where it is none. */
export function innerPart(keys: MetadataReader, key: string): { readonly divisor: number; readonly quotient: number } {
  const [divisor, dInner] = [keys.natural(key), keys.natural('ssm.inner_size')]
  if (divisor > 0 && dInner % divisor === 0) return { divisor, quotient: dInner / divisor }
  throw new CheckpointError({ place: keys.placeOf(key), expected: `a divisor of ${keys.keyOf('ssm.inner_size')} ${dInner}`, got: describe(divisor) })
}

/** Sizes, and a norm of each group by itself, as llama.cpp has it. */
export function readMamba2(keys: MetadataReader, names: Mamba2Names): JsonObject {
  const { quotient: headDim } = innerPart(keys, 'ssm.time_step_rank')
  const { divisor: nGroups } = innerPart(keys, 'ssm.group_count')
  return { ...readKeys(keys, mamba2Keys(names)), [names.headDim]: headDim, norm_groups: nGroups }
}

/** Throws an UnsupportedError for what llama.cpp's Mamba-2 does otherwise. `canFloorDt`: see nemotron-h.ts. */
export function writeMamba2(facts: Mamba2Facts, { place, normEps, canFloorDt = false }: { readonly place: string; readonly normEps: number; readonly canFloorDt?: boolean }): Entries {
  const { dInner, nGroups, normGroups, gatedNormEps, dtLimit: [least, largest] } = facts
  if ((least !== 0 && !canFloorDt) || largest !== Infinity) {
    throw new UnsupportedError({ place: `${place}: time_step_limit`, expected: 'no limits of dt, since llama.cpp has none', got: `${least} to ${largest}` })
  }
  if (gatedNormEps !== null && normGroups !== nGroups) {
    const expected = `a gated norm of each of the ${nGroups} groups by itself, as llama.cpp has it (normGroups ${nGroups} for a checkpoint that was trained so)`
    throw new UnsupportedError({ place: `${place}: n_groups`, expected, got: normGroups === 1 ? 'one of the whole width' : `one of ${normGroups} parts` })
  }
  if (gatedNormEps !== null && gatedNormEps !== normEps) {
    throw new UnsupportedError({ place: `${place}: eps of the gated norm`, expected: `${normEps}, that of the other norms`, got: `${gatedNormEps}` })
  }
  // The names in configs are of no account here.
  return [['ssm.inner_size', uint32Value(dInner)], ...writeKeys(mamba2Keys(BAMBA_NAMES), facts)]
}

/** UnsupportedError for an inner width other than twice the model's, at which llama.cpp ends its process in most architectures. */
export function checkExpansion({ dInner }: { readonly dInner: number }, { dModel, place }: { readonly dModel: number; readonly place: string }): void {
  if (dInner !== 2 * dModel) throw new UnsupportedError({ place: `${place}: inner width`, expected: `${2 * dModel}, twice the model's, as llama.cpp has it`, got: `${dInner}` })
}

/** Of the pure state spaces, which have no use for them; llama.cpp asks for both. */
export const NO_ATTENTION: Entries = [['feed_forward_length', uint32Value(0)], ['attention.head_count', uint32Value(0)]]
/** As llama.cpp's converter has it: a recurrent model has no limit. */
export const NO_LIMIT = 2 ** 20

export interface AttentionReading {
  readonly config: Readonly<Record<string, JsonValue>>
  readonly headDim: number
  /** Of each layer; 0 where it has no attention. */
  readonly nKvHeads: readonly number[]
}

/** CheckpointError for more layers than there are tensors: what is made for each of them is bounded by the file. */
export function layerCount({ keys, shapes }: GgufFile): number {
  const nLayers = keys.natural('block_count')
  if (nLayers <= shapes.size) return nLayers
  throw new CheckpointError({ place: keys.placeOf('block_count'), expected: `at most ${shapes.size}, the number of tensors`, got: `${nLayers}` })
}

/** `attention.*` but for the rotary positions. */
export function readAttentionKeys(file: GgufFile): AttentionReading {
  const { keys } = file
  const nLayers = layerCount(file)
  const only = (key: string): number => {
    const [count, ...others] = new Set(perLayer(keys, key, nLayers).filter((count) => count > 0))
    if (count !== undefined && others.length === 0) return count
    throw new UnsupportedError({ place: keys.placeOf(key), expected: 'as many heads in all layers with attention', got: describe([count, ...others].filter((count) => count !== undefined)) })
  }
  const [nHeads, nKvHeads] = [only('attention.head_count'), only('attention.head_count_kv')]
  const headDim = keys.natural('attention.key_length', Math.floor(keys.natural('embedding_length') / nHeads))
  const valueDim = keys.natural('attention.value_length', headDim)
  if (valueDim !== headDim) throw new UnsupportedError({ place: keys.placeOf('attention.value_length'), expected: `${headDim}, as attention.key_length`, got: `${valueDim}` })
  return {
    config: { num_attention_heads: nHeads, num_key_value_heads: nKvHeads, head_dim: headDim },
    headDim,
    nKvHeads: perLayer(keys, 'attention.head_count_kv', nLayers)
  }
}

/** `isIn` tells the layers with attention. */
export function writeAttentionKeys({ nHeads, nKvHeads, headDim }: AttentionFacts, layers: readonly string[], isIn: (layer: string) => boolean): Entries {
  return [
    ['attention.head_count', uint32Value(nHeads)],
    ['attention.head_count_kv', uint32ArrayValue(layers.map((layer) => (isIn(layer) ? nKvHeads : 0)))],
    ['attention.key_length', uint32Value(headDim)],
    ['attention.value_length', uint32Value(headDim)]
  ]
}

/** Rotary positions of a config; `rope.scaling` of any kind is refused by the reader of the config. */
export function readRope(keys: MetadataReader, headDim: number): { readonly config: JsonObject; readonly rotaryDim: number } {
  const rotaryDim = keys.natural('rope.dimension_count', headDim)
  const scaling = keys.has('rope.scaling.type') ? keys.text('rope.scaling.type') : 'none'
  return {
    config: {
      rope_theta: keys.positive('rope.freq_base', 10_000),
      ...(rotaryDim === headDim ? {} : { partial_rotary_factor: rotaryDim / headDim }),
      ...(scaling === 'none' ? {} : { rope_scaling: { type: scaling } })
    },
    rotaryDim
  }
}

export function writeRope({ headDim, rotary }: AttentionFacts): Entries {
  return [['rope.dimension_count', uint32Value(rotary?.rotaryDim ?? headDim)], ...(rotary ? [['rope.freq_base', float32Value(rotary.theta)] as const] : [])]
}
