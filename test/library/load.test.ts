/** `Mamba.load`: sources, what it says of itself, progress and aborts. */
import { pathToFileURL } from 'node:url'
import { describe, expect, test } from 'vitest'
import { CheckpointError, type LoadOptions, type LoadProgress, Mamba, type ModelSource } from '../../src/index.ts'
import { reasonOf } from '../support/anything.ts'
import { expectSameBits } from '../support/compare.ts'
import { filesOf, fixtureModel, repositoryPath } from '../support/fixtures.ts'

const TINY = fixtureModel('mamba')
/** The same weights. */
const TORCH = fixtureModel('mamba_original')
const IDS = [5, 6, 7, 8, 9]

async function logitsOf(source: ModelSource | undefined, options: LoadOptions = {}): Promise<Float32Array> {
  await using mamba = await Mamba.load(source, options)
  return await mamba.forward(IDS, { allLogits: true })
}

/** The tiny model's files, each as something else. */
function filesAs<T>(convert: (bytes: Uint8Array<ArrayBuffer>) => T): Record<string, T> {
  return Object.fromEntries(Object.entries(filesOf(TINY)).map(([name, bytes]) => [name, convert(Uint8Array.from(bytes))]))
}

describe('sources', () => {
  const sources: [string, () => ModelSource][] = [
    ['a folder', () => TINY], ['a file', () => `${TINY}/model.safetensors`], ['a file URL', () => pathToFileURL(TINY)],
    ['the text of a file URL', () => pathToFileURL(TINY).href], ['bytes by name', () => filesOf(TINY)], ['blobs by name', () => filesAs((bytes) => new Blob([bytes]))],
    ['buffers by name', () => filesAs((bytes) => bytes.buffer)], ['a folder with a torch.save file', () => TORCH], ['a torch.save file', () => `${TORCH}/pytorch_model.bin`]
  ]

  test.each(sources)('%s', async (_, source) => {
    expectSameBits(await logitsOf(source()), await logitsOf(TINY), 'logits')
  })

  test('the embedded model is the default', async () => {
    expectSameBits(await logitsOf(undefined), await logitsOf(repositoryPath('models/classics-8m')), 'logits')
  })

  test('the files given are not changed', async () => {
    const files = filesOf(TINY)
    await logitsOf(files)
    expect(files).toEqual(filesOf(TINY))
  })

  test('a folder without a config, and one without weights', async () => {
    const { 'config.json': config, 'model.safetensors': weights } = filesOf(TINY)
    for (const [files, missing] of [[{ 'config.json': config }, 'model.safetensors'], [{ 'model.safetensors': weights }, 'config.json']] as const) {
      const error = await reasonOf(() => Mamba.load(files))
      expect(error).toBeInstanceOf(CheckpointError)
      expect(String(error)).toContain(missing)
    }
  })
})

describe('what runs is told', () => {
  test('backend and build', async () => {
    await using reference = await Mamba.load(TINY, { backend: 'reference' })
    expect(reference.backend).toMatchObject({ name: 'reference', build: 'float64', threads: 1 })
    for (const build of ['scalar', 'simd'] as const) {
      await using mamba = await Mamba.load(TINY, { build, threads: 1 })
      expect(mamba.backend).toMatchObject({ name: 'wasm', build, threads: 1 })
      expect(mamba.backend.reason.length).toBeGreaterThan(5)
    }
  })

  test('memory', async () => {
    await using mamba = await Mamba.load(undefined, { dtype: 'f32', threads: 1 })
    const { weights, state, activations, total } = mamba.backend.memoryBytes
    // The dt projection keeps the file's f16.
    const weightBytes = 4 * 7_812_480 - 2 * 8 * 24 * 768
    expect(weights).toBeGreaterThanOrEqual(weightBytes)
    expect(weights).toBeLessThan(1.01 * weightBytes)
    // Four slots of 8 layers × 768 channels × (16 states + 3 inputs of the convolution).
    expect(state).toBeGreaterThanOrEqual(4 * 4 * 8 * 768 * 19)
    expect(state).toBeLessThan(4.1 * 4 * 8 * 768 * 19)
    expect(total).toBeGreaterThanOrEqual(weights + state + activations)
  })

  test('the config, in this library’s terms', async () => {
    await using mamba = await Mamba.load(TINY)
    expect(mamba.config).toMatchObject({
      modelType: 'mamba', vocabSize: 160, dModel: 32, nLayers: 3, dInner: 64, dState: 16, dConv: 4, dtRank: 2, normEps: 1e-5,
      tieEmbeddings: true, useBias: false, useConvBias: true, bosTokenId: 1, eosTokenIds: [2]
    })
  })

  test('the number of slots and of threads decide no bit', async () => {
    const wanted = await logitsOf(undefined, { threads: 1, build: 'scalar' })
    for (const options of [{ maxBatch: 1 }, { maxBatch: 7, threads: 1 }, { threads: 3 }]) expectSameBits(await logitsOf(undefined, options), wanted, JSON.stringify(options))
  })
})

describe('progress', () => {
  test.each([['a folder', () => TINY], ['bytes', () => filesOf(TINY)], ['many shards', () => fixtureModel('mamba_sharded')], ['the embedded model', () => undefined]])('of %s rises to the whole', async (_, source) => {
    const calls: LoadProgress[] = []
    await using mamba = await Mamba.load(source(), { onProgress: (progress) => calls.push(progress) })
    expect(mamba.backend.name).toBe('wasm')
    expect(calls[0].loadedBytes).toBe(0)
    expect(calls.length).toBeGreaterThan(10)
    for (const [i, { phase, loadedBytes, totalBytes }] of calls.entries()) {
      expect(phase).toBe('weights')
      expect(totalBytes).toBe(calls[0].totalBytes)
      if (i > 0) expect(loadedBytes).toBeGreaterThanOrEqual(calls[i - 1].loadedBytes)
    }
    expect(calls.at(-1)?.loadedBytes).toBe(calls[0].totalBytes)
  })

  test('of reading a prompt', async () => {
    await using mamba = await Mamba.load(TINY)
    await using session = mamba.session()
    const done: number[] = []
    await session.append(new Int32Array(1001), {
      onProgress({ doneTokens, totalTokens }) {
        // The last token waits for the call that wants its logits.
        expect(totalTokens).toBe(1000)
        done.push(doneTokens)
      }
    })
    expect(done.length).toBeGreaterThan(3)
    expect(done).toEqual(done.toSorted((a, b) => a - b))
    expect(done.at(-1)).toBe(1000)
  })
})

test('an abort while it loads', async () => {
  const reason = new Error('no longer wanted')
  for (const source of [fixtureModel('mamba_sharded'), filesOf(TINY), undefined]) {
    const controller = new AbortController()
    let calls = 0
    const onProgress = (): void => {
      if (++calls === 3) controller.abort(reason)
    }
    expect(await reasonOf(() => Mamba.load(source, { signal: controller.signal, onProgress }))).toBe(reason)
    expect(calls).toBe(3)
  }
})

test('an error from a callback comes out', async () => {
  const error = new Error('of the caller’s own')
  const onProgress = (): void => {
    throw error
  }
  expect(await reasonOf(() => Mamba.load(TINY, { onProgress }))).toBe(error)
  await using mamba = await Mamba.load(TINY)
  expect(await reasonOf(() => mamba.complete([1, 2], { onProgress }))).toBe(error)
  expect((await mamba.complete([1, 2], { maxTokens: 2, ignoreEos: true })).ids.length).toBe(2)
})
