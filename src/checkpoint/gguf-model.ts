/** A GGUF file as a checkpoint: a config in transformers' form, and tensors by the names and with the shapes of transformers' checkpoints. */
import { CheckpointError, UnsupportedError, describe } from '../errors.ts'
import type { ByteSource } from './byte-source.ts'
import type { ArchitectureReading, GgufFile } from './gguf-architectures/keys.ts'
import { readMamba } from './gguf-architectures/mamba.ts'
import type { HeadRows, Row, TensorNames } from './gguf-architectures/rows.ts'
import { createMetadataReader, type MetadataReader } from './gguf-metadata.ts'
import { readGgufHeader } from './gguf-reader.ts'
import type { GgufFiles } from './gguf-split.ts'
import type { GgufHeader } from './gguf-types.ts'
import type { JsonObject, JsonValue } from './json.ts'
import type { TensorEntry } from './safetensors.ts'

export interface GgufModel {
  readonly config: JsonObject
  readonly tensors: readonly TensorEntry[]
}

type ReadArchitecture = (file: GgufFile) => ArchitectureReading

/** By general.architecture. Loaded on demand but for the first, which the embedded model has. */
const ARCHITECTURES: ReadonlyMap<string, () => Promise<ReadArchitecture>> = new Map([
  ['mamba', async () => readMamba],
  ['mamba2', async () => (await import('./gguf-architectures/mamba2.ts')).readPureMamba2],
  ['falcon-h1', async () => (await import('./gguf-architectures/falcon-h1.ts')).readFalconH1],
  ['granitehybrid', async () => (await import('./gguf-architectures/granite.ts')).readGranite],
  ['jamba', async () => (await import('./gguf-architectures/jamba.ts')).readJamba],
  ['nemotron_h', async () => (await import('./gguf-architectures/nemotron-h.ts')).readNemotronH]
])

/** The header of one file, or of the first of several and the tensors of all. Throws as `readGgufHeader` and `withParts`. */
export async function readGgufModel(file: ByteSource, files: GgufFiles): Promise<GgufHeader> {
  const header = await readGgufHeader(file, files.signal)
  return header.metadata.has('split.count') ? (await import('./gguf-split.ts')).withParts(header, files) : header
}

/** A model's file, or the first of its files, as a checkpoint. Throws as `readGgufModel` and `ggufModel`. */
export async function openGguf(file: ByteSource, files: GgufFiles): Promise<GgufModel & { readonly metadata: MetadataReader }> {
  const header = await readGgufModel(file, files)
  return { ...(await ggufModel(header)), metadata: createMetadataReader(header) }
}

/** Throws an UnsupportedError for another architecture and for what of one is not built, a CheckpointError for what is missing or damaged. */
export async function ggufModel(header: GgufHeader): Promise<GgufModel> {
  const reader = createMetadataReader(header)
  const architecture = reader.text('general.architecture')
  const load = ARCHITECTURES.get(architecture)
  if (load === undefined) {
    throw new UnsupportedError({ place: `${header.name}, general.architecture`, expected: `one of ${[...ARCHITECTURES.keys()].join(', ')}`, got: describe(architecture) })
  }
  const shapes = new Map(header.tensors.map(({ name, shape }) => [name, shape]))
  const vocabSize = shapes.get('token_embd.weight')?.[0]
  if (vocabSize === undefined) throw new CheckpointError({ place: `${header.name}, token_embd.weight`, expected: 'a tensor', got: 'none of that name' })
  const read = await load()
  const { config, names } = read({ keys: createMetadataReader(header, `${architecture}.`), shapes })
  const hasConvBias = header.tensors.some(({ name }) => name.endsWith('.ssm_conv1d.bias'))
  const whole: Record<string, JsonValue> = {
    ...config,
    vocab_size: vocabSize,
    use_conv_bias: hasConvBias,
    mamba_conv_bias: hasConvBias,
    tie_word_embeddings: !shapes.has('output.weight')
  }
  const tokenId = (key: string): number[] => (reader.has(key) ? [reader.natural(key)] : [])
  const [bos] = tokenId('tokenizer.ggml.bos_token_id')
  if (bos !== undefined) whole['bos_token_id'] = bos
  const eos = new Set([...tokenId('tokenizer.ggml.eos_token_id'), ...tokenId('tokenizer.ggml.eot_token_id')])
  if (eos.size > 0) whole['eos_token_id'] = [...eos]
  return { config: whole, tensors: await renamed(header, names) }
}

type WithHalves = (entry: TensorEntry, heads: HeadRows) => TensorEntry

async function renamed({ name: fileName, tensors }: GgufHeader, { frame, layers, layer }: TensorNames): Promise<readonly TensorEntry[]> {
  const withHalves = layer.some(({ form }) => form?.heads) ? (await import('./turned-rows.ts')).withHalves : undefined
  const frameRows = new Map(frame.map((row) => [row.gguf, row]))
  const layerRows = new Map(layer.map((row) => [row.gguf, row]))
  const seen = new Set<string>()
  return tensors.map((entry) => {
    const [, index, rest] = /^blk\.(0|[1-9][0-9]*)\.(.+)$/.exec(entry.name) ?? []
    const row = index === undefined ? frameRows.get(entry.name) : layerRows.get(rest)
    // An unknown one keeps its name, and is one too many when the model is built.
    const name = row === undefined ? entry.name : index === undefined ? row.origins[0] : `${layers}.${index}.${row.origins[0]}`
    if (seen.has(name)) throw new CheckpointError({ place: `${fileName}, ${entry.name}`, expected: 'each tensor once', got: `${name} again` })
    seen.add(name)
    return { ...fromGguf(entry, row, withHalves), name }
  })
}

function fromGguf(entry: TensorEntry, row: Row | undefined, withHalves: WithHalves | undefined): TensorEntry {
  if (row?.form === undefined) return entry
  const { fromGguf: shapeOf, heads } = row.form
  const shaped = { ...entry, shape: shapeOf(entry.shape) }
  return heads === undefined || withHalves === undefined ? shaped : withHalves(shaped, heads)
}
