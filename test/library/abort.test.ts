/** Abort signals: their reason comes out, soon, and nothing is broken by it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Mamba, selectiveScan } from '../../src/index.ts'
import { reasonOf } from '../support/anything.ts'
import { expectSameBits } from '../support/compare.ts'
import { fixtureModel } from '../support/fixtures.ts'
import { createNumbers } from '../support/numbers.ts'

const REASON = new Error('no longer wanted')
const ABORTED = AbortSignal.abort(REASON)
const numbers = createNumbers(2)
const LONG = Int32Array.from({ length: 5000 }, () => numbers.integer(1, 159))

let mamba: Mamba
/** Of an untroubled model. */
let usual: readonly number[]
let tiny: Mamba

beforeAll(async () => {
  [mamba, tiny] = [await Mamba.load(), await Mamba.load(fixtureModel('mamba'))]
  usual = (await mamba.complete('Once', { maxTokens: 8, temperature: 0 })).ids
})
afterAll(async () => {
  await Promise.all([mamba.dispose(), tiny.dispose()])
})

async function expectUsable(): Promise<void> {
  expect((await mamba.complete('Once', { maxTokens: 8, temperature: 0 })).ids).toEqual(usual)
}

describe('before the call', () => {
  test('nothing is done', async () => {
    await using session = mamba.session()
    await session.append('a')
    let calls = 0
    const options = { signal: ABORTED, onProgress: () => calls++ }
    for (const call of [
      () => mamba.complete('Once', options), () => mamba.forward('Once', options), () => mamba.score('Once', options), () => session.append('more', options),
      () => session.complete(options), () => session.forward('more', options), () => Mamba.load(fixtureModel('mamba'), options)
    ]) expect(await reasonOf(call)).toBe(REASON)
    expect(calls).toBe(0)
    await expectUsable()
  })

  test('of the bare scan', async () => {
    const x = { data: new Float32Array(8), shape: [1, 4, 2] }
    const A = { data: new Float32Array(2), shape: [2, 1] }
    const B = { data: new Float32Array(4), shape: [1, 4, 1] }
    expect(await reasonOf(() => selectiveScan({ x, dt: x, A, B, C: B, signal: ABORTED }))).toBe(REASON)
  })
})

describe('while the prompt is read', () => {
  test('upon the first progress', async () => {
    const controller = new AbortController()
    let done = 0
    const onProgress = ({ doneTokens }: { readonly doneTokens: number }): void => {
      done = doneTokens
      controller.abort(REASON)
    }
    expect(await reasonOf(() => mamba.complete(LONG, { signal: controller.signal, onProgress }))).toBe(REASON)
    expect(done).toBeLessThanOrEqual(256)
    await expectUsable()
  })

  test('by a timer, soon', async () => {
    const controller = new AbortController()
    let abortedMs = Infinity
    setTimeout(() => {
      abortedMs = performance.now()
      controller.abort(REASON)
    }, 30)
    expect(await reasonOf(() => mamba.complete(LONG, { signal: controller.signal }))).toBe(REASON)
    // One chunk of 256 tokens may have to end; the whole prompt takes seconds.
    expect(performance.now() - abortedMs).toBeLessThan(1000)
    await expectUsable()
  })

  test('a score', async () => {
    const controller = new AbortController()
    expect(await reasonOf(() => mamba.score(LONG, { signal: controller.signal, onProgress: () => controller.abort(REASON) }))).toBe(REASON)
    await expectUsable()
  })
})

describe('while tokens come', () => {
  test('no further one comes', async () => {
    const controller = new AbortController()
    const ids: number[] = []
    const error = await reasonOf(async () => {
      for await (const chunk of mamba.generate('Once', { maxTokens: 100, temperature: 0, signal: controller.signal })) {
        ids.push(...chunk.ids)
        if (ids.length === 3) controller.abort(REASON)
      }
    })
    expect(error).toBe(REASON)
    expect(ids).toEqual(usual.slice(0, 3))
    await expectUsable()
  })

  test('a signal without a reason gives an AbortError, a timeout a TimeoutError', async () => {
    expect(await reasonOf(() => mamba.complete('Once', { signal: AbortSignal.abort() }))).toMatchObject({ name: 'AbortError' })
    expect(await reasonOf(() => mamba.complete(LONG, { signal: AbortSignal.timeout(20) }))).toMatchObject({ name: 'TimeoutError' })
  })

  test('others go on', async () => {
    const controller = new AbortController()
    const [aborted, other] = [
      reasonOf(() => mamba.complete(LONG, { signal: controller.signal, onProgress: () => controller.abort(REASON) })),
      mamba.complete('Once', { maxTokens: 8, temperature: 0 })
    ]
    expect(await aborted).toBe(REASON)
    expect((await other).ids).toEqual(usual)
  })
})

describe('sessions', () => {
  test.each([1, 2, 5])('an append aborted after %i chunks goes on where it stopped', async (chunks) => {
    await using session = tiny.session()
    await session.append([1, 2, 3])
    const controller = new AbortController()
    let calls = 0
    const onProgress = (): void => {
      if (++calls === chunks) controller.abort(REASON)
    }
    expect(await reasonOf(() => session.append(LONG, { signal: controller.signal, onProgress }))).toBe(REASON)
    expect(calls).toBe(chunks)
    // The text has them all; the next call reads the rest.
    expect(session.position).toBe(5003)
    expectSameBits(await session.forward([7]), await tiny.forward([1, 2, 3, ...LONG, 7]), 'logits')
  })

  test('an append aborted at once belongs to the text too', async () => {
    await using session = tiny.session()
    expect(await reasonOf(() => session.append([1, 2, 3], { signal: ABORTED }))).toBe(REASON)
    expect(session.position).toBe(3)
    expectSameBits(await session.forward([7]), await tiny.forward([1, 2, 3, 7]), 'logits')
  })

  test('a fork of an aborted one has the same text', async () => {
    await using session = tiny.session()
    const controller = new AbortController()
    await reasonOf(() => session.append(LONG, { signal: controller.signal, onProgress: () => controller.abort(REASON) }))
    await using fork = session.fork()
    expectSameBits(await fork.forward([7]), await tiny.forward([...LONG, 7]), 'the fork')
    expectSameBits(await session.forward([7]), await tiny.forward([...LONG, 7]), 'the session')
  })

  test('a generation aborted keeps the tokens that came', async () => {
    await using session = tiny.session()
    await session.append([1, 2, 3])
    const controller = new AbortController()
    const ids: number[] = []
    expect(await reasonOf(async () => {
      for await (const chunk of session.generate({ maxTokens: 50, seed: 1, ignoreEos: true, signal: controller.signal })) {
        ids.push(...chunk.ids)
        if (ids.length === 4) controller.abort(REASON)
      }
    })).toBe(REASON)
    expect(session.position).toBe(7)
    expectSameBits(await session.forward([7]), await tiny.forward([1, 2, 3, ...ids, 7]), 'logits')
  })
})
