/** `generate` and `complete`: text, ids, seeds, limits and stop strings. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Completion, type GenerateChunk, type GenerateOptions, Mamba, type Prompt } from '../../src/index.ts'
import { filesOf, fixtureModel, idsOf, readGolden } from '../support/fixtures.ts'

const PROMPT = 'The old man looked at the sea, and '
/** Bytes at random: broken characters, and some whole ones. */
const WILD: GenerateOptions = { temperature: 4, topP: 1, maxTokens: 80, ignoreEos: true }

let mamba: Mamba

beforeAll(async () => {
  mamba = await Mamba.load()
})
afterAll(() => mamba.dispose())

async function chunksOf(prompt: Prompt, options: GenerateOptions): Promise<GenerateChunk[]> {
  const chunks: GenerateChunk[] = []
  for await (const chunk of mamba.generate(prompt, options)) chunks.push(chunk)
  return chunks
}

/** What repeats: all but the times. */
function withoutTimes({ text, ids, finishReason, stop, eos, seed, usage, speculation }: Completion): Omit<Completion, 'timings'> {
  return { text, ids, finishReason, stop, eos, seed, usage, speculation }
}

describe('pieces', () => {
  test.each([['usual text', { maxTokens: 40, seed: 1 }], ['broken characters', { ...WILD, seed: 2 }]])('together they are the completion: %s', async (_, options) => {
    const chunks = await chunksOf(PROMPT, options)
    const { text, ids, finishReason, seed, usage } = await mamba.complete(PROMPT, options)
    expect(chunks.map((chunk) => chunk.text).join('')).toBe(text)
    expect(chunks.flatMap((chunk) => chunk.ids)).toEqual(ids)
    expect(chunks.slice(0, -1).every(({ finish }) => finish === null)).toBe(true)
    expect(chunks.at(-1)?.finish).toMatchObject({ reason: finishReason, seed, usage })
    expect(text).toBe(mamba.detokenize(ids))
  })

  test('are whole characters', async () => {
    for (let seed = 0; seed < 5; seed++) {
      const chunks = await chunksOf(PROMPT, { ...WILD, seed })
      expect(chunks.every(({ text }) => !/\p{Surrogate}/u.test(text))).toBe(true)
      const { text } = await mamba.complete(PROMPT, { ...WILD, seed })
      // Joined before decoding, no more of U+FFFD comes out than of the bytes at once.
      expect(chunks.map((chunk) => chunk.text).join('')).toBe(text)
    }
  })

  test('onProgress tells of the prompt, not of the tokens after it', async () => {
    const doneTokens: number[] = []
    await chunksOf(PROMPT, { maxTokens: 5, ignoreEos: true, onProgress: (progress) => doneTokens.push(progress.doneTokens) })
    expect(doneTokens).toEqual([PROMPT.length])
  })

  test('come as they are made', async () => {
    const chunks = await chunksOf(PROMPT, { maxTokens: 20, temperature: 0 })
    expect(chunks.length).toBeGreaterThan(15)
  })

  test('a loop left early leaves the model in order', async () => {
    for await (const chunk of mamba.generate(PROMPT, { maxTokens: 100, seed: 3 })) if (chunk.text.length > 0) break
    expect((await mamba.complete(PROMPT, { maxTokens: 5, temperature: 0 })).ids.length).toBe(5)
  })
})

describe('seeds', () => {
  test('repeat the text', async () => {
    const options = { maxTokens: 30, seed: 77 }
    const [first, second] = [await mamba.complete(PROMPT, options), await mamba.complete(PROMPT, options)]
    expect(withoutTimes(second)).toEqual(withoutTimes(first))
    expect(first.seed).toBe(77)
    expect((await mamba.complete(PROMPT, { ...options, seed: 78 })).text).not.toBe(first.text)
  })

  test('one that was drawn is told, and repeats the text', async () => {
    const [first, other] = [await mamba.complete(PROMPT, { maxTokens: 30 }), await mamba.complete(PROMPT, { maxTokens: 30 })]
    expect(other.seed).not.toBe(first.seed)
    const again = await mamba.complete(PROMPT, { maxTokens: 30, seed: first.seed })
    expect(again.ids).toEqual(first.ids)
  })

  test('temperature 0 takes the most likely token whatever the seed', async () => {
    const [first, second] = [await mamba.complete(PROMPT, { maxTokens: 10, temperature: 0, seed: 1 }), await mamba.complete(PROMPT, { maxTokens: 10, temperature: 0, seed: 2 })]
    expect(second.ids).toEqual(first.ids)
    let text = PROMPT
    for (const id of first.ids) {
      const logits = await mamba.forward(text)
      expect(logits.indexOf(logits.reduce((most, value) => Math.max(most, value), -Infinity))).toBe(id)
      text += mamba.detokenize([id])
    }
  })
})

describe('limits', () => {
  test.each([1, 2, 17])('%i tokens at most', async (maxTokens) => {
    const { ids, finishReason, usage, timings } = await mamba.complete(PROMPT, { maxTokens, seed: 1 })
    expect(ids.length).toBe(maxTokens)
    expect(finishReason).toBe('length')
    expect(usage).toEqual({ promptTokens: PROMPT.length, completionTokens: maxTokens })
    for (const value of Object.values(timings)) expect(value).toBeGreaterThanOrEqual(0)
    expect(timings.promptMs).toBeGreaterThan(0)
  })

  test('no token at all', async () => {
    expect(await chunksOf(PROMPT, { maxTokens: 0 })).toMatchObject([{ text: '', ids: [], finish: { reason: 'length', usage: { completionTokens: 0 } } }])
  })

  test('256 tokens by default', async () => {
    expect((await mamba.complete(PROMPT, { seed: 5 })).ids.length).toBe(256)
  })
})

