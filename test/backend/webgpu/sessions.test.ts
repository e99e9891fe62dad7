/** Sessions on a GPU: the same as on the CPU within rounding, and from one to the other. A pure state space model, and one with attention. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Mamba, type Session } from '../../../src/index.ts'
import { relativeError } from '../../support/compare.ts'
import { fixtureModel } from '../../support/fixtures.ts'
import { gpuDevice, GPUS } from '../../support/gpu.ts'
import { createNumbers } from '../../support/numbers.ts'

const numbers = createNumbers(7)
const IDS = Int32Array.from({ length: 40 }, () => numbers.integer(0, 150))
/** Of the largest logit. */
const TOLERANCE = 1e-5
const GREEDY = { maxTokens: 6, temperature: 0, ignoreEos: true } as const

test('there are ids', () => expect(IDS).toHaveLength(40))

describe.each(GPUS.flatMap(() => ['mamba', 'bamba']))('%s', { timeout: 180_000 }, (name) => {
  let gpu: Mamba
  let cpu: Mamba

  beforeAll(async () => {
    // Two slots: with three sessions they are moved in and out.
    const options = { maxBatch: 2, contextLength: 64 }
    cpu = await Mamba.load(fixtureModel(name), options)
    gpu = await Mamba.load(fixtureModel(name), { ...options, backend: 'webgpu', gpu: await gpuDevice() })
  }, 180_000)
  afterAll(async () => {
    await gpu.dispose()
    await cpu.dispose()
  })

  async function sessionAfter(mamba: Mamba, ids: Int32Array): Promise<Session> {
    const session = mamba.session()
    await session.append(ids)
    return session
  }

  test('logits of every token, from a prompt and step by step', async () => {
    const want = await cpu.forward(IDS, { allLogits: true })
    expect(relativeError(await gpu.forward(IDS, { allLogits: true }), want), 'prompt').toBeLessThan(TOLERANCE)
    await using session = gpu.session()
    const steps: number[] = []
    for (const id of IDS.subarray(0, 5)) steps.push(...(await session.forward([id])))
    expect(relativeError(steps, want.subarray(0, steps.length)), 'steps').toBeLessThan(TOLERANCE)
  })

  test.each([['webgpu', 'wasm'], ['wasm', 'webgpu']])('saved on %s, restored on %s', async (from) => {
    const [source, target] = from === 'wasm' ? [cpu, gpu] : [gpu, cpu]
    expect(gpu.fingerprint).toBe(cpu.fingerprint)
    await using session = await sessionAfter(source, IDS)
    await using restored = await target.restore(await session.save())
    expect(restored.position).toBe(IDS.length)
    const [got, want] = [await restored.forward([3, 4]), await session.forward([3, 4])]
    expect(relativeError(got, want)).toBeLessThan(TOLERANCE)
    expect((await restored.complete(GREEDY)).ids).toEqual((await session.complete(GREEDY)).ids)
  })

  test('a fork goes its own way, and a state that was moved out and in is the same', async () => {
    await using session = await sessionAfter(gpu, IDS)
    await using fork = session.fork()
    await using other = await sessionAfter(gpu, IDS.subarray(0, 7))
    const a = await fork.forward([9])
    await other.append([1, 2, 3])
    const b = await session.forward([9])
    expect(b).toEqual(a)
    expect(relativeError(await fork.forward([2]), await cpu.forward([...IDS, 9, 2]))).toBeLessThan(TOLERANCE)
  })

  test('sequences of different lengths in one batch', async () => {
    const prompts = [IDS.subarray(0, 3), IDS.subarray(3, 20), IDS.subarray(20, 21), IDS.subarray(5, 38)]
    const got = await Promise.all(prompts.map((ids) => gpu.forward(ids)))
    for (const [i, ids] of prompts.entries()) expect(relativeError(got[i], await cpu.forward(ids)), `prompt ${i}`).toBeLessThan(TOLERANCE)
    expect(gpu.stats.batchSizes[2]).toBeGreaterThan(0)
  })

  test('greedy and sampled at once: each as it is alone', async () => {
    const prompts = [IDS.subarray(0, 9), IDS.subarray(9, 30)]
    const sampled = { ...GREEDY, temperature: 1, seed: 4 }
    const [greedyAlone, sampledAlone] = [await gpu.complete(prompts[0], GREEDY), await gpu.complete(prompts[1], sampled)]
    const [greedy, other] = await Promise.all([gpu.complete(prompts[0], GREEDY), gpu.complete(prompts[1], sampled)])
    expect([greedy.ids, other.ids]).toEqual([greedyAlone.ids, sampledAlone.ids])
    expect(greedy.ids).toEqual((await cpu.complete(prompts[0], GREEDY)).ids)
  })

  test.each(['left', 'aborted'])('a generation that is %s: the same as one that was to end there', async (how) => {
    const ids = IDS.subarray(0, 11)
    await using wanted = await sessionAfter(gpu, ids)
    const completion = await wanted.complete({ ...GREEDY, maxTokens: 3 })
    await using session = await sessionAfter(gpu, ids)
    const controller = new AbortController()
    const read: number[] = []
    try {
      for await (const piece of session.generate({ ...GREEDY, maxTokens: 30, signal: controller.signal })) {
        read.push(...piece.ids)
        if (read.length < 3) continue
        if (how === 'left') break
        controller.abort('enough')
      }
    } catch (reason) {
      expect(reason).toBe('enough')
    }
    expect(read).toEqual(completion.ids)
    expect(await session.save()).toEqual(await wanted.save())
    const next = await session.forward([9, 8])
    expect(next).toEqual(await wanted.forward([9, 8]))
    expect(relativeError(next, await cpu.forward([...ids, ...read, 9, 8]))).toBeLessThan(TOLERANCE)
  })

  test('score', async () => {
    const [got, want] = [await gpu.score(IDS), await cpu.score(IDS)]
    expect(got.perplexity / want.perplexity).toBeCloseTo(1, 5)
  })
})
