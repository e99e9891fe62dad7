/** Many calls at once through the public face: they share forwards, are limited, can be counted, and leave nothing behind. */
import { afterEach, describe, expect, test, vi } from 'vitest'
import { platform } from '#platform'
import { BusyError, EngineError, Mamba } from '../../src/index.ts'
import { reasonOf, untyped } from '../support/anything.ts'
import { expectSameBits } from '../support/compare.ts'
import { fixtureModel } from '../support/fixtures.ts'
import { createNumbers } from '../support/numbers.ts'

const TINY = fixtureModel('mamba')
const numbers = createNumbers(31)
const textOf = (length: number): number[] => Array.from({ length }, () => numbers.integer(0, 159))
const IDLE = { calls: 0, running: 0, waiting: 0, failure: null }

afterEach(() => {
  vi.restoreAllMocks()
})

describe('forwards', () => {
  test('generations of one prompt length are in every forward together', async () => {
    await using mamba = await Mamba.load(TINY, { maxBatch: 8 })
    const generations = Array.from({ length: 8 }, async (_, seed) => {
      const ids: number[] = []
      for await (const chunk of mamba.generate([1, 2, 3, seed], { maxTokens: 40, seed, ignoreEos: true })) ids.push(...chunk.ids)
      return ids
    })
    const together = await Promise.all(generations)
    // One forward reads the eight prompts, and each gives a token; the last one is not read.
    expect(mamba.stats).toMatchObject({ ...IDLE, turns: 40, tokens: 8 * (4 + 39), batchSizes: [0, 0, 0, 0, 0, 0, 0, 0, 40], moves: 0, seated: 0 })
    for (const [seed, ids] of together.entries()) expect((await mamba.complete([1, 2, 3, seed], { maxTokens: 40, seed, ignoreEos: true })).ids).toEqual(ids)
    expect(mamba.stats.batchSizes).toEqual([0, 8 * 40, 0, 0, 0, 0, 0, 0, 40])
  })

  test('who joins and leaves under way changes nobody', async () => {
    await using mamba = await Mamba.load(TINY, { maxBatch: 3 })
    const options = (seed: number) => ({ maxTokens: 5 + 7 * (seed % 5), seed, ignoreEos: true, temperature: 1.3 })
    const prompts = Array.from({ length: 12 }, (_, i) => textOf(1 + 23 * (i % 4)))
    const alone: (readonly number[])[] = []
    for (const [seed, prompt] of prompts.entries()) alone.push((await mamba.complete(prompt, options(seed))).ids)
    const together = await Promise.all(prompts.map(async (prompt, seed) => {
      for (let tick = 0; tick < 60 * seed; tick++) await Promise.resolve()
      return (await mamba.complete(prompt, options(seed))).ids
    }))
    expect(together).toEqual(alone)
    expect(mamba.stats.batchSizes[3]).toBeGreaterThan(10)
    expect(mamba.stats).toMatchObject({ ...IDLE, seated: 0 })
  })
})

describe('maxQueue', () => {
  test('one call more is a BusyError, at once; the others are answered, and then there is room again', async () => {
    await using mamba = await Mamba.load(TINY, { maxBatch: 2, maxQueue: 3 })
    const texts = Array.from({ length: 5 }, () => textOf(300))
    const calls = texts.map((text) => mamba.forward(text))
    await Promise.resolve()
    expect(mamba.stats.calls).toBe(5)
    const before = mamba.stats.turns
    for (const call of [() => mamba.complete([1]), () => mamba.forward([1]), () => mamba.score([1, 2]), () => mamba.session().append([1]), () => mamba.generate([1]).next()]) {
      const error = await reasonOf(call)
      expect(error).toBeInstanceOf(BusyError)
      expect(error).toMatchObject({ message: 'mamba: expected at most 5 calls at once (maxBatch 2 and maxQueue 3), got one more' })
    }
    expect(mamba.stats.refusedCalls).toBe(5)
    // None of them waited for a call to end.
    expect(mamba.stats.turns).toBeLessThan(before + 5)
    for (const [i, logits] of (await Promise.all(calls)).entries()) expectSameBits(logits, await mamba.forward(texts[i]), `call ${i}`)
    expect((await mamba.complete([1], { maxTokens: 3, ignoreEos: true })).ids).toHaveLength(3)
    expect(mamba.stats).toMatchObject(IDLE)
  })

  test('a generation in pieces counts from its first piece to its last, left early or not', async () => {
    await using mamba = await Mamba.load(TINY, { maxBatch: 1, maxQueue: 0 })
    const chunks = mamba.generate([1, 2], { maxTokens: 9, ignoreEos: true })
    expect(mamba.stats.calls).toBe(0)
    await chunks.next()
    expect(mamba.stats.calls).toBe(1)
    expect(await reasonOf(() => mamba.forward([1]))).toBeInstanceOf(BusyError)
    await chunks.return()
    expect(mamba.stats.calls).toBe(0)
    await mamba.forward([1])
  })

  test('calls of one session that wait for each other count too', async () => {
    await using mamba = await Mamba.load(TINY, { maxBatch: 1, maxQueue: 2 })
    await using session = mamba.session()
    const results = await Promise.allSettled(Array.from({ length: 5 }, () => session.append([1, 2])))
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'fulfilled', 'rejected', 'rejected'])
    // Those refused are not part of the text.
    expectSameBits(await session.forward([7]), await mamba.forward([1, 2, 1, 2, 1, 2, 7]), 'the text')
  })

  test.each([-1, 1.5, NaN, '3'])('%s is out of range', async (maxQueue) => {
    await expect(Mamba.load(TINY, { maxQueue: untyped(maxQueue) })).rejects.toThrow(/^maxQueue: expected an integer from 0/)
  })
})

