/**
 * Which tensor of llama.cpp's is which of a checkpoint's, and what is stored differently: the same rows for reading and for writing.
 * Names as gguf-py's `tensor_mapping.py` has them; what changes, as the converters and `src/models/*.cpp` of llama.cpp do.
 */

type Shape = readonly number[]

/** What else a tensor may be made of, by the checkpoint's names. */
export type Origin =
  | string
  /** A, whose logarithm of -A is stored. */
  | { readonly log: string }
  /** One half of the rows, in a stack of each matrix: gate's before up's. */
  | { readonly half: 0 | 1; readonly of: string }
  /** All experts', each by itself; `{}` stands for the number. */
  | { readonly each: string }

export type Origins = readonly [string, ...Origin[]]

export interface Row {
  /** Without `blk.N.` */
  readonly gguf: string
  /** The first that a checkpoint has; a GGUF file is read as if it were the first of all. */
  readonly origins: Origins
  readonly form?: Form
  /** Zeros, one for each row of this tensor, where the checkpoint has none of `origins`. */
  readonly zerosFor?: string
}

export interface Form {
  readonly toGguf: (shape: Shape) => Shape
  /** Of any shape that a file may have. */
  readonly fromGguf: (shape: Shape) => Shape
  readonly heads?: HeadRows
}

/** Rows of each head that are turned by rotary positions, as pairs. */
export interface HeadRows {
  readonly headDim: number
  readonly rotaryDim: number
}

export interface TensorNames {
  /** Around the layers. */
  readonly frame: readonly Row[]
  /** What a checkpoint's names of a layer start with, before its number. */
  readonly layers: string
  readonly layer: readonly Row[]
}

const CONV: Form = { toGguf: ([nChannels, , dConv]) => [nChannels, dConv], fromGguf: (shape) => (shape.length === 2 ? [shape[0], 1, shape[1]] : shape) }
const flat = (shape: Shape): Shape => (shape.length === 2 ? [shape[0] * shape[1]] : shape)
const COLUMN: Form = { toGguf: ([length]) => [length, 1], fromGguf: flat }
const inGroups = (nGroups: number): Form => ({ toGguf: ([length]) => [nGroups, length / nGroups], fromGguf: flat })
const inPairs = (heads: HeadRows): Form => ({ toGguf: (shape) => shape, fromGguf: (shape) => shape, heads })

export function row(gguf: string, ...origins: Origins): Row {
  return { gguf, origins }
}

/** `head` is left out of a GGUF file where it is the embedding. */
export function frameRows({ embedding, lastNorm }: { readonly embedding: Origins; readonly lastNorm: Origins }): readonly Row[] {
  return [row('token_embd.weight', ...embedding), row('output_norm.weight', ...lastNorm), row('output.weight', 'lm_head.weight')]
}

/** Of the pure state spaces. The original repository calls the embedding otherwise. */
export function pureRows(mixer: readonly Row[]): TensorNames {
  return {
    frame: frameRows({ embedding: ['backbone.embeddings.weight', 'backbone.embedding.weight'], lastNorm: ['backbone.norm_f.weight'] }),
    layers: 'backbone.layers',
    layer: [row('attn_norm.weight', 'norm.weight'), ...mixer]
  }
}

/** Both mixers' tensors. A bias of the convolution is always there. */
function mixerRows(mixer: string): readonly Row[] {
  return [
    row('ssm_in.weight', `${mixer}.in_proj.weight`),
    { ...row('ssm_conv1d.weight', `${mixer}.conv1d.weight`), form: CONV },
    { ...row('ssm_conv1d.bias', `${mixer}.conv1d.bias`), zerosFor: `${mixer}.conv1d.weight` },
    row('ssm_out.weight', `${mixer}.out_proj.weight`)
  ]
}

/** A itself, -exp(A_log): `A` here, beside `A_log` in other checkpoints. */
const decayRow = (mixer: string): Row => row('ssm_a', `${mixer}.A`, { log: `${mixer}.A_log` })

export function mamba1Rows(mixer: string): readonly Row[] {
  return [
    ...mixerRows(mixer),
    row('ssm_x.weight', `${mixer}.x_proj.weight`),
    row('ssm_dt.weight', `${mixer}.dt_proj.weight`),
    row('ssm_dt.bias', `${mixer}.dt_proj.bias`),
    decayRow(mixer),
    row('ssm_d', `${mixer}.D`)
  ]
}

/** The gated norm's weight is (nGroups, dInner / nGroups), A and D are (nHeads, 1). */
export function mamba2Rows(mixer: string, nGroups: number): readonly Row[] {
  return [
    ...mixerRows(mixer),
    row('ssm_dt.bias', `${mixer}.dt_bias`),
    { ...decayRow(mixer), form: COLUMN },
    { ...row('ssm_d', `${mixer}.D`), form: COLUMN },
    { ...row('ssm_norm.weight', `${mixer}.norm.weight`), form: inGroups(nGroups) }
  ]
}

/** `heads` where llama.cpp turns neighbouring rows of queries and keys ("norm"), not rows half a head apart ("neox"). */
export function attentionRows(attention: string, heads: HeadRows | null = null): readonly Row[] {
  const form = heads === null ? {} : { form: inPairs(heads) }
  return [
    { ...row('attn_q.weight', `${attention}.q_proj.weight`), ...form },
    { ...row('attn_k.weight', `${attention}.k_proj.weight`), ...form },
    row('attn_v.weight', `${attention}.v_proj.weight`),
    row('attn_output.weight', `${attention}.o_proj.weight`)
  ]
}

export function mlpRows(mlp: string): readonly Row[] {
  return ['gate', 'up', 'down'].map((part) => row(`ffn_${part}.weight`, `${mlp}.${part}_proj.weight`))
}

/** The row that pairs take in a head: destination i comes from row `order[i]`. llama.cpp has a pair's rows side by side, checkpoints in two halves. */
export function pairOrder({ headDim, rotaryDim }: HeadRows, direction: 'toGguf' | 'fromGguf'): readonly number[] {
  const half = rotaryDim / 2
  const order = Array.from({ length: headDim }, (_, i) => i)
  for (let i = 0; i < rotaryDim; i++) {
    if (direction === 'toGguf') order[i] = (i % 2) * half + Math.floor(i / 2)
    else order[i] = i < half ? 2 * i : 2 * (i - half) + 1
  }
  return order
}