test.each([
  ['a string', (text: string) => text],
  ['an array', (text: string) => Array.from(new TextEncoder().encode(text))],
  ['an Int32Array', (text: string) => mamba.tokenize(text)],
  ['a Uint8Array', (text: string) => new TextEncoder().encode(text)]
])('a prompt may be %s', async (_, promptOf) => {
  const { ids } = await mamba.complete(promptOf(PROMPT), { maxTokens: 12, temperature: 0 })
  expect(ids).toEqual((await mamba.complete(PROMPT, { maxTokens: 12, temperature: 0 })).ids)
})

describe('stop strings', () => {
  const LENGTH = 60
  let whole: string
  beforeAll(async () => {
    whole = (await mamba.complete(PROMPT, { maxTokens: LENGTH, temperature: 0 })).text
  })

  /** The text before the stop that is complete first; of several complete there, before the longest. */
  function cut(stops: readonly string[]): { text: string; stop: string | null } {
    for (let end = 1; end <= whole.length; end++) {
      const found = stops.filter((stop) => whole.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length)
      if (found.length > 0) return { text: whole.slice(0, end - found[0].length), stop: found[0] }
    }
    return { text: whole, stop: null }
  }

  test('of every length and place, across the tokens', async () => {
    for (const [start, length] of [[0, 1], [0, 3], [1, 2], [7, 5], [13, 9], [20, 4], [LENGTH - 1, 1], [LENGTH - 4, 4], [30, 20]]) {
      const stop = whole.slice(start, start + length)
      const wanted = cut([stop])
      const { text, finishReason, stop: found, ids, usage } = await mamba.complete(PROMPT, { maxTokens: LENGTH, temperature: 0, stop })
      expect([text, finishReason, found], stop).toEqual([wanted.text, 'stop', stop])
      expect(mamba.detokenize(ids).startsWith(text)).toBe(true)
      expect(usage.completionTokens).toBe(ids.length)
    }
  })

  test('several', async () => {
    for (const stops of [['zzz', whole.slice(10, 13), whole.slice(5, 7)], [whole.slice(8, 14), whole.slice(9, 11)], [whole.slice(4, 9), whole.slice(6, 9)]]) {
      const { text, stop } = await mamba.complete(PROMPT, { maxTokens: LENGTH, temperature: 0, stop: stops })
      expect({ text, stop }, stops.join(' | ')).toEqual(cut(stops))
    }
  })

  test('that do not come, or only begin at the end, hold nothing back', async () => {
    for (const stop of ['zzzz', `${whole.slice(-3)}zzz`, `${whole.slice(0, 5)}zzz`]) {
      const { text, finishReason, stop: found } = await mamba.complete(PROMPT, { maxTokens: LENGTH, temperature: 0, stop })
      expect([text, finishReason, found]).toEqual([whole, 'length', null])
    }
  })

  test('pieces show nothing of them', async () => {
    const stop = whole.slice(20, 26)
    const chunks = await chunksOf(PROMPT, { maxTokens: LENGTH, temperature: 0, stop })
    expect(chunks.map(({ text }) => text).join('')).toBe(cut([stop]).text)
  })

  test('the prompt does not count', async () => {
    const { finishReason } = await mamba.complete(PROMPT, { maxTokens: 3, temperature: 0, stop: 'The old man looked' })
    expect(finishReason).toBe('length')
  })
})

/** The tiny model with another config. */
async function loadTiny(eosTokenId: unknown): Promise<Mamba> {
  const files = filesOf(fixtureModel('mamba'))
  const config = { ...JSON.parse(new TextDecoder().decode(files['config.json'])), eos_token_id: eosTokenId }
  return Mamba.load({ ...files, 'config.json': new TextEncoder().encode(JSON.stringify(config)) })
}

describe('end-of-text tokens', () => {
  const golden = readGolden(`${fixtureModel('mamba')}/golden.safetensors`)
  const [prompt, greedy] = [idsOf(golden.ints('greedy_prompt'), 0), Array.from(idsOf(golden.ints('greedy_ids'), 0))]
  const options = { maxTokens: greedy.length, temperature: 0 }

  test.each([['one', greedy[7]], ['several', [159, greedy[7], greedy[12]]]])('%s', async (_, eosTokenId) => {
    await using model = await loadTiny(eosTokenId)
    const { ids, finishReason, usage } = await model.complete(prompt, options)
    const wanted = greedy.slice(0, greedy.findIndex((id) => id === greedy[7] || (Array.isArray(eosTokenId) && eosTokenId.includes(id))))
    expect(ids).toEqual(wanted)
    expect(finishReason).toBe('eos')
    expect(usage.completionTokens).toBe(wanted.length)
  })

  test('ignored where asked for', async () => {
    await using model = await loadTiny(greedy[7])
    expect(await model.complete(prompt, { ...options, ignoreEos: true })).toMatchObject({ ids: greedy, finishReason: 'length' })
  })

  test('none', async () => {
    await using model = await loadTiny(null)
    expect(await model.complete(prompt, options)).toMatchObject({ ids: greedy, finishReason: 'length' })
  })
})
