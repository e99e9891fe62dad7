/**
 * llama.cpp's architecture `mamba` and this package's checkpoints: names, metadata and what is stored differently, both ways; and `mamba2`,
 * read alone.
 * As llama.cpp's `conversion/mamba.py` writes it and `src/models/mamba.cpp` reads it:
 *
 *   - `ssm_a` is A itself, -exp(A_log): here `mixer.A`, beside `mixer.A_log` in other checkpoints;
 *   - the convolution's weight is (dInner, dConv): the same bytes as (dInner, 1, dConv);
 *   - a bias of the convolution is always there; there are none on in_proj and out_proj;
 *   - a tied head is left out;
 *   - of `mamba2`: A and D are (nHeads, 1), the gated norm's weight is (nGroups, dInner / nGroups), each group normalised by itself.
 */
import { exp } from '../elementary.ts'
import { CheckpointError, UnsupportedError, describe } from '../errors.ts'
import { encodeTensor } from './gguf-encode.ts'
import { boolValue, createMetadataReader, float32Value, type MetadataReader, textValue, uint32Value } from './gguf-metadata.ts'
import type { GgufHeader, GgufMetadata, GgufValue } from './gguf-types.ts'
import type { GgufContents, GgufTensor } from './gguf-writer.ts'
import type { JsonObject, JsonValue } from './json.ts'
import { ENCODERS, type EncodedType } from './quantize.ts'
import type { TensorEntry } from './safetensors.ts'

/** This package's names by llama.cpp's. */
const MODEL_NAMES: ReadonlyMap<string, string> = new Map([
  ['token_embd.weight', 'backbone.embeddings.weight'],
  ['output_norm.weight', 'backbone.norm_f.weight'],
  ['output.weight', 'lm_head.weight']
])
const LAYER_NAMES: ReadonlyMap<string, string> = new Map([
  ['attn_norm.weight', 'norm.weight'],
  ['ssm_in.weight', 'mixer.in_proj.weight'],
  ['ssm_conv1d.weight', 'mixer.conv1d.weight'],
  ['ssm_conv1d.bias', 'mixer.conv1d.bias'],
  ['ssm_x.weight', 'mixer.x_proj.weight'],
  ['ssm_dt.weight', 'mixer.dt_proj.weight'],
  ['ssm_dt.bias', 'mixer.dt_proj.bias'],
  ['ssm_a', 'mixer.A'],
  ['ssm_d', 'mixer.D'],
  ['ssm_out.weight', 'mixer.out_proj.weight']
])

const MAMBA2_LAYER_NAMES: ReadonlyMap<string, string> = new Map([...LAYER_NAMES, ['ssm_dt.bias', 'mixer.dt_bias'], ['ssm_norm.weight', 'mixer.norm.weight']])

type Architecture = 'mamba' | 'mamba2'

/** The checkpoint's name of one of llama.cpp's tensors; an unknown one keeps its own. */
export function mambaNameOf(ggufName: string, architecture: Architecture = 'mamba'): string {
  const [, layer, rest] = /^blk\.(0|[1-9][0-9]*)\.(.+)$/.exec(ggufName) ?? []
  if (layer === undefined) return MODEL_NAMES.get(ggufName) ?? ggufName
  const name = (architecture === 'mamba' ? LAYER_NAMES : MAMBA2_LAYER_NAMES).get(rest)
  return name === undefined ? ggufName : `backbone.layers.${layer}.${name}`
}

export interface GgufModel {
  /** As a config.json in transformers' form. */
  readonly config: JsonObject
  /** With this package's names and shapes. */
  readonly tensors: readonly TensorEntry[]
}

