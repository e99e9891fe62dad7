/** ggml's block types: read as their definitions say, refused where they are damaged or not known, and run as they are. */
import { beforeAll, describe, expect, test } from 'vitest'
import { createRandomModel } from '../../bench/random-model.ts'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { recordFiles } from '../../src/checkpoint/file-set.ts'
import { readGgufHeader } from '../../src/checkpoint/gguf-reader.ts'
import { ggufBytes } from '../../src/checkpoint/gguf-writer.ts'
import { writeSafetensors } from '../support/safetensors-writer.ts'
import { readTensor, readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { convertToGguf } from '../../src/convert.ts'
import type { BlockFormat } from '../../src/ggml-blocks.ts'
import { Mamba } from '../../src/index.ts'
import { elementsOf } from '../../src/program/ops.ts'
import { createNumbers } from '../support/numbers.ts'
import { activationRounding, BLOCK_FORMATS, blockElementsOf, blockHalvesOf, randomWeights } from '../support/weights.ts'
import { entryOf, utf8 } from './helpers.ts'

const N_BLOCKS = 300

function blocksOf(format: BlockFormat) {
  const count = N_BLOCKS * blockElementsOf(format)
  const { data, values } = randomWeights(createNumbers(7), format, count)
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  return { bytes, values, entry: { ...entryOf(format.toUpperCase(), bytes, { offset: 3 }), shape: [count] } }
}

describe.each(BLOCK_FORMATS)('%s', (format) => {
  test('every weight is that of the definition', async () => {
    const { entry, values } = blocksOf(format)
    const read = await readWholeTensor(entry)
    expect(read).toHaveLength(values.length)
    // Zeros of either sign are one.
    const index = read.findIndex((value, i) => value !== values[i])
    if (index >= 0) expect.fail(`element ${index} is ${read[index]}, not ${values[index]}`)
  })

  test.each(blockHalvesOf(format))('the half at byte %i: what is not finite is refused by its block', async (offset) => {
    for (const half of [0x7c00, 0xfc00, 0x7e00]) {
      const { bytes, entry } = blocksOf(format)
      const block = 17
      const damaged = bytes.slice()
      damaged.set([half & 255, half >> 8], (block * bytes.length) / N_BLOCKS + offset)
      const element = block * blockElementsOf(format)
      const refusal = readTensor({ ...entry, source: bytesSource(damaged, 'file'), start: 0 }, { onSlice() {} })
      await expect(refusal).rejects.toThrow(`file, w, element ${element}: expected a finite number, got `)
    }
  })
})

test.each(['Q2_K', 'Q3_K', 'Q8_1', 'Q8_K', 'IQ4_NL', 'IQ2_XXS', 'TQ1_0', 'MXFP4', 'I32'])('%s is refused by its name and the tensor\'s', async (dtype) => {
  await expect(readWholeTensor(entryOf(dtype, new Uint8Array(1024)))).rejects.toThrow(
    `file, w: expected one of F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, got ${dtype}`
  )
})

describe('a model whose matrices are of the type', () => {
  let f32: Uint8Array

  beforeAll(async () => {
    const { program, values } = createRandomModel({ vocabSize: 40, dModel: 256, nLayers: 1 })
    const tensors = program.parameters.map((parameter) => {
      const data = new Float32Array(elementsOf(parameter.shape))
      for (const part of values(parameter)) data.set(part.values, part.first)
      return { name: parameter.name, dtype: 'F32' as const, shape: [...parameter.shape], data }
    })
    const config = { model_type: 'mamba', vocab_size: 40, hidden_size: 256, num_hidden_layers: 1 }
    const files = recordFiles({ 'config.json': utf8(JSON.stringify(config)), 'model.safetensors': writeSafetensors(tensors) })
    const pieces: Uint8Array[] = []
    await convertToGguf(files, { type: 'F32', name: 'm', sink: { write: async (bytes) => void pieces.push(bytes.slice()) } })
    f32 = Buffer.concat(pieces)
  })

  /** The F32 file with the projections' and the embedding's data replaced by random blocks. */
  async function fileOf(format: BlockFormat): Promise<Uint8Array> {
    const source = bytesSource(f32, 'm.gguf')
    const { metadata, tensors } = await readGgufHeader(source)
    return ggufBytes({
      metadata,
      tensors: tensors.map((entry) => {
        const isQuantized = /token_embd|ssm_in|ssm_x|ssm_out/.test(entry.name)
        const { data } = randomWeights(createNumbers(entry.start), format, isQuantized ? entry.byteLength / 4 : 0)
        return {
          name: entry.name, shape: entry.shape, dtype: isQuantized ? format.toUpperCase() : entry.dtype,
          async *bytes() {
            yield isQuantized ? new Uint8Array(data.buffer) : await source.read(entry.start, entry.start + entry.byteLength)
          }
        }
      })
    })
  }

  test.each(BLOCK_FORMATS)('%s: runs as it is, with the logits of its weights in f32', async (format) => {
    const file = await fileOf(format)
    const tokens = [3, 39, 0, 7, 7, 21]
    const logitsWith = async (dtype: 'auto' | 'f32') => {
      await using mamba = await Mamba.load({ 'model.gguf': file }, { dtype, threads: 1 })
      return { logits: await mamba.forward(tokens, { allLogits: true }), bytes: mamba.backend.memoryBytes }
    }
    const [own, plain] = [await logitsWith('auto'), await logitsWith('f32')]
    const largest = Math.max(...plain.logits.map(Math.abs))
    const error = Math.max(...own.logits.map((value, i) => Math.abs(value - plain.logits[i]))) / largest
    console.log(`${format}: ${error.toExponential(1)} of the largest logit`)
    expect(error).toBeLessThan(10 * activationRounding(format))
    // Activations as integers leave a trace: these were not the f32 kernels.
    expect(error).toBeGreaterThan(0)
  })
})