describe('nothing is left over', () => {
  test('a hundred sessions come and go while others generate', async () => {
    await using mamba = await Mamba.load(TINY, { maxBatch: 3 })
    const options = { maxTokens: 1500, seed: 4, ignoreEos: true }
    const usual = (await mamba.complete([5, 6], options)).ids
    let nEnded = 0
    const steady = Array.from({ length: 2 }, () => mamba.complete([5, 6], options).finally(() => nEnded++))
    for (let i = 0; i < 100; i++) {
      const session = mamba.session()
      const reading = session.append(textOf(1 + (i % 40)))
      const fork = session.fork()
      const generating = fork.complete({ maxTokens: i % 4, seed: i })
      if (i % 3 === 0) await reading
      // Every third one is left to the garbage collector.
      if (i % 3 < 2) await Promise.all([session.dispose(), fork.dispose()])
      await Promise.allSettled([reading, generating])
    }
    expect(nEnded).toBe(0)
    for (const { ids } of await Promise.all(steady)) expect(ids).toEqual(usual)
    expect(mamba.stats).toMatchObject(IDLE)
    expect(mamba.stats.seated).toBeLessThanOrEqual(3)
    expect((await mamba.complete([5, 6], options)).ids).toEqual(usual)
  })

  test('aborts at every moment of a generation', async () => {
    await using mamba = await Mamba.load(TINY, { maxBatch: 2 })
    const prompt = textOf(600)
    const options = { maxTokens: 12, seed: 2, ignoreEos: true }
    const usual = (await mamba.complete(prompt, options)).ids
    const reason = new Error('enough')
    for (let ticks = 0; ticks < 400; ticks += 7) {
      const controller = new AbortController()
      const other = mamba.complete(prompt.slice(0, 30), options)
      const call = mamba.complete(prompt, { ...options, signal: controller.signal }).then(({ ids }) => ids, (error: unknown) => error)
      for (let tick = 0; tick < ticks; tick++) await Promise.resolve()
      controller.abort(reason)
      // Aborted, or done before.
      expect([reason, usual]).toContainEqual(await call)
      await other
    }
    expect(mamba.stats).toMatchObject({ ...IDLE, seated: 0 })
  })
})

describe('dispose of the model', () => {
  test('at every moment: calls end or are refused, and nothing hangs', async () => {
    for (let ticks = 0; ticks < 300; ticks += 25) {
      const mamba = await Mamba.load(TINY, { maxBatch: 2, threads: 1 })
      const session = mamba.session()
      const calls = [mamba.complete(textOf(300), { maxTokens: 9 }), mamba.forward(textOf(500)), mamba.score(textOf(400)), session.append(textOf(300)), session.fork().complete({ maxTokens: 5 })]
      const settled = Promise.allSettled(calls)
      const pieces = (async () => {
        for await (const _ of mamba.generate(textOf(100), { maxTokens: 200, ignoreEos: true })) await Promise.resolve()
      })().catch((error: unknown) => error)
      for (let tick = 0; tick < ticks; tick++) await Promise.resolve()
      await mamba.dispose()
      // Those that had begun were waited for.
      expect((await settled).map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'fulfilled', 'fulfilled', 'fulfilled'])
      const end = await pieces
      if (end !== undefined) expect(end).toMatchObject({ name: 'TypeError', message: expect.stringContaining('disposed') })
      await expect(mamba.forward([1])).rejects.toBeInstanceOf(TypeError)
    }
  })
})

describe('a worker that dies while many calls run', () => {
  test.each([0, 1, 40, 200, 1000])('all reject with the reason, %i ticks on, and the model says that it is of no use', async (ticks) => {
    const start = platform.startWorker
    let die = (): void => {}
    // As its thread's end would say it; test/backend/threads.test.ts has threads that really trap.
    vi.spyOn(platform, 'startWorker').mockImplementation((task, onEnd) => {
      die = () => onEnd('one that was killed')
      return start(task, onEnd)
    })
    const mamba = await Mamba.load(TINY, { threads: 2, maxBatch: 2 })
    const sessions = Array.from({ length: 4 }, () => mamba.session())
    const calls = [...sessions.map((session) => session.append(textOf(6000))), ...sessions.map((session) => session.complete({ maxTokens: 5 })), mamba.score(textOf(9000)), mamba.forward(textOf(9000))]
    const settled = Promise.allSettled(calls)
    for (let tick = 0; tick < ticks; tick++) await Promise.resolve()
    die()
    for (const result of await settled) expect(result).toMatchObject({ status: 'rejected', reason: { name: 'EngineError', message: 'wasm thread 1: expected a thread at work, got one that was killed' } })
    expect(mamba.stats).toMatchObject({ calls: 0, running: 0, waiting: 0, failure: { name: 'EngineError' } })
    await expect(mamba.forward([1])).rejects.toBe(mamba.stats.failure)
    await expect(mamba.forward([1])).rejects.toBeInstanceOf(EngineError)
    await Promise.all(sessions.map((session) => session.dispose()))
    await mamba.dispose()
  })
})