/** A GGUF file of the architecture `mamba` or `mamba2` as a checkpoint. Throws an UnsupportedError for another one, a CheckpointError for what is missing. */
export function ggufMambaModel(header: GgufHeader): GgufModel {
  const reader = createMetadataReader(header)
  const architecture = reader.text('general.architecture')
  if (architecture !== 'mamba' && architecture !== 'mamba2') {
    throw new UnsupportedError({ place: `${header.name}, general.architecture`, expected: '"mamba" or "mamba2"', got: describe(architecture) })
  }
  const shapes = new Map(header.tensors.map(({ name, shape }) => [name, shape]))
  const vocabSize = shapes.get('token_embd.weight')?.[0]
  if (vocabSize === undefined) throw new CheckpointError({ place: `${header.name}, token_embd.weight`, expected: 'a tensor', got: 'none of that name' })
  const config: Record<string, JsonValue> = {
    ...(architecture === 'mamba' ? mambaConfig(reader) : mamba2Config(reader, header.name)),
    vocab_size: vocabSize,
    hidden_size: reader.natural(`${architecture}.embedding_length`),
    num_hidden_layers: reader.natural(`${architecture}.block_count`),
    intermediate_size: reader.natural(`${architecture}.ssm.inner_size`),
    state_size: reader.natural(`${architecture}.ssm.state_size`),
    conv_kernel: reader.natural(`${architecture}.ssm.conv_kernel`),
    layer_norm_epsilon: reader.positive(`${architecture}.attention.layer_norm_rms_epsilon`),
    hidden_act: 'silu',
    use_bias: false,
    use_conv_bias: shapes.has('blk.0.ssm_conv1d.bias'),
    tie_word_embeddings: !shapes.has('output.weight')
  }
  const tokenId = (key: string): number[] => (reader.has(key) ? [reader.natural(key)] : [])
  const [bos] = tokenId('tokenizer.ggml.bos_token_id')
  if (bos !== undefined) config['bos_token_id'] = bos
  const eos = new Set([...tokenId('tokenizer.ggml.eos_token_id'), ...tokenId('tokenizer.ggml.eot_token_id')])
  if (eos.size > 0) config['eos_token_id'] = [...eos]
  return { config, tensors: renamed(header, architecture) }
}

function mambaConfig(reader: MetadataReader): JsonObject {
  return {
    model_type: reader.flag('mamba.ssm.dt_b_c_rms', false) ? 'falcon_mamba' : 'mamba',
    time_step_rank: reader.natural('mamba.ssm.time_step_rank')
  }
}

/** llama.cpp keeps the number of heads as time_step_rank. */
function mamba2Config(reader: MetadataReader, fileName: string): JsonObject {
  const [dModel, dInner, nHeads, nGroups] = ['embedding_length', 'ssm.inner_size', 'ssm.time_step_rank', 'ssm.group_count'].map((key) => reader.natural(`mamba2.${key}`))
  for (const [key, divisor] of [['embedding_length', dModel], ['ssm.time_step_rank', nHeads], ['ssm.group_count', nGroups]] as const) {
    if (divisor > 0 && dInner % divisor === 0) continue
    throw new CheckpointError({ place: `${fileName}, mamba2.${key}`, expected: `a divisor of mamba2.ssm.inner_size ${dInner}`, got: describe(divisor) })
  }
  return { model_type: 'mamba2', num_heads: nHeads, head_dim: dInner / nHeads, expand: dInner / dModel, n_groups: nGroups, norm_groups: nGroups }
}

function renamed({ name: fileName, tensors }: GgufHeader, architecture: Architecture): readonly TensorEntry[] {
  const names = new Set<string>()
  return tensors.map((entry) => {
    const name = mambaNameOf(entry.name, architecture)
    if (names.has(name)) throw new CheckpointError({ place: `${fileName}, ${entry.name}`, expected: 'each tensor once', got: `${name} again` })
    names.add(name)
    return { ...entry, name, shape: shapeOf(name, entry.shape, architecture) }
  })
}

/** The shape in a checkpoint: the same elements in the same order. */
function shapeOf(name: string, shape: readonly number[], architecture: Architecture): readonly number[] {
  if (shape.length !== 2) return shape
  if (name.endsWith('.mixer.conv1d.weight')) return [shape[0], 1, shape[1]]
  const isVector = architecture === 'mamba2' && ['.mixer.A', '.mixer.D', '.mixer.norm.weight'].some((end) => name.endsWith(end))
  return isVector ? [shape[0] * shape[1]] : shape
}

/** What is written of a model's config: this package's Mamba1Config has it. */
export interface MambaFacts {
  readonly modelType: 'mamba' | 'falcon_mamba'
  readonly vocabSize: number
  readonly dModel: number
  readonly nLayers: number
  readonly dInner: number
  readonly dState: number
  readonly dConv: number
  readonly dtRank: number
  readonly normEps: number
  /** Falcon-Mamba's norms on dt, B and C. */
  readonly mixerNormEps: number | null
  readonly tieEmbeddings: boolean
  readonly useBias: boolean
  readonly useConvBias: boolean
  readonly bosTokenId: number | null
  /** A GGUF file has place for two: the end of a text and the end of a turn. */
  readonly eosTokenIds: readonly number[]
}

/** Models that are loaded but not written as GGUF files. */
export interface OtherFacts {
  readonly modelType: 'mamba2' | 'bamba' | 'falcon_h1' | 'granitemoehybrid' | 'jamba' | 'nemotron_h' | 'zamba2'
}

