/** Speculative decoding: the same tokens and the same state as without, whatever was drafted, and fewer forwards where the text repeats itself. */
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Mamba } from '../../src/index.ts'
import { reasonOf, untyped } from '../support/anything.ts'
import { expectSameBits } from '../support/compare.ts'
import { fixtureModel } from '../support/fixtures.ts'

const LOOP = 'the cat sat on the mat. '.repeat(20)
const PLAIN = 'It was a dark and stormy night; the rain fell in torrents'

let mamba: Mamba
let tiny: Mamba
beforeAll(async () => {
  [mamba, tiny] = await Promise.all([Mamba.load(undefined, { maxBatch: 2 }), Mamba.load(fixtureModel('mamba'), { maxBatch: 2 })])
})
afterAll(() => Promise.all([mamba.dispose(), tiny.dispose()]))

describe('the same tokens', () => {
  test.each([['repeating', LOOP], ['other', PLAIN]])('of %s text, greedy and drawn', async (_, prompt) => {
    for (const temperature of [0, 0.7, 1.2]) {
      const options = { maxTokens: 60, temperature, seed: 5, ignoreEos: true }
      const plain = await mamba.complete(prompt, options)
      const drafted = await mamba.complete(prompt, { ...options, speculation: 'prompt-lookup' })
      expect(drafted.ids).toEqual(plain.ids)
      expect(drafted).toMatchObject({ text: plain.text, usage: plain.usage, finishReason: 'length' })
      expect(plain.speculation).toBeNull()
    }
  })

  test('of any text, draft, sampler and end, and the session goes on the same', async () => {
    const cases = fc.record({
      prompt: fc.array(fc.nat(3), { minLength: 1, maxLength: 40 }),
      maxTokens: fc.nat(40),
      leftAfter: fc.integer({ min: 1, max: 50 }),
      speculation: fc.record({ maxDraft: fc.integer({ min: 1, max: 15 }), minMatch: fc.integer({ min: 1, max: 3 }) }),
      // Few tokens to choose from: drafts are right at times, and at times only in part.
      sampler: fc.record({ temperature: fc.constantFrom(0, 0.3, 2), topK: fc.constantFrom(1, 2, 3), seed: fc.nat(1000), repetitionPenalty: fc.constantFrom(1, 1.3) })
    })
    let accepted = 0
    let rejected = 0
    await fc.assert(fc.asyncProperty(cases, async ({ prompt, maxTokens, leftAfter, speculation, sampler }) => {
      const [plain, drafted] = [tiny.session(), tiny.session()]
      const ids: number[][] = [[], []]
      for (const [i, session] of [plain, drafted].entries()) {
        await session.append(prompt, { defer: true })
        for await (const chunk of session.generate({ ...sampler, maxTokens, ignoreEos: true, speculation: i === 1 ? speculation : undefined })) {
          ids[i].push(...chunk.ids)
          if (chunk.finish?.speculation) {
            accepted += chunk.finish.speculation.acceptedTokens
            rejected += chunk.finish.speculation.draftedTokens - chunk.finish.speculation.acceptedTokens
          }
          if (ids[i].length >= leftAfter) break
        }
      }
      expect(ids[1]).toEqual(ids[0])
      expect(drafted.position).toBe(plain.position)
      expectSameBits(await drafted.forward([7]), await plain.forward([7]), 'the next logits')
      await Promise.all([plain.dispose(), drafted.dispose()])
    }), { numRuns: 150, seed: 3 })
    expect(accepted).toBeGreaterThan(100)
    expect(rejected).toBeGreaterThan(100)
    expect(tiny.stats).toMatchObject({ calls: 0, seated: 0, running: 0, waiting: 0 })
  })

  test.each([1, 2, 5])('of many at once, %i slots', async (maxBatch) => {
    await using many = await Mamba.load(fixtureModel('mamba'), { maxBatch })
    const prompts = Array.from({ length: 6 }, (_, i) => Array.from({ length: 20 + i }, (_, k) => k % (2 + i)))
    const options = (seed: number) => ({ maxTokens: 40, temperature: 0.5, topK: 2, seed, ignoreEos: true })
    const alone = await Promise.all(prompts.map(async (prompt, i) => (await tiny.complete(prompt, options(i))).ids))
    const together = await Promise.all(prompts.map(async (prompt, i) => (await many.complete(prompt, { ...options(i), speculation: { minMatch: 2 } })).ids))
    expect(together).toEqual(alone)
    expect(many.stats).toMatchObject({ calls: 0, seated: 0 })
  })

  test('in a session with checkpoints, which then goes back', async () => {
    const sessions = [tiny.session({ checkpoints: { every: 8, keep: 6 } }), tiny.session()]
    const prompt = Array.from({ length: 30 }, (_, i) => i % 3)
    const options = { maxTokens: 30, temperature: 0, ignoreEos: true }
    const { ids } = await tiny.complete(prompt, options)
    for (const session of sessions) {
      await session.append(prompt, { defer: true })
      expect((await session.complete({ ...options, speculation: { minMatch: 2 } })).ids).toEqual(ids)
    }
    await sessions[0].rewind(11)
    expectSameBits(await sessions[0].forward([9]), await tiny.forward([...prompt, ...ids.slice(0, 19), 9]), 'after going back')
    await Promise.all(sessions.map((session) => session.dispose()))
  })
})

