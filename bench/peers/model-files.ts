/**
 * The GGUF files that all engines read: the mamba-130m shape with random weights by the reference's initialisation (../random-model.ts),
 * and GPT-NeoX's vocabulary, since llama.cpp wants one. Written once, into a folder outside of the repository.
 */

import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, statSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ByteSource } from '../../src/checkpoint/byte-source.ts'
import { modelToGguf } from '../../src/checkpoint/gguf-convert.ts'
import { writeGguf } from '../../src/checkpoint/gguf-writer.ts'
import type { TensorEntry } from '../../src/checkpoint/safetensors.ts'
import { elementsOf, type Parameter } from '../../src/program/ops.ts'
import { writeGgufTokenizer } from '../../src/tokenizer/gguf-tokenizer-writer.ts'
import { createRandomModel, MAMBA_130M, type RandomModel } from '../random-model.ts'

export const DTYPES = ['F32', 'Q8_0', 'Q4_0'] as const

export type Dtype = (typeof DTYPES)[number]

/** Raised when what is written changes. */
const FILE_VERSION = 1
const TOKENIZER_PATH = fileURLToPath(new URL('../../test/fixtures/gpt-neox-tokenizer.json', import.meta.url))
/** GPT-NeoX's <|endoftext|>. */
const END_OF_TEXT = 0

/** The file of a dtype, which is written where it is not there yet. */
export async function modelFile(dtype: Dtype, folder = join(tmpdir(), `mamba-wasm-peers-${FILE_VERSION}`)): Promise<string> {
  const path = join(folder, `mamba-130m-random-${dtype}.gguf`)
  if (existsSync(path)) return path
  mkdirSync(folder, { recursive: true })
  const model = createRandomModel(MAMBA_130M)
  const tensors = new Map(model.program.parameters.map((parameter) => [parameter.name, entryOf(model, parameter)] as const))
  const tokenizer = writeGgufTokenizer({
    tokenizerJson: JSON.parse(readFileSync(TOKENIZER_PATH, 'utf8')),
    tokenizerConfig: {},
    vocabSize: model.config.vocabSize,
    ids: { bos: END_OF_TEXT, eos: [END_OF_TEXT], pad: null },
    place: TOKENIZER_PATH
  })
  const contents = modelToGguf({ config: model.config, tensors, type: dtype, name: 'mamba-130m, random', tokenizer, place: 'random' })
  const partial = `${path}.partial`
  const file = openSync(partial, 'w')
  try {
    await writeGguf({
      ...contents,
      sink: {
        async write(bytes) {
          for (let start = 0; start < bytes.byteLength;) start += writeSync(file, bytes, start)
        }
      }
    })
  } finally {
    closeSync(file)
  }
  renameSync(partial, path)
  return path
}

export function fileBytes(path: string): number {
  return statSync(path).size
}

/** A tensor whose bytes are made when they are read. */
function entryOf(model: RandomModel, parameter: Parameter): TensorEntry {
  const byteLength = 4 * elementsOf(parameter.shape)
  let values: Float32Array | undefined
  const source: ByteSource = {
    name: parameter.name,
    byteLength,
    async read(start, end) {
      values ??= allValues(model, parameter)
      const bytes = new Uint8Array(values.buffer, start, end - start)
      if (end !== byteLength) return bytes
      values = undefined
      return bytes
    },
    async close() {}
  }
  return { name: parameter.name, dtype: 'F32', shape: parameter.shape, source, start: 0, byteLength }
}

function allValues(model: RandomModel, parameter: Parameter): Float32Array {
  const all = new Float32Array(elementsOf(parameter.shape))
  for (const { values, first } of model.values(parameter)) all.set(values, first)
  return all
}
