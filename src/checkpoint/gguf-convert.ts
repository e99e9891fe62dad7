/** A checkpoint as the contents of a GGUF file that also runs in llama.cpp. */
import { exp } from '../elementary.ts'
import { CheckpointError, UnsupportedError, describe } from '../errors.ts'
import type { ModelFacts, OtherFacts } from './gguf-architectures/facts.ts'
import { writeFalconH1 } from './gguf-architectures/falcon-h1.ts'
import { writeGranite } from './gguf-architectures/granite.ts'
import { writeJamba } from './gguf-architectures/jamba.ts'
import type { ArchitectureWriting, RowFactor } from './gguf-architectures/keys.ts'
import { writeMamba } from './gguf-architectures/mamba.ts'
import { writePureMamba2 } from './gguf-architectures/mamba2.ts'
import { writeNemotronH } from './gguf-architectures/nemotron-h.ts'
import { type Origin, pairOrder, type Row } from './gguf-architectures/rows.ts'
import { encodeTensor, type Transform } from './gguf-encode.ts'
import { textValue, uint32Value } from './gguf-metadata.ts'
import type { GgufMetadata, GgufValue } from './gguf-types.ts'
import type { GgufContents, GgufTensor } from './gguf-writer.ts'
import { ENCODERS, type EncodedType } from './quantize.ts'
import type { TensorEntry } from './safetensors.ts'
import { halfOf, permutedRows, stackOf } from './tensor-views.ts'

