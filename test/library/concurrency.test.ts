/** Many calls at once on one model: the same results as alone, whoever shares the slots with whom, and whenever sessions come and go. */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Mamba, type Session } from '../../src/index.ts'
import { expectSameBits } from '../support/compare.ts'
import { fixtureModel } from '../support/fixtures.ts'
import { createNumbers } from '../support/numbers.ts'

const TINY = fixtureModel('mamba')
const numbers = createNumbers(8)
const textOf = (length: number): number[] => Array.from({ length }, () => numbers.integer(0, 159))

describe.each([1, 2, 3, 4])('%i slots', (maxBatch) => {
  test('generations at once give the texts that they give alone', async () => {
    await using mamba = await Mamba.load(undefined, { maxBatch })
    const prompts = ['The captain', 'It was a dark and stormy night; the rain fell', '"My dear,"', 'Chapter 1', 'A', 'She said nothing, but']
    const options = prompts.map((_, i) => ({ maxTokens: 15 + i, seed: i, temperature: 0.9 }))
    const alone: string[] = []
    for (const [i, prompt] of prompts.entries()) alone.push((await mamba.complete(prompt, options[i])).text)
    const together = await Promise.all(prompts.map((prompt, i) => mamba.complete(prompt, options[i])))
    expect(together.map(({ text }) => text)).toEqual(alone)
  })

  test('six sessions in turn have the bits that they have alone', async () => {
    await using mamba = await Mamba.load(TINY, { maxBatch })
    const texts = Array.from({ length: 6 }, (_, i) => textOf(30 + i))
    const sessions = texts.map(() => mamba.session())
    const done = texts.map(() => 0)
    while (done.some((count, i) => count < texts[i].length)) {
      // Some at once, some one after the other.
      await Promise.all(sessions.map(async (session, i) => {
        const count = Math.min(numbers.integer(0, 9), texts[i].length - done[i])
        const part = texts[i].slice(done[i], done[i] + count)
        done[i] += count
        await session.append(part)
      }))
    }
    for (const [i, session] of sessions.entries()) expectSameBits(await session.forward([1]), await mamba.forward([...texts[i], 1]), `session ${i}`)
    await Promise.all(sessions.map((session) => session.dispose()))
  })
})

test('scores, forwards and generations at once', async () => {
  await using mamba = await Mamba.load(TINY, { maxBatch: 2 })
  const ids = textOf(400)
  const tasks: (() => Promise<ArrayLike<number>>)[] = [
    async () => (await mamba.score(ids, { window: 50 })).logProbabilities,
    () => mamba.forward(ids),
    async () => (await mamba.complete(ids, { maxTokens: 20, seed: 3, ignoreEos: true })).ids,
    () => mamba.forward(ids.slice(0, 300), { allLogits: true })
  ]
  const alone: Float32Array[] = []
  for (const task of tasks) alone.push(Float32Array.from(await task()))
  const together = await Promise.all(tasks.map((task) => task()))
  for (const [i, result] of together.entries()) expectSameBits(Float32Array.from(result), alone[i], ['score', 'forward', 'complete', 'forward of all'][i])
})

/** One thing that happens to one of a few sessions, and how many turns of the microtask queue pass before the next. */
interface Step {
  readonly action: 'append' | 'forward' | 'fork' | 'dispose'
  readonly which: number
  readonly ids: readonly number[]
  readonly ticks: number
}

interface Live {
  session: Session
  text: number[]
}

const steps: fc.Arbitrary<Step[]> = fc.array(fc.record({
  action: fc.constantFrom('append', 'append', 'forward', 'forward', 'fork', 'dispose'),
  which: fc.nat(4),
  ids: fc.array(fc.nat(159), { minLength: 1, maxLength: 5 }),
  ticks: fc.nat(24)
}), { minLength: 4, maxLength: 40 })

/** Logits after each text, from fresh states of another model. */
const known = new Map<string, Float32Array>()

async function follow(mamba: Mamba, oracle: Mamba, plan: readonly Step[]): Promise<void> {
  const live: Live[] = Array.from({ length: 5 }, () => ({ session: mamba.session(), text: [] }))
  const results: { readonly text: readonly number[], readonly logits: Promise<Float32Array> }[] = []
  const pending: Promise<unknown>[] = []
  for (const { action, which, ids, ticks } of plan) {
    const { session, text } = live[which]
    if (action === 'append') {
      text.push(...ids)
      pending.push(session.append(ids))
    } else if (action === 'forward') {
      text.push(...ids)
      const logits = session.forward(ids)
      results.push({ text: [...text], logits })
    } else if (action === 'fork') {
      const other = (which + 1) % live.length
      pending.push(live[other].session.dispose())
      live[other] = { session: session.fork(), text: [...text] }
    } else {
      pending.push(session.dispose())
      live[which] = { session: mamba.session(), text: [] }
    }
    for (let tick = 0; tick < ticks; tick++) await Promise.resolve()
  }
  for (const { session, text } of live) results.push({ text: [...text, 1], logits: session.forward([1]) })
  await Promise.all(pending)
  for (const { text, logits } of results) {
    const key = text.join(' ')
    const wanted = known.get(key) ?? (await oracle.forward(text))
    known.set(key, wanted)
    expectSameBits(await logits, wanted, `after ${key}`)
  }
  await Promise.all(live.map(({ session }) => session.dispose()))
}

test.each([1, 2, 3])('sessions may come and go at any moment, %i slots', async (maxBatch) => {
  await using oracle = await Mamba.load(TINY, { threads: 1 })
  await fc.assert(fc.asyncProperty(steps, async (plan) => {
    await using mamba = await Mamba.load(TINY, { maxBatch, threads: 1 })
    await follow(mamba, oracle, plan)
  }), { numRuns: 60, seed: 12, endOnFailure: false })
})

describe('dispose of the model', () => {
  // "Gives the memory back, after the calls under way."
  test.each([
    ['a long append', async (mamba: Mamba) => mamba.session().append(textOf(3000))],
    ['a forward of many chunks', async (mamba: Mamba) => mamba.forward(textOf(3000))],
    ['a score', async (mamba: Mamba) => mamba.score(textOf(3000))],
    ['a completion', async (mamba: Mamba) => mamba.complete(textOf(600), { maxTokens: 30, ignoreEos: true })]
  ])('comes after %s', async (_, call) => {
    const mamba = await Mamba.load(TINY)
    const result = call(mamba)
    await Promise.resolve()
    const disposed = mamba.dispose()
    await expect(result).resolves.not.toBeInstanceOf(Error)
    await disposed
  })
})