export interface ConvertOptions {
  readonly config: MambaFacts | OtherFacts
  readonly tensors: ReadonlyMap<string, TensorEntry>
  /** Of the larger matrices; see `mambaTensorType`. */
  readonly type: EncodedType
  /** Another type for a tensor, by llama.cpp's name: some matrices are more sensitive than others. */
  readonly typeOf?: ((ggufName: string, chosen: EncodedType) => EncodedType) | undefined
  /** general.name */
  readonly name: string
  /** The tokenizer.ggml keys, or null without a tokenizer: llama.cpp then knows the number of tokens and no more. */
  readonly tokenizer: GgufMetadata | null
  /** For messages: the checkpoint. */
  readonly place: string
  readonly signal?: AbortSignal | undefined
}

/** llama.cpp's LLAMA_FTYPE: what most tensors are of. */
const FILE_TYPES: Readonly<Record<EncodedType, number>> = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 7, Q4_K: 14, Q6_K: 18, BF16: 32 }
const QUANTIZATION_VERSION = 2
/** Of all published models, and what a config has that does not say. */
const MIXER_NORM_EPS = 1e-6
/** As llama.cpp's converter has it: a recurrent model has no limit. */
const CONTEXT_LENGTH = 2 ** 20

/** A checkpoint as the contents of a GGUF file; its tensors are read as the file is written. Throws an UnsupportedError for biases that llama.cpp has no place for. */
export function mambaToGguf(options: ConvertOptions): GgufContents {
  const { config, type, name, tokenizer, place } = options
  if (config.modelType !== 'mamba' && config.modelType !== 'falcon_mamba') throw new UnsupportedError({ place: `${place}: model_type`, expected: 'mamba or falcon_mamba', got: config.modelType })
  if (config.useBias) throw new UnsupportedError({ place: `${place}: use_bias`, expected: "false, as in llama.cpp's mamba", got: 'true' })
  if ((config.mixerNormEps ?? MIXER_NORM_EPS) !== MIXER_NORM_EPS) {
    throw new UnsupportedError({ place: `${place}: mixer_rms_eps`, expected: `${MIXER_NORM_EPS}, since the format has no place for it`, got: `${config.mixerNormEps}` })
  }
  const metadata = new Map<string, GgufValue>([
    ['general.architecture', textValue('mamba')],
    ['general.type', textValue('model')],
    ['general.name', textValue(name)],
    ['mamba.context_length', uint32Value(CONTEXT_LENGTH)],
    ['mamba.embedding_length', uint32Value(config.dModel)],
    // Of no use to the architecture, but llama.cpp asks for both.
    ['mamba.feed_forward_length', uint32Value(0)],
    ['mamba.attention.head_count', uint32Value(0)],
    ['mamba.block_count', uint32Value(config.nLayers)],
    ['mamba.ssm.conv_kernel', uint32Value(config.dConv)],
    ['mamba.ssm.inner_size', uint32Value(config.dInner)],
    ['mamba.ssm.state_size', uint32Value(config.dState)],
    ['mamba.ssm.time_step_rank', uint32Value(config.dtRank)],
    ['mamba.attention.layer_norm_rms_epsilon', float32Value(config.normEps)],
    ['mamba.ssm.dt_b_c_rms', boolValue(config.mixerNormEps !== null)],
    ['mamba.vocab_size', uint32Value(config.vocabSize)],
    ['general.file_type', uint32Value(FILE_TYPES[type])],
    ['general.quantization_version', uint32Value(QUANTIZATION_VERSION)],
    ...(tokenizer ?? tokenIds(config))
  ])
  return { metadata, tensors: tensorsOf(options, config) }
}

/** In place of a tokenizer: that there is none, and the ids that the config knows all the same. */
function tokenIds({ bosTokenId, eosTokenIds: [eos, eot] }: MambaFacts): (readonly [string, GgufValue])[] {
  const ids = [['bos', bosTokenId ?? undefined], ['eos', eos], ['eot', eot]] as const
  return [['tokenizer.ggml.model', textValue('none')], ...ids.flatMap(([name, id]) => (id === undefined ? [] : [[`tokenizer.ggml.${name}_token_id`, uint32Value(id)] as const]))]
}

