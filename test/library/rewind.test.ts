/** Going back: how far it reaches, and that nothing of what was taken back is left. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Mamba, type Session, type SessionOptions } from '../../src/index.ts'
import { reasonOf, untyped } from '../support/anything.ts'
import { expectSameBits } from '../support/compare.ts'
import { fixtureModel } from '../support/fixtures.ts'
import { createNumbers } from '../support/numbers.ts'

const numbers = createNumbers(8)
const IDS = Int32Array.from({ length: 400 }, () => numbers.integer(0, 159))

let mamba: Mamba
beforeAll(async () => {
  mamba = await Mamba.load(fixtureModel('mamba'), { maxBatch: 2 })
})
afterAll(() => mamba.dispose())

async function sessionAfter(ids: Int32Array, options: SessionOptions): Promise<Session> {
  const session = mamba.session(options)
  await session.append(ids)
  return session
}

describe('rewind', () => {
  test.each([[1, 1], [1, 5], [7, 3], [64, 2], [100, 1], [1000, 1]])('every %i, keep %i: as far as promised from every length, and no further', async (every, keep) => {
    const promised = (keep - 1) * every - 1
    for (const length of [1, 2, every - 1, every, every + 1, 2 * every, 200, 399].filter((n) => n > 0 && n < 400)) {
      await using session = await sessionAfter(IDS.subarray(0, length), { checkpoints: { every, keep } })
      // All but the last were read. The start is in the ring until `keep` others have pushed it out.
      const nStates = Math.floor((length - 1) / every) + 1
      const oldest = nStates <= keep ? 0 : (nStates - keep) * every
      const known = length - (oldest === 0 ? 0 : oldest + 1)
      expect(known).toBeGreaterThanOrEqual(Math.min(length, promised))
      const error = await reasonOf(() => session.rewind(known + 1))
      expect(error).toBeInstanceOf(RangeError)
      expect(String(error)).toContain(`rewind: expected at most ${known} tokens`)
      for (const back of new Set([known, Math.floor(known / 2), Math.min(1, known)])) {
        await using fork = session.fork()
        await fork.rewind(back)
        expect(fork.position).toBe(length - back)
        expectSameBits(await fork.forward([5]), await mamba.forward([...IDS.subarray(0, length - back), 5]), `${back} of ${length} tokens back`)
      }
      expectSameBits(await session.forward([6]), await mamba.forward([...IDS.subarray(0, length), 6]), 'the session itself')
    }
  })

  test('then generate, without anything appended, and again', async () => {
    const options = { maxTokens: 20, temperature: 0, ignoreEos: true, repetitionPenalty: 1.6 } as const
    await using session = await sessionAfter(IDS.subarray(0, 100), { checkpoints: { every: 16, keep: 4 } })
    const first = await session.complete(options)
    await session.rewind(20)
    expect((await session.complete(options)).ids).toEqual(first.ids)
    await session.rewind(25)
    expect((await session.complete(options)).ids).toEqual((await mamba.complete(IDS.subarray(0, 95), options)).ids)
  })

  test('ids that came only in what was taken back are not penalized', async () => {
    const options = { maxTokens: 8, temperature: 0, ignoreEos: true, repetitionPenalty: 50 } as const
    await using session = mamba.session({ checkpoints: { every: 4, keep: 40 } })
    await session.append([3, 4, 5])
    const all = Int32Array.from({ length: 130 }, (_, i) => i)
    await session.append(all)
    await session.rewind(130)
    const { ids } = await session.complete(options)
    expect(ids).toEqual((await mamba.complete([3, 4, 5], options)).ids)
    expect(ids).not.toEqual((await mamba.complete([...all, 3, 4, 5], options)).ids)
  })

  test('over tokens that were not read, without any checkpoint', async () => {
    await using session = mamba.session()
    await session.append(IDS.subarray(0, 30), { defer: true })
    await session.rewind(10)
    await session.rewind(0)
    expectSameBits(await session.forward([1]), await mamba.forward([...IDS.subarray(0, 20), 1]), 'deferred')
    await session.append([2, 3, 4], { defer: true })
    expect(String(await reasonOf(() => session.rewind(3)))).toContain('at most 2 tokens')
    await session.rewind(2)
    expectSameBits(await session.forward([1]), await mamba.forward([...IDS.subarray(0, 20), 1, 2, 1]), 'again')
  })

  test('to nothing, and on', async () => {
    await using session = await sessionAfter(IDS.subarray(0, 50), { checkpoints: { every: 100, keep: 1 } })
    await session.rewind(50)
    expect(session.position).toBe(0)
    expect(await reasonOf(() => session.complete())).toBeInstanceOf(RangeError)
    expectSameBits(await session.forward([1, 2]), await mamba.forward([1, 2]), 'logits')
  })

  test('after an abort in the middle of a prompt', async () => {
    const controller = new AbortController()
    await using session = mamba.session({ checkpoints: { every: 50, keep: 10 } })
    const reading = session.append(IDS, { signal: controller.signal, onProgress: ({ doneTokens }) => doneTokens >= 150 && controller.abort() })
    await expect(reading).rejects.toThrow()
    await session.rewind(300)
    expectSameBits(await session.forward([1]), await mamba.forward([...IDS.subarray(0, 100), 1]), 'logits')
  })

  test('progress and logits are those of the whole, whatever the checkpoints', async () => {
    await using session = mamba.session({ checkpoints: { every: 3, keep: 2 } })
    const seen: number[] = []
    const logits = await session.forward(IDS.subarray(0, 20), { allLogits: true, onProgress: ({ doneTokens, totalTokens }) => seen.push(doneTokens, totalTokens) })
    expectSameBits(logits, await mamba.forward(IDS.subarray(0, 20), { allLogits: true }), 'all logits')
    expect(seen).toEqual([3, 20, 6, 20, 9, 20, 12, 20, 15, 20, 18, 20, 20, 20])
  })

  test('and saved: only the text is in it', async () => {
    await using session = await sessionAfter(IDS.subarray(0, 60), { checkpoints: { every: 16, keep: 3 } })
    await session.rewind(20)
    await using restored = await mamba.restore(await session.save())
    expectSameBits(await restored.forward([1]), await mamba.forward([...IDS.subarray(0, 40), 1]), 'logits')
  })

  test('options and arguments out of range', async () => {
    for (const checkpoints of [{ every: 0, keep: 1 }, { every: 1, keep: 0 }, { every: 1.5, keep: 1 }, { every: NaN, keep: 1 }, { every: 1, keep: untyped<number>('2') }]) {
      expect(() => mamba.session({ checkpoints })).toThrow(RangeError)
    }
    await using session = await sessionAfter(IDS.subarray(0, 5), { checkpoints: { every: 1, keep: 9 } })
    for (const nTokens of [-1, 0.5, NaN, 6, untyped<number>('1')]) expect(await reasonOf(() => session.rewind(nTokens)), String(nTokens)).toBeInstanceOf(RangeError)
    expectSameBits(await session.forward([1]), await mamba.forward([...IDS.subarray(0, 5), 1]), 'unharmed')
  })
})