test('forwards are saved where the text repeats itself', async () => {
  const options = { maxTokens: 200, temperature: 0, ignoreEos: true }
  const before = mamba.stats.turns
  await mamba.complete(LOOP, options)
  const plain = mamba.stats.turns - before
  const { speculation } = await mamba.complete(LOOP, { ...options, speculation: 'prompt-lookup' })
  const drafted = mamba.stats.turns - before - plain
  expect(drafted).toBeLessThan(0.5 * plain)
  expect(speculation?.acceptedTokens).toBeGreaterThan(50)
  expect(speculation?.draftedTokens).toBeGreaterThanOrEqual(speculation?.acceptedTokens ?? NaN)
})

test('what a session or a fork of it has read is drafted from', async () => {
  const options = { maxTokens: 20, temperature: 0, ignoreEos: true, speculation: 'prompt-lookup' } as const
  await using session = mamba.session()
  await session.append(`${LOOP}the cat sat`)
  await using fork = session.fork()
  for (const text of [session, fork]) expect((await text.complete(options)).speculation?.acceptedTokens).toBeGreaterThan(0)
})

test('an abort at any moment leaves the text as it came, and nothing behind', async () => {
  const reason = new Error('enough')
  const options = { maxTokens: 40, temperature: 0, ignoreEos: true }
  const prompt = Array.from({ length: 20 }, (_, i) => i % 4)
  const { ids } = await tiny.complete(prompt, options)
  for (let ticks = 0; ticks < 600; ticks += 9) {
    const session = tiny.session()
    await session.append(prompt, { defer: true })
    const controller = new AbortController()
    const call = session.complete({ ...options, speculation: { minMatch: 2 }, signal: controller.signal }).catch((error: unknown) => error)
    for (let tick = 0; tick < ticks; tick++) await Promise.resolve()
    controller.abort(reason)
    const result = await call
    const count = session.position - prompt.length
    if (result !== reason) expect(count).toBe(40)
    expectSameBits(await session.forward([7]), await tiny.forward([...prompt, ...ids.slice(0, count), 7]), `after ${count} tokens`)
    await session.dispose()
  }
  expect(tiny.stats).toMatchObject({ calls: 0, seated: 0 })
})

test.each([[{ maxDraft: 0 }, 'maxDraft'], [{ maxDraft: 16 }, 'maxDraft'], [{ minMatch: 1.5 }, 'minMatch'], [{ minMatch: 'x' }, 'minMatch']])('%j is out of range', async (speculation, name) => {
  expect(await reasonOf(() => tiny.complete([1], { speculation: untyped(speculation) }))).toMatchObject({ name: 'RangeError', message: expect.stringMatching(new RegExp(`^speculation\\.${name}: expected an integer from 1 to`)) })
})
