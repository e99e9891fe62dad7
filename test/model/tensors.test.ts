/** Tensors that are missing, too many, of another shape or type, or damaged: each is named before anything runs. */
import { describe, expect, test } from 'vitest'
import type { TensorData } from '../support/safetensors-writer.ts'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import { reasonOf } from '../support/anything.ts'
import { expectSameBits } from '../support/compare.ts'
import { type Changes, loadTiny, tinyConfig, tinyTensors } from '../support/tiny-checkpoint.ts'

const NAMES = tinyTensors().map(({ name }) => name)
const EMBEDDING = 'backbone.embeddings.weight'

async function expectRefused(changes: Changes, parts: readonly string[], type: typeof CheckpointError | typeof UnsupportedError = CheckpointError): Promise<void> {
  const error = await reasonOf(() => loadTiny(changes))
  expect(error).toBeInstanceOf(type)
  for (const part of parts) expect(String(error)).toContain(part)
}

function replace(name: string, change: (tensor: TensorData) => TensorData): TensorData[] {
  return tinyTensors().map((tensor) => (tensor.name === name ? change(tensor) : tensor))
}

function floatsOf({ data }: TensorData): Float32Array {
  return new Float32Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength))
}

test('the model has the tensors that it is said to have', () => {
  expect(NAMES.length).toBe(2 + 3 * 10)
})

test.each(NAMES)('without %s', async (name) => {
  await expectRefused({ tensors: tinyTensors().filter((tensor) => tensor.name !== name) }, [name === EMBEDDING ? 'backbone.embedding' : name])
})

test('one more than there should be', async () => {
  const more = { name: 'backbone.layers.1.mixer.extra', dtype: 'F32', shape: [2], data: new Float32Array(2) }
  await expectRefused({ tensors: [...tinyTensors(), more] }, [more.name])
  // A layer more than the config says.
  const layer = tinyTensors().filter(({ name }) => name.includes('layers.2.')).map((tensor) => ({ ...tensor, name: tensor.name.replace('layers.2.', 'layers.3.') }))
  await expectRefused({ tensors: [...tinyTensors(), ...layer] }, ['backbone.layers.3.'])
  await expectRefused({ config: { ...tinyConfig(), num_hidden_layers: 2 } }, ['backbone.layers.2.'])
  await expectRefused({ config: { ...tinyConfig(), num_hidden_layers: 4 } }, ['backbone.layers.3.'])
  await expectRefused({ config: { ...tinyConfig(), use_conv_bias: false } }, ['conv1d.bias'])
  await expectRefused({ config: { ...tinyConfig(), use_bias: true } }, ['in_proj.bias'])
})

test.each(NAMES)('%s of another shape', async (name) => {
  // As many elements, and still not the same.
  for (const change of [
    (shape: readonly number[]) => [...shape, 1], (shape: readonly number[]) => [1, ...shape],
    (shape: readonly number[]) => (shape.length === 1 ? [shape[0] / 2, 2] : shape.toReversed())
  ]) {
    await expectRefused({ tensors: replace(name, (tensor) => ({ ...tensor, shape: change(tensor.shape) })) }, [name, 'expected'])
  }
  await expectRefused({ tensors: replace(name, (tensor) => ({ ...tensor, shape: [0, ...tensor.shape.slice(1)], data: new Float32Array(0) })) }, [name])
})

test.each([['hidden_size', 48], ['intermediate_size', 128], ['state_size', 8], ['conv_kernel', 3], ['time_step_rank', 4], ['vocab_size', 168]])('a config with %s %i names the first tensor that differs', async (key, value) => {
  await expectRefused({ config: { ...tinyConfig(), [key]: value } }, ['expected', 'got (', 'backbone.'])
})

describe('types', () => {
  test.each(['I32', 'U32', 'F64', 'I64', 'BOOL', 'F8_E4M3'])('%s is not supported', async (dtype) => {
    const name = 'backbone.layers.1.mixer.D'
    const bytes = { I32: 4, U32: 4, F64: 8, I64: 8 }[dtype] ?? 1
    await expectRefused({ tensors: replace(name, (tensor) => ({ ...tensor, dtype, data: new Uint8Array(64 * bytes) })) }, [name, dtype], UnsupportedError)
  })
})

test.each([NaN, Infinity, -Infinity])('a weight that is %f', async (value) => {
  for (const name of ['backbone.layers.2.mixer.A_log', EMBEDDING, 'backbone.layers.0.mixer.dt_proj.bias']) {
    for (const place of [0, 1, -1]) {
      const tensors = replace(name, (tensor) => {
        const data = floatsOf(tensor)
        data[place < 0 ? data.length - 1 : place] = value
        return { ...tensor, data }
      })
      await expectRefused({ tensors }, [name, String(value)])
    }
  }
})

/** The embedding once more, as the head. */
function head(): TensorData {
  const [embedding] = tinyTensors().filter(({ name }) => name === EMBEDDING)
  return { ...embedding, name: 'lm_head.weight', data: floatsOf(embedding) }
}

describe('a tied head that was saved all the same', () => {
  test('the same as the embedding: loads, with the same logits', async () => {
    await using plain = await loadTiny()
    await using mamba = await loadTiny({ tensors: [...tinyTensors(), head()] })
    expectSameBits(await mamba.forward([1, 2, 3]), await plain.forward([1, 2, 3]), 'logits')
  })

  test.each([0, 160 * 32 - 1])('with another value in element %i', async (element) => {
    const other = head()
    const data = floatsOf(other)
    data[element] += 1
    await expectRefused({ tensors: [...tinyTensors(), { ...other, data }] }, ['lm_head.weight', EMBEDDING])
  })

  test('of another shape', async () => {
    await expectRefused({ tensors: [...tinyTensors(), { ...head(), shape: [32, 160] }] }, ['lm_head.weight'])
  })

  test('untied, it is another matrix', async () => {
    const other = head()
    const config = { ...tinyConfig(), tie_word_embeddings: false }
    await using plain = await loadTiny()
    await using same = await loadTiny({ config, tensors: [...tinyTensors(), other] })
    expectSameBits(await same.forward([1, 2, 3]), await plain.forward([1, 2, 3]), 'logits')
    await using doubled = await loadTiny({ config, tensors: [...tinyTensors(), { ...other, data: floatsOf(other).map((value) => 2 * value) }] })
    expectSameBits(await doubled.forward([1, 2, 3]), (await plain.forward([1, 2, 3])).map((value) => 2 * value), 'logits')
    await expectRefused({ config }, ['lm_head.weight'])
  })

  test('both names of the embedding', async () => {
    const second = { ...head(), name: 'backbone.embedding.weight' }
    await expectRefused({ tensors: [...tinyTensors(), second] }, ['backbone.embedding.weight'])
  })
})
