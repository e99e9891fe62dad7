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

interface Contents extends Pick<Checkpoint, 'config' | 'configPlace' | 'metadata'> {
  readonly tensors: readonly TensorEntry[]
}

/** Reads the header of one file. Each container's reader is loaded when there is a file of it. */
export type TensorReader = (file: ByteSource, signal: AbortSignal | undefined) => Promise<readonly TensorEntry[]>

const readSafetensors: TensorReader = async (file, signal) => (await (await import('./safetensors.ts')).readSafetensorsHeader(file, signal)).tensors

const readTorch: TensorReader = async (file, signal) => (await import('./torch.ts')).readTorchTensors(file, signal)

/** The containers that have their config beside them, by the file that says so, in the order in which they are looked for. A new one is a line here. */
const CONTAINERS: readonly (readonly [fileName: string, read: (file: ByteSource, files: ContainerFiles) => Promise<readonly TensorEntry[]>])[] = [
  ['model.safetensors', (file, { signal }) => readSafetensors(file, signal)],
  ['model.safetensors.index.json', (index, files) => readSharded(index, files, readSafetensors)],
  ['pytorch_model.bin', (file, { signal }) => readTorch(file, signal)],
  ['pytorch_model.bin.index.json', (index, files) => readSharded(index, files, readTorch)]
]

/** Has a config in it. */
const GGUF = 'model.gguf'

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
    const contents = await readContents({ name, signal, open })
    const tensors = new Map(contents.tensors.map((entry) => [entry.name, entry]))
    let totalBytes = 0
    for (const { byteLength } of tensors.values()) totalBytes += byteLength
    return { ...contents, name, tensors, files, totalBytes, close }
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

async function readContents(files: ContainerFiles): Promise<Contents> {
  const config = await readConfig(files)
  const containers = config === undefined ? [] : CONTAINERS
  for (const [fileName, read] of containers) {
    const file = await files.open(fileName)
    if (file !== undefined) return { config: config ?? {}, configPlace: `${files.name}: config.json`, metadata: null, tensors: await read(file, files) }
  }
  const file = await files.open(GGUF)
  if (file !== undefined) return { configPlace: file.name, ...(await readGguf(file, files)) }
  const missing = config === undefined ? ['config.json'] : CONTAINERS.map(([fileName]) => fileName)
  throw new CheckpointError({ place: files.name, expected: `a file ${[...missing, GGUF].join(' or ')}`, got: 'none' })
}

async function readSharded(index: ByteSource, files: ContainerFiles, readTensors: TensorReader): Promise<readonly TensorEntry[]> {
  return (await import('./shards.ts')).readShards(index, files, readTensors)
}

/** One file, or the first of several: the others stand beside it, under names that end in their numbers. */
async function readGguf(file: ByteSource, files: ContainerFiles): Promise<Omit<Contents, 'configPlace'>> {
  const fileName = file.name.slice(file.name.search(/[^/\\]*$/))
  const { openGguf } = await import('./gguf-model.ts')
  return openGguf(file, { fileName, open: (name) => files.open(name), signal: files.signal })
}
