/**
 * A folder of files as a checkpoint: its config and a table of tensors, wherever their bytes are.
 */
import { CheckpointError } from '../errors.ts'
import { readText, type ByteSource, type FileSet } from './byte-source.ts'
import type { MetadataReader } from './gguf-metadata.ts'
import type { JsonObject } from './json.ts'
import type { TensorEntry } from './safetensors.ts'

export interface Checkpoint {
  /** For messages: the file set's name. */
  readonly name: string
  /** config.json as it is, or what a GGUF file says in its form. */
  readonly config: JsonObject
  /** For messages: where the config stands. */
  readonly configPlace: string
  /** What a GGUF file says of itself, its tokenizer among it; null for other containers. */
  readonly metadata: MetadataReader | null
  readonly tensors: ReadonlyMap<string, TensorEntry>
  /** For what stands beside the weights: tokenizer.json and its like. */
  readonly files: FileSet
  /** Of all tensors. */
  readonly totalBytes: number
  close(): Promise<void>
}

/** What a container reader gets: every source that `open` returns is closed with the checkpoint, or at once when reading fails. */
export interface ContainerFiles {
  readonly name: string
  readonly signal: AbortSignal | undefined
  readonly open: (fileName: string) => Promise<ByteSource | undefined>
}

interface Contents {
  /** null where config.json has it. */
  readonly config: JsonObject | null
  readonly metadata: MetadataReader | null
  readonly tensors: readonly TensorEntry[]
}

interface Container {
  /** The file whose presence says that the checkpoint is in this container. */
  readonly fileName: string
  /** Whether the config is in it, not in config.json. */
  readonly hasConfig: boolean
  readonly read: (file: ByteSource, files: ContainerFiles) => Promise<Contents>
}

/** Reads the header of one file. Each container's reader is loaded when there is a file of it. */
export type TensorReader = (file: ByteSource, signal: AbortSignal | undefined) => Promise<readonly TensorEntry[]>

const readSafetensors: TensorReader = async (file, signal) => (await (await import('./safetensors.ts')).readSafetensorsHeader(file, signal)).tensors

const readTorch: TensorReader = async (file, signal) => (await import('./torch.ts')).readTorchTensors(file, signal)

/** The containers, in the order in which they are looked for. A new one is a line here. */
const CONTAINERS: readonly Container[] = [
  { fileName: 'model.safetensors', hasConfig: false, read: (file, files) => readSingle(file, files, readSafetensors) },
  { fileName: 'model.safetensors.index.json', hasConfig: false, read: (index, files) => readSharded(index, files, readSafetensors) },
  { fileName: 'pytorch_model.bin', hasConfig: false, read: (file, files) => readSingle(file, files, readTorch) },
  { fileName: 'pytorch_model.bin.index.json', hasConfig: false, read: (index, files) => readSharded(index, files, readTorch) },
  { fileName: 'model.gguf', hasConfig: true, read: readGguf }
]

const MAX_CONFIG_BYTES = 10_000_000

/**
 * Reads the config and the header of every file of weights; no tensor's bytes.
 * Throws a CheckpointError for what is missing, damaged or contradicts itself. After an error no file is left open.
 */
export async function openCheckpoint(files: FileSet, { signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<Checkpoint> {
  const { name } = files
  const opened: ByteSource[] = []
  const open = async (fileName: string): Promise<ByteSource | undefined> => {
    const source = await files.open(fileName, signal)
    if (source !== undefined) opened.push(source)
    return source
  }
  const close = async (): Promise<void> => {
    await Promise.all(opened.splice(0).map((source) => source.close()))
  }
  try {
    const config = await readConfig({ name, signal, open })
    const { file, contents } = await readContainer({ name, signal, open }, config !== undefined)
    const tensors = new Map(contents.tensors.map((entry) => [entry.name, entry]))
    let totalBytes = 0
    for (const { byteLength } of tensors.values()) totalBytes += byteLength
    const own = contents.config === null ? { config: config ?? {}, configPlace: `${name}: config.json` } : { config: contents.config, configPlace: file.name }
    return { name, ...own, metadata: contents.metadata, tensors, files, totalBytes, close }
  } catch (error) {
    await close()
    throw error
  }
}

async function readConfig(files: ContainerFiles): Promise<JsonObject | undefined> {
  const file = await files.open('config.json')
  if (file === undefined) return undefined
  const { expectObject, parseJson } = await import('./json.ts')
  return expectObject(parseJson(await readText(file, MAX_CONFIG_BYTES, files.signal), file.name), file.name)
}

async function readContainer(files: ContainerFiles, hasConfig: boolean): Promise<{ file: ByteSource; contents: Contents }> {
  for (const { fileName, hasConfig: isComplete, read } of CONTAINERS) {
    if (!hasConfig && !isComplete) continue
    const file = await files.open(fileName)
    if (file !== undefined) return { file, contents: await read(file, files) }
  }
  const missing = hasConfig ? CONTAINERS.map(({ fileName }) => fileName) : ['config.json', ...CONTAINERS.filter((row) => row.hasConfig).map(({ fileName }) => fileName)]
  throw new CheckpointError({ place: files.name, expected: `a file ${missing.join(' or ')}`, got: 'none' })
}

async function readSingle(file: ByteSource, { signal }: ContainerFiles, readTensors: TensorReader): Promise<Contents> {
  return { config: null, metadata: null, tensors: await readTensors(file, signal) }
}

async function readSharded(index: ByteSource, files: ContainerFiles, readTensors: TensorReader): Promise<Contents> {
  return { config: null, metadata: null, tensors: await (await import('./shards.ts')).readShards(index, files, readTensors) }
}

/** One file, or the first of several: the others stand beside it, under names that end in their numbers. */
async function readGguf(file: ByteSource, files: ContainerFiles): Promise<Contents> {
  const fileName = file.name.slice(file.name.search(/[^/\\]*$/))
  const { openGguf } = await import('./gguf-model.ts')
  return openGguf(file, { fileName, open: (name) => files.open(name), signal: files.signal })
}
