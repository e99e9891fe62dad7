/**
 * A folder of files as a checkpoint: its config and a table of tensors, wherever their bytes are.
 */
import { CheckpointError, describe } from '../errors.ts'
import { readText, type ByteSource, type FileSet } from './byte-source.ts'
import { isPlainFileName } from './file-set.ts'
import { expectObject, expectString, parseJson, type JsonObject } from './json.ts'
import { readSafetensorsHeader, type TensorEntry } from './safetensors.ts'

export interface Checkpoint {
  /** For messages: the file set's name. */
  readonly name: string
  /** config.json as it is. */
  readonly config: JsonObject
  readonly tensors: ReadonlyMap<string, TensorEntry>
  /** For what stands beside the weights: tokenizer.json and its like. */
  readonly files: FileSet
  /** Of all tensors. */
  readonly totalBytes: number
  close(): Promise<void>
}

/** What a container reader gets: every source that `open` returns is closed with the checkpoint, or at once when reading fails. */
interface ContainerFiles {
  readonly name: string
  readonly signal: AbortSignal | undefined
  open(fileName: string): Promise<ByteSource | undefined>
}

interface Container {
  /** The file whose presence says that the checkpoint is in this container. */
  readonly fileName: string
  readonly read: (file: ByteSource, files: ContainerFiles) => Promise<readonly TensorEntry[]>
}

/** The containers, in the order in which they are looked for. A new one is a line here. */
const CONTAINERS: readonly Container[] = [
  { fileName: 'model.safetensors', read: readSingle },
  { fileName: 'model.safetensors.index.json', read: readSharded }
]

const MAX_CONFIG_BYTES = 10_000_000
const MAX_INDEX_BYTES = 100_000_000

/**
 * Reads config.json and the header of every file of weights; no tensor's bytes.
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
    const tensors = new Map((await readContainer({ name, signal, open })).map((entry) => [entry.name, entry]))
    let totalBytes = 0
    for (const { byteLength } of tensors.values()) totalBytes += byteLength
    return { name, config, tensors, files, totalBytes, close }
  } catch (error) {
    await close()
    throw error
  }
}

async function readConfig(files: ContainerFiles): Promise<JsonObject> {
  const file = await files.open('config.json')
  if (file === undefined) throw new CheckpointError({ place: files.name, expected: 'a file config.json', got: 'none' })
  return expectObject(parseJson(await readText(file, MAX_CONFIG_BYTES, files.signal), file.name), file.name)
}

async function readContainer(files: ContainerFiles): Promise<readonly TensorEntry[]> {
  for (const { fileName, read } of CONTAINERS) {
    const file = await files.open(fileName)
    if (file !== undefined) return read(file, files)
  }
  throw new CheckpointError({ place: files.name, expected: `a file ${CONTAINERS.map(({ fileName }) => fileName).join(' or ')}`, got: 'none' })
}

async function readSingle(file: ByteSource, { signal }: ContainerFiles): Promise<readonly TensorEntry[]> {
  return (await readSafetensorsHeader(file, signal)).tensors
}

/** An index names the shard of each tensor; the shards are read, and must hold just what the index says. */
async function readSharded(index: ByteSource, files: ContainerFiles): Promise<readonly TensorEntry[]> {
  const shardOf = readWeightMap(parseJson(await readText(index, MAX_INDEX_BYTES, files.signal), index.name), index.name)
  const tensors = new Map<string, TensorEntry>()
  for (const shardName of new Set(shardOf.values())) {
    const shard = await files.open(shardName)
    if (shard === undefined) throw new CheckpointError({ place: index.name, expected: `a file ${shardName} beside it`, got: 'none' })
    for (const entry of (await readSafetensorsHeader(shard, files.signal)).tensors) {
      const expected = shardOf.get(entry.name)
      if (expected !== shardName) {
        const where = expected === undefined ? 'not in weight_map' : `in ${expected} by weight_map`
        throw new CheckpointError({ place: `${shard.name}, ${entry.name}`, expected: where, got: `it in ${shardName}` })
      }
      tensors.set(entry.name, entry)
    }
  }
  for (const [tensorName, shardName] of shardOf) {
    if (!tensors.has(tensorName)) {
      throw new CheckpointError({ place: `${index.name}, ${tensorName}`, expected: `it in ${shardName}`, got: 'none of that name there' })
    }
  }
  return [...tensors.values()]
}

function readWeightMap(root: ReturnType<typeof parseJson>, indexName: string): ReadonlyMap<string, string> {
  const place = `${indexName}, weight_map`
  const weightMap = expectObject(expectObject(root, indexName)['weight_map'], place)
  const shardOf = new Map<string, string>()
  for (const [tensorName, value] of Object.entries(weightMap)) {
    const shardName = expectString(value, `${place}, ${tensorName}`)
    if (!isPlainFileName(shardName)) {
      throw new CheckpointError({ place: `${place}, ${tensorName}`, expected: 'the name of a file in the same folder', got: describe(shardName) })
    }
    shardOf.set(tensorName, shardName)
  }
  return shardOf
}
