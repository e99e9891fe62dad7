/**
 * Whatever is done with sessions, each is the text that its own calls made and nothing else: random calls on several sessions, checked against plain
 * lists of tokens that are read from the start. With more sessions than slots, with and without the prefix cache, and on a GPU.
 */
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type GenerateOptions, type LoadOptions, Mamba, type PrefixCacheOptions, type Session } from '../../src/index.ts'
import { expectSameBits, relativeError } from '../support/compare.ts'
import { fixtureModel } from '../support/fixtures.ts'
import { GPUS } from '../support/gpu.ts'

/** Some begin alike: the prefix cache is to be asked for more than strangers. */
const SHARED = Array.from({ length: 60 }, (_, i) => (37 * i) % 160)
const ids = fc.oneof(fc.array(fc.nat(159), { maxLength: 30, size: 'max' }), fc.nat(60).map((length) => SHARED.slice(0, length)))
const which = fc.nat(20)
const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('append' as const), which, ids, defer: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('complete' as const), which, maxTokens: fc.nat(9) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('leave' as const), which, nTokens: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('forward' as const), which, ids, allLogits: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('fork' as const), which }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('move' as const), which, hasCheckpoints: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('rewind' as const), which, percent: fc.integer({ min: 0, max: 100 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('dispose' as const), which }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('new' as const), every: fc.integer({ min: 1, max: 15 }), keep: fc.integer({ min: 1, max: 12 }) }) }
)
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never

/** What a session must be. */
interface Text {
  readonly session: Session
  ids: number[]
}

/** Of tokens, not of none. */
const rewinds = { done: 0, refused: 0 }

interface Case extends Pick<Engines, 'options' | 'expectSame'> {
  readonly load: LoadOptions
  readonly numRuns: number
  readonly prefixCache?: PrefixCacheOptions
}

interface Engines {
  readonly mamba: Mamba
  readonly oracle: Mamba
  /** Greedy. */
  readonly options: GenerateOptions
  readonly expectSame: (got: Float32Array, want: Float32Array, place: string) => void
}

async function doStep({ mamba, oracle, options, expectSame }: Engines, texts: Text[], change: Step): Promise<void> {
  if (change.kind === 'new') {
    texts.push({ session: mamba.session({ checkpoints: { every: change.every, keep: change.keep } }), ids: [] })
    return
  }
  const index = change.which % texts.length
  const text = texts[index]
  const { session } = text
  switch (change.kind) {
    case 'append':
      await session.append(change.ids, { defer: change.defer })
      text.ids.push(...change.ids)
      break
    case 'complete': {
      if (text.ids.length === 0) break
      const { maxTokens } = change
      const completion = await session.complete({ ...options, maxTokens })
      expect(completion.ids).toEqual((await oracle.complete(text.ids, { ...options, maxTokens })).ids)
      text.ids.push(...completion.ids)
      break
    }
    case 'leave': {
      if (text.ids.length === 0) break
      const left: number[] = []
      for await (const piece of session.generate({ ...options, maxTokens: 20 })) if (left.push(...piece.ids) >= change.nTokens) break
      expect(left).toEqual((await oracle.complete(text.ids, { ...options, maxTokens: left.length })).ids)
      text.ids.push(...left)
      break
    }
    case 'forward': {
      if (change.ids.length === 0) break
      const { allLogits } = change
      const logits = await session.forward(change.ids, { allLogits })
      text.ids.push(...change.ids)
      const all = await oracle.forward(text.ids, { allLogits: true })
      expectSame(logits, all.subarray(160 * (text.ids.length - (allLogits ? change.ids.length : 1))), 'logits')
      break
    }
    case 'fork':
      texts.push({ session: session.fork(), ids: [...text.ids] })
      break
    case 'move': {
      const bytes = await session.save()
      await session.dispose()
      texts[index] = { session: await mamba.restore(bytes, change.hasCheckpoints ? { checkpoints: { every: 8, keep: 2 } } : {}), ids: text.ids }
      break
    }
    case 'rewind': {
      const nTokens = Math.ceil(change.percent / 100 * text.ids.length)
      const error: unknown = await session.rewind(nTokens).catch((reason: unknown) => reason)
      if (error === undefined) text.ids.length -= nTokens
      else expect(error).toBeInstanceOf(RangeError)
      if (nTokens > 0) rewinds[error === undefined ? 'done' : 'refused']++
      break
    }
    case 'dispose':
      if (texts.length > 1) {
        await session.dispose()
        texts.splice(index, 1)
      }
      break
    default: change satisfies never
  }
  for (const { session: each, ids: known } of texts) expect(each.position).toBe(known.length)
}

const GREEDY = { temperature: 0, ignoreEos: true } as const
const CPU = { load: {}, options: { ...GREEDY, repetitionPenalty: 1.7 }, expectSame: expectSameBits, numRuns: 90 }
/** Without a penalty it finds the tokens by itself. Within rounding, as the README says. */
const GPU = {
  load: { backend: 'webgpu' }, options: GREEDY, numRuns: 25,
  expectSame: (got: Float32Array, want: Float32Array, place: string) => expect(relativeError(got, want), place).toBeLessThan(1e-5)
} as const

describe.each([
  { name: 'without a prefix cache', ...CPU }, { name: 'with a prefix cache', ...CPU, prefixCache: { maxBytes: 300_000 } }, ...GPUS.map((name) => ({ name, ...GPU }))
])('random calls, $name', ({ load, options, expectSame, numRuns, prefixCache }: Case) => {
  let mamba: Mamba
  let oracle: Mamba
  beforeAll(async () => {
    oracle = await Mamba.load(fixtureModel('mamba'), { build: 'scalar', threads: 1 })
    mamba = await Mamba.load(fixtureModel('mamba'), { ...load, maxBatch: 2, prefixCache })
  }, 120_000)
  afterAll(async () => {
    await mamba.dispose()
    await oracle.dispose()
  })

  test('every session goes on as its text from the start', { timeout: 300_000 }, async () => {
    let nSteps = 0
    await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40, size: 'max' }), async (steps) => {
      const texts: Text[] = [{ session: mamba.session(), ids: [] }]
      try {
        for (const change of steps) await doStep({ mamba, oracle, options, expectSame }, texts, change)
        nSteps += steps.length
        for (const { session, ids: before } of texts) {
          expectSame(await session.forward([7]), await oracle.forward([...before, 7]), 'logits at the end')
        }
      } finally {
        for (const { session } of texts) await session.dispose()
      }
    }), { numRuns, seed: 11 })
    expect(nSteps).toBeGreaterThan(7 * numRuns)
    expect(rewinds.done).toBeGreaterThan(40)
    expect(rewinds.refused).toBeGreaterThan(20)
    if (prefixCache) {
      expect(mamba.prefixCache?.hits).toBeGreaterThan(10)
      expect(mamba.prefixCache?.evictions).toBeGreaterThan(10)
    }
  })
})