export interface ConvertOptions {
  readonly config: ModelFacts | OtherFacts
  /** Those that the model asks for, with the shapes that it asks for. */
  readonly tensors: ReadonlyMap<string, TensorEntry>
  /** Of the larger matrices; see `ggufTensorType`. */
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

/**
 * Its tensors are read as the file is written. Throws an UnsupportedError for a model or a tensor that llama.cpp has no place for, a
 * CheckpointError for a tensor that is missing.
 */
export function modelToGguf(options: ConvertOptions): GgufContents {
  const { config, type, name, tokenizer, place } = options
  if (config.modelType === 'zamba2') {
    throw new UnsupportedError({ place: `${place}: model_type`, expected: 'a model that llama.cpp has an architecture for', got: describe(config.modelType) })
  }
  const writing = writingOf(config, place)
  const { architecture, metadata: entries } = writing
  const metadata = new Map<string, GgufValue>([
    ['general.architecture', textValue(architecture)],
    ['general.type', textValue('model')],
    ['general.name', textValue(name)],
    ...entries.map(([key, value]) => [`${architecture}.${key}`, value] as const),
    [`${architecture}.vocab_size`, uint32Value(config.vocabSize)],
    ['general.file_type', uint32Value(FILE_TYPES[type])],
    ['general.quantization_version', uint32Value(QUANTIZATION_VERSION)],
    ...(tokenizer ?? tokenIds(config))
  ])
  return { metadata, tensors: tensorsOf(options, config, writing) }
}

function writingOf(config: ModelFacts, place: string): ArchitectureWriting {
  switch (config.modelType) {
    case 'mamba':
    case 'falcon_mamba': return writeMamba(config, place)
    case 'mamba2': return writePureMamba2(config, place)
    case 'falcon_h1': return writeFalconH1(config, place)
    case 'granitemoehybrid':
    case 'bamba': return writeGranite(config, place)
    case 'jamba': return writeJamba(config, place)
    case 'nemotron_h': return writeNemotronH(config, place)
  }
}

/** In place of a tokenizer: that there is none, and the ids that the config knows all the same. */
function tokenIds({ bosTokenId, eosTokenIds: [eos, eot] }: ModelFacts): (readonly [string, GgufValue])[] {
  const ids = [['bos', bosTokenId ?? undefined], ['eos', eos], ['eot', eot]] as const
  return [['tokenizer.ggml.model', textValue('none')], ...ids.flatMap(([name, id]) => (id === undefined ? [] : [[`tokenizer.ggml.${name}_token_id`, uint32Value(id)] as const]))]
}

/** All rows that the checkpoint has something for; and it must have nothing else. */
function tensorsOf(options: ConvertOptions, config: ModelFacts, { architecture, names, factors }: ArchitectureWriting): readonly GgufTensor[] {
  const { tensors, place } = options
  const used = new Set<string>()
  const list: GgufTensor[] = []
  const add = (row: Row, prefixes: { readonly gguf: string; readonly ours: string }): boolean => {
    const factor = factors?.get(row.gguf)
    const found = findOrigin(tensors, row, prefixes.ours)
    const zeroRows = row.zerosFor === undefined ? undefined : tensors.get(prefixes.ours + row.zerosFor)?.shape[0]
    if (found !== undefined) {
      for (const name of found.names) used.add(name)
      list.push(encoded(options, { ggufName: prefixes.gguf + row.gguf, found, row, factor }))
    } else if (zeroRows !== undefined) {
      list.push(zeros(prefixes.gguf + row.gguf, zeroRows))
    }
    return found !== undefined
  }
  const [embedding, lastNorm, head] = names.frame
  for (const row of [embedding, lastNorm]) {
    if (!add(row, { gguf: '', ours: '' })) throw new CheckpointError({ place: `${place}: ${row.origins[0]}`, expected: 'a tensor', got: 'none of that name' })
  }
  // A head that is the embedding is left out, unless their factors differ.
  if (!config.tieEmbeddings) add(head, { gguf: '', ours: '' })
  else if (factors !== undefined && config.embeddingMultiplier !== config.logitMultiplier) add({ ...embedding, gguf: head.gguf }, { gguf: '', ours: '' })
  for (let i = 0; i < config.nLayers; i++) {
    for (const row of names.layer) add(row, { gguf: `blk.${i}.`, ours: `${names.layers}.${i}.` })
  }
  for (const name of tensors.keys()) {
    if (!used.has(name)) throw new UnsupportedError({ place: `${place}: ${name}`, expected: `only tensors that llama.cpp's ${architecture} has`, got: 'this one too' })
  }
  return list
}

interface Found {
  readonly entry: TensorEntry
  /** The checkpoint's tensors that it is made of. */
  readonly names: readonly string[]
  readonly isLog: boolean
}

function findOrigin(tensors: ReadonlyMap<string, TensorEntry>, { origins }: Row, prefix: string): Found | undefined {
  const get = (name: string): TensorEntry | undefined => tensors.get(prefix + name)
  for (const origin of origins) {
    const found = typeof origin === 'object' && 'each' in origin ? stacked(get, origin.each) : single(get, origin)
    if (found !== undefined) return { ...found, names: found.names.map((name) => prefix + name) }
  }
  return undefined
}

function single(get: (name: string) => TensorEntry | undefined, origin: Exclude<Origin, { readonly each: string }>): Found | undefined {
  const name = typeof origin === 'string' ? origin : 'log' in origin ? origin.log : origin.of
  const entry = get(name)
  if (entry === undefined) return undefined
  const isHalf = typeof origin === 'object' && 'half' in origin
  return { entry: isHalf ? halfOf(entry, origin.half) : entry, names: [name], isLog: typeof origin === 'object' && 'log' in origin }
}

function stacked(get: (name: string) => TensorEntry | undefined, each: string): Found | undefined {
  const entries: TensorEntry[] = []
  const names: string[] = []
  for (;;) {
    const name = each.replace('{}', `${entries.length}`)
    const entry = get(name)
    if (entry === undefined) return entries.length === 0 ? undefined : { entry: stackOf(entries), names, isLog: false }
    entries.push(entry)
    names.push(name)
  }
}

interface Encoded {
  readonly ggufName: string
  readonly found: Found
  readonly row: Row
  readonly factor: readonly RowFactor[] | undefined
}

function encoded({ type, typeOf, signal }: ConvertOptions, { ggufName, found: { entry, isLog }, row, factor }: Encoded): GgufTensor {
  const shape = row.form?.toGguf(entry.shape) ?? entry.shape
  const chosen = ggufTensorType(ggufName, { shape, type, dtype: entry.dtype })
  const dtype = typeOf?.(ggufName, chosen) ?? chosen
  const heads = row.form?.heads
  const ordered = heads === undefined ? entry : permutedRows(entry, pairOrder(heads, 'toGguf'))
  const transform = isLog ? negExp : factor === undefined ? undefined : byFactors(factor, shape[shape.length - 1])
  return { name: ggufName, dtype, shape, bytes: () => encodeTensor(ordered, { type: dtype, transform, signal }) }
}

/** The numbers that loading the checkpoint makes of A_log. */
function negExp(values: Float32Array): void {
  for (let i = 0; i < values.length; i++) values[i] = -exp(values[i])
}

/** undefined where nothing changes: quantized tensors then stay as they are. */
function byFactors(factors: readonly RowFactor[], nColumns: number): Transform | undefined {
  if (factors.every(({ factor }) => factor === 1)) return undefined
  return (values, first) => {
    let end = 0
    let at = 0
    for (const { nRows, factor } of factors) {
      end += nRows * nColumns
      for (; at < values.length && first + at < end; at++) values[at] *= factor
    }
  }
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

/**
 * The type that a tensor is written in, when the larger matrices are to be of `type`. As in llama.cpp, vectors, norms, the convolution, A, D and
 * the routers of experts are F32. The matrix of dt is not quantized and stays as the checkpoint has it. Rows that are not whole superblocks of 256
 * are Q8_0 instead, and those that are not whole blocks of 32 stay as they are.
 */
export function ggufTensorType(ggufName: string, { shape, type, dtype }: { shape: readonly number[]; type: EncodedType; dtype: string }): EncodedType {
  if (shape.length < 2 || !ggufName.endsWith('.weight') || /ssm_conv1d|_norm\.|ffn_gate_inp/.test(ggufName)) return 'F32'
  if (ENCODERS[type].blockElements === 1) return type
  const fitting = [type, 'Q8_0' as const].find((candidate) => shape[shape.length - 1] % ENCODERS[candidate].blockElements === 0)
  if (!ggufName.includes('ssm_dt') && fitting !== undefined) return fitting
  return dtype === 'F16' || dtype === 'BF16' ? dtype : 'F32'
}