function tensorsOf(options: ConvertOptions, config: MambaFacts): readonly GgufTensor[] {
  const { vocabSize, dModel, nLayers, dInner, dState, dConv, dtRank, tieEmbeddings, useConvBias } = config
  const { tensors } = options
  const embedding = tensors.has('backbone.embedding.weight') ? 'backbone.embedding.weight' : 'backbone.embeddings.weight'
  const list = [tensorOf(options, 'token_embd.weight', [vocabSize, dModel], embedding), tensorOf(options, 'output_norm.weight', [dModel])]
  if (!tieEmbeddings) list.push(tensorOf(options, 'output.weight', [vocabSize, dModel]))
  for (let i = 0; i < nLayers; i++) {
    const add = (name: string, ...shape: number[]): number => list.push(tensorOf(options, `blk.${i}.${name}`, shape))
    add('attn_norm.weight', dModel)
    add('ssm_in.weight', 2 * dInner, dModel)
    add('ssm_conv1d.weight', dInner, dConv)
    if (useConvBias) add('ssm_conv1d.bias', dInner)
    else list.push(zeros(`blk.${i}.ssm_conv1d.bias`, dInner))
    add('ssm_x.weight', dtRank + 2 * dState, dInner)
    add('ssm_dt.weight', dInner, dtRank)
    add('ssm_dt.bias', dInner)
    list.push(decayOf(options, `blk.${i}.ssm_a`, [dInner, dState]))
    add('ssm_d', dInner)
    add('ssm_out.weight', dModel, dInner)
  }
  return list
}

function tensorOf({ tensors, type, typeOf, place, signal }: ConvertOptions, ggufName: string, shape: readonly number[], name = mambaNameOf(ggufName)): GgufTensor {
  const entry = entryOf(tensors, { name, shape, place })
  const chosen = mambaTensorType(ggufName, { shape, type, dtype: entry.dtype })
  const dtype = typeOf?.(ggufName, chosen) ?? chosen
  return { name: ggufName, dtype, shape, bytes: () => encodeTensor(entry, { type: dtype, signal }) }
}

/** A, from itself or from its logarithm: the numbers that loading the checkpoint makes. */
function decayOf({ tensors, place, signal }: ConvertOptions, ggufName: string, shape: readonly number[]): GgufTensor {
  const name = mambaNameOf(ggufName)
  const isLog = !tensors.has(name)
  const entry = entryOf(tensors, { name: isLog ? `${name}_log` : name, shape, place })
  return { name: ggufName, dtype: 'F32', shape, bytes: () => encodeTensor(entry, { type: 'F32', transform: isLog ? negExp : undefined, signal }) }
}

function negExp(values: Float32Array): void {
  for (let i = 0; i < values.length; i++) values[i] = -exp(values[i])
}

function zeros(name: string, length: number): GgufTensor {
  return {
    name,
    dtype: 'F32',
    shape: [length],
    async *bytes() {
      yield new Uint8Array(4 * length)
    }
  }
}

function entryOf(tensors: ReadonlyMap<string, TensorEntry>, { name, shape, place }: { name: string; shape: readonly number[]; place: string }): TensorEntry {
  const entry = tensors.get(name)
  const isConv = name.endsWith('.conv1d.weight')
  const expected = `a tensor (${(isConv ? [shape[0], 1, shape[1]] : shape).join(', ')})`
  if (entry === undefined) throw new CheckpointError({ place: `${place}: ${name}`, expected, got: 'none of that name' })
  const got = isConv && entry.shape.length === 3 && entry.shape[1] === 1 ? [entry.shape[0], entry.shape[2]] : entry.shape
  if (got.length === shape.length && got.every((length, i) => length === shape[i])) return entry
  throw new CheckpointError({ place: `${place}: ${name}`, expected, got: `(${entry.shape.join(', ')})` })
}

/**
 * The type that a tensor is written in, when the larger matrices are to be of `type`. As in llama.cpp, vectors, norms, the convolution, A and D
 * are F32. The matrix of dt is not quantized and stays as the checkpoint has it. Rows that are not whole superblocks of 256 are Q8_0 instead,
 * and those that are not whole blocks of 32 stay as they are.
 */
export function mambaTensorType(ggufName: string, { shape, type, dtype }: { shape: readonly number[]; type: EncodedType; dtype: string }): EncodedType {
  if (shape.length < 2 || !ggufName.endsWith('.weight') || ggufName.includes('ssm_conv1d')) return 'F32'
  if (ENCODERS[type].blockElements === 1) return type
  const fitting = [type, 'Q8_0' as const].find((candidate) => shape[shape.length - 1] % ENCODERS[candidate].blockElements === 0)
  if (!ggufName.includes('ssm_dt') && fitting !== undefined) return fitting
  return dtype === 'F16' || dtype === 'BF16' ? dtype : 'F32'
}
