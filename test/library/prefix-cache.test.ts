/** With a prefix cache: the same bits, less work. */
import { describe, expect, test } from 'vitest'
import { Mamba } from '../../src/index.ts'
import { expectSameBits } from '../support/compare.ts'
import { fixtureModel } from '../support/fixtures.ts'
import { createNumbers } from '../support/numbers.ts'

const numbers = createNumbers(9)
const idsOf = (length: number): number[] => Array.from({ length }, () => numbers.integer(0, 159))
const GREEDY = { maxTokens: 6, temperature: 0, ignoreEos: true } as const

async function withModels(maxBytes: number, task: (cached: Mamba, plain: Mamba) => Promise<void>): Promise<void> {
  await using cached = await Mamba.load(fixtureModel('mamba'), { prefixCache: { maxBytes } })
  await using plain = await Mamba.load(fixtureModel('mamba'))
  await task(cached, plain)
}

describe('the prefix cache of a model', () => {
  test('a conversation: each turn starts where the last one ended', () => withModels(1e7, async (cached, plain) => {
    let text = idsOf(50)
    for (let turn = 0; turn < 5; turn++) {
      const { ids } = await cached.complete(text, GREEDY)
      expect(ids).toEqual((await plain.complete(text, GREEDY)).ids)
      const before = cached.prefixCache?.tokensSaved ?? 0
      const next = [...text, ...ids, ...idsOf(10)]
      expectSameBits(await cached.forward(next), await plain.forward(next), `turn ${turn}`)
      // All that was read: the prompt, and what came but for its last token.
      expect(cached.prefixCache?.tokensSaved).toBe(before + text.length + ids.length - 1)
      text = next
    }
  }))

  test('the same prompt again reads one token', () => withModels(1e7, async (cached, plain) => {
    const prompt = idsOf(80)
    const [first, second] = [await cached.complete(prompt, GREEDY), await cached.complete(prompt, GREEDY)]
    expect(second.ids).toEqual(first.ids)
    expect(first.ids).toEqual((await plain.complete(prompt, GREEDY)).ids)
    expect(second.usage).toEqual(first.usage)
    expect(cached.prefixCache).toMatchObject({ hits: 1, misses: 1, tokensSaved: 79, evictions: 0 })
  }))

  test('a common beginning: the second text that has it keeps it, the third starts there', () => withModels(1e7, async (cached, plain) => {
    const system = idsOf(120)
    const saved: number[] = []
    for (let i = 0; i < 4; i++) {
      const prompt = [...system, i, ...idsOf(9)]
      const before = cached.prefixCache?.tokensSaved ?? 0
      expectSameBits(await cached.forward(prompt), await plain.forward(prompt), `text ${i}`)
      saved.push((cached.prefixCache?.tokensSaved ?? 0) - before)
    }
    expect(saved).toEqual([0, 0, 120, 120])
  }))

  test('fresh sessions start there, others and all logits do not', () => withModels(1e7, async (cached, plain) => {
    const prompt = idsOf(40)
    await using first = cached.session({ checkpoints: { every: 10, keep: 9 } })
    await first.append(prompt)
    await using second = cached.session({ checkpoints: { every: 10, keep: 9 } })
    await second.append(prompt)
    expect(cached.prefixCache).toMatchObject({ hits: 1, tokensSaved: 39 })
    // The start and the state from the cache are the checkpoints there.
    await second.rewind(25)
    expectSameBits(await second.forward([3]), await plain.forward([...prompt.slice(0, 15), 3]), 'rewound')
    const before = cached.prefixCache
    const all = await cached.forward(prompt, { allLogits: true })
    expectSameBits(all, await plain.forward(prompt, { allLogits: true }), 'all logits')
    await using restored = await cached.restore(await first.save())
    await restored.append(idsOf(5))
    expect([cached.prefixCache?.hits, cached.prefixCache?.misses]).toEqual([before?.hits, before?.misses])
  }))

  test('many at once', () => withModels(1e7, async (cached, plain) => {
    const system = idsOf(60)
    const prompts = Array.from({ length: 12 }, (_, i) => [...system.slice(0, 20 + 3 * i), ...idsOf(4)])
    const completions = await Promise.all(prompts.map((prompt) => cached.complete(prompt, GREEDY)))
    for (const [i, prompt] of prompts.entries()) expect(completions[i].ids).toEqual((await plain.complete(prompt, GREEDY)).ids)
    for (const prompt of prompts) expectSameBits(await cached.forward(prompt), await plain.forward(prompt), 'again')
  }))

  test('stays within its budget, and lets all go', () => withModels(200_000, async (cached) => {
    for (let i = 0; i < 30; i++) {
      await cached.complete(idsOf(20), GREEDY)
      const { bytes = Infinity, maxBytes = 0 } = cached.prefixCache ?? {}
      expect(bytes).toBeLessThanOrEqual(maxBytes)
    }
    expect(cached.prefixCache?.evictions).toBeGreaterThan(10)
    await cached.dispose()
    expect(cached.prefixCache).toMatchObject({ bytes: 0, entries: 0 })
  }))

  test('a generation left early, and a model disposed during one', () => withModels(1e7, async (cached, plain) => {
    const prompt = idsOf(20)
    const ids: number[] = []
    for await (const chunk of cached.generate(prompt, GREEDY)) {
      ids.push(...chunk.ids)
      if (ids.length >= 3) break
    }
    expect(ids.slice(0, 3)).toEqual((await plain.complete(prompt, GREEDY)).ids.slice(0, 3))
    const chunks = cached.generate(prompt, GREEDY)
    await chunks.next()
    await cached.dispose()
    expect((await chunks.return()).done).toBe(true)
  }))

  test('its options, and none by default', async () => {
    for (const maxBytes of [0, -1, 1.5, NaN]) await expect(Mamba.load(fixtureModel('mamba'), { prefixCache: { maxBytes } })).rejects.toThrow(RangeError)
    await using plain = await Mamba.load(fixtureModel('mamba'))
    expect(plain.prefixCache).toBe(null)
  })
})
