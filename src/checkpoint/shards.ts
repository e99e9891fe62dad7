/** A checkpoint in several files of one container, and the index that says which tensor is in which. */
import { CheckpointError, describe } from '../errors.ts'
import { readText, type ByteSource } from './byte-source.ts'
import { isPlainFileName } from './file-set.ts'
import { expectObject, expectString, parseJson } from './json.ts'
import type { ContainerFiles, TensorReader } from './open-checkpoint.ts'
import type { TensorEntry } from './safetensors.ts'

const MAX_INDEX_BYTES = 100_000_000

/** An index names the shard of each tensor; the shards are read, and must hold just what the index says. */
export async function readShards(index: ByteSource, files: ContainerFiles, readTensors: TensorReader): Promise<readonly TensorEntry[]> {
  const shardOf = readWeightMap(parseJson(await readText(index, MAX_INDEX_BYTES, files.signal), index.name), index.name)
  const tensors = new Map<string, TensorEntry>()
  for (const shardName of new Set(shardOf.values())) {
    const shard = await files.open(shardName)
    if (shard === undefined) throw new CheckpointError({ place: index.name, expected: `a file ${shardName} beside it`, got: 'none' })
    for (const entry of await readTensors(shard, files.signal)) {
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
