/** What callers do wrong, and what they are told. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type GenerateOptions, type LoadOptions, Mamba, CheckpointError, UnsupportedError } from '../../src/index.ts'
import { reasonOf, untyped } from '../support/anything.ts'
import { fixtureModel } from '../support/fixtures.ts'

let mamba: Mamba
/** Without a tokenizer; vocabulary of 160. */
let tiny: Mamba

beforeAll(async () => {
  [mamba, tiny] = [await Mamba.load(), await Mamba.load(fixtureModel('mamba'))]
})
afterAll(async () => {
  await Promise.all([mamba.dispose(), tiny.dispose()])
})

describe('ids', () => {
  const bad: [string, ArrayLike<number>, string][] = [
    ['too large', [1, 2, 160], 'ids[2]'], ['negative', [-1], 'ids[0]'], ['fractional', [3, 1.5], 'ids[1]'], ['NaN', [1, NaN, 2], 'ids[1]'],
    ['infinite', Float64Array.of(Infinity), 'ids[0]'], ['missing', untyped([1, undefined, 3]), 'ids[1]'], ['strings', untyped(['1']), 'ids[0]'],
    ['bigints', untyped([1n]), 'ids[0]']
  ]

  test.each(bad)('%s', async (_, ids, place) => {
    await using session = tiny.session()
    for (const call of [
      () => tiny.complete(ids, { maxTokens: 1 }), () => tiny.forward(ids), () => tiny.score(ids), () => session.append(ids),
      () => session.forward(ids), () => tiny.forward(ids, { session })
    ]) {
      const error = await reasonOf(call)
      expect(error).toBeInstanceOf(RangeError)
      expect(String(error)).toContain(place)
      expect(String(error)).toContain('159')
    }
    // Nothing of them belongs to the text.
    expect(session.position).toBe(0)
  })

  test('of a text to be', () => {
    expect(() => mamba.detokenize([256])).toThrow(RangeError)
    expect(() => mamba.detokenize([1.5])).toThrow(/ids\[0\]/)
  })

  test.each([['a number', 3], ['null', null], ['an object', {}], ['nothing', undefined], ['a boolean', true]])('%s is no prompt', async (_, prompt) => {
    for (const call of [() => tiny.complete(untyped(prompt)), () => tiny.forward(untyped(prompt)), () => tiny.score(untyped(prompt)), () => mamba.tokenize(untyped(prompt))]) {
      expect(await reasonOf(call)).toBeInstanceOf(TypeError)
    }
  })
})

describe('an empty prompt', () => {
  test.each([['text', ''], ['ids', []]])('%s', async (_, prompt) => {
    const error = await reasonOf(() => mamba.complete(prompt, { maxTokens: 1 }))
    expect(error).toBeInstanceOf(RangeError)
    expect(String(error)).toMatch(/at least one token/)
  })

  test('has no logits and no score', async () => {
    expect((await mamba.forward([])).length).toBe(0)
    expect((await mamba.forward([], { allLogits: true })).length).toBe(0)
    const { logProbabilities, nTokens } = await mamba.score('')
    expect([logProbabilities.length, nTokens]).toEqual([0, 0])
  })
})

describe('without a tokenizer', () => {
  test('calls with text are not supported', async () => {
    expect(tiny.hasTokenizer).toBe(false)
    await using session = tiny.session()
    for (const call of [
      () => tiny.complete('text'), () => tiny.forward('text'), () => tiny.score('text'), () => tiny.tokenize('text'), () => tiny.detokenize([1]),
      () => session.append('text'), () => tiny.complete([1], { stop: 'x' })
    ]) {
      const error = await reasonOf(call)
      expect(error).toBeInstanceOf(UnsupportedError)
      expect(String(error)).toMatch(/tokenizer/)
    }
  })

  test('ids go, and come out', async () => {
    const { text, ids } = await tiny.complete([1, 2, 3], { maxTokens: 4, ignoreEos: true, seed: 1 })
    expect([text, ids.length]).toEqual(['', 4])
    const chunks: number[] = []
    for await (const chunk of tiny.generate([1, 2, 3], { maxTokens: 4, ignoreEos: true, seed: 1 })) chunks.push(...chunk.ids)
    expect(chunks).toEqual(ids)
    const score = await tiny.score([1, 2, 3])
    expect(score.logProbabilities.length).toBe(2)
    expect(score.bitsPerByte).toBeNull()
  })
})

describe('options of generate', () => {
  const bad: [string, GenerateOptions, typeof RangeError | typeof TypeError][] = [
    ['maxTokens', { maxTokens: -1 }, RangeError], ['maxTokens', { maxTokens: 1.5 }, RangeError], ['maxTokens', { maxTokens: NaN }, RangeError],
    ['maxTokens', { maxTokens: Infinity }, RangeError], ['temperature', { temperature: -1 }, RangeError], ['temperature', { temperature: NaN }, RangeError],
    ['topP', { topP: 2 }, RangeError], ['topK', { topK: 1.5 }, RangeError], ['minP', { minP: -0.1 }, RangeError],
    ['repetitionPenalty', { repetitionPenalty: 0 }, RangeError], ['seed', { seed: -1 }, RangeError], ['seed', { seed: 0.5 }, RangeError],
    ['temperature', { temperature: untyped('warm') }, TypeError], ['stop', { stop: '' }, RangeError], ['stop', { stop: ['a', ''] }, RangeError],
    ['stop', { stop: untyped(5) }, TypeError]
  ]

  test.each(bad)('%s', async (name, options, type) => {
    await using session = mamba.session()
    await session.append('a')
    for (const call of [() => mamba.complete('a', options), () => session.complete(options), async () => mamba.generate('a', options).next()]) {
      const error = await reasonOf(call)
      expect(error).toBeInstanceOf(type)
      expect(String(error)).toContain(name)
    }
  })

  test('of score', async () => {
    for (const window of [0, -1, 1.5, NaN]) await expect(mamba.score('abc', { window })).rejects.toThrow(/window/)
  })
})

describe('options of load', () => {
  const bad: [string, LoadOptions, typeof RangeError | typeof UnsupportedError][] = [
    ['dtype', { dtype: untyped('q3_z') }, UnsupportedError], ['dtype', { dtype: untyped(32) }, UnsupportedError],
    ['backend', { backend: untyped('cuda') }, UnsupportedError], ['build', { build: untyped('fast') }, UnsupportedError],
    ['threads', { threads: 0 }, RangeError], ['threads', { threads: 1.5 }, RangeError], ['threads', { threads: 1e9 }, RangeError],
    ['maxBatch', { maxBatch: 0 }, RangeError], ['maxBatch', { maxBatch: 1e9 }, RangeError], ['maxBatch', { maxBatch: NaN }, RangeError]
  ]

  test.each(bad)('%s', async (name, options, type) => {
    const error = await reasonOf(() => Mamba.load(fixtureModel('mamba'), options))
    expect(error).toBeInstanceOf(type)
    expect(String(error)).toContain(name)
  })

  test.each([['a number', 5], ['null', null], ['an array', []], ['a boolean', true]])('%s is no source', async (_, source) => {
    expect(await reasonOf(() => Mamba.load(untyped(source)))).toBeInstanceOf(TypeError)
  })

  test('bytes that are no GGUF file', async () => {
    for (const source of [new Uint8Array(8), new ArrayBuffer(8), new Blob([])]) {
      expect(await reasonOf(() => Mamba.load(untyped(source)))).toBeInstanceOf(CheckpointError)
    }
  })
})

describe('after dispose', () => {
  test('every call is a TypeError, and dispose does nothing', async () => {
    const model = await Mamba.load(fixtureModel('mamba'))
    const session = model.session()
    await session.append([1, 2, 3])
    await model.dispose()
    await model.dispose()
    for (const call of [
      () => model.complete([1], { maxTokens: 1 }), () => model.forward([1]), () => model.score([1, 2]), () => session.append([1, 2]),
      () => session.forward([1]), () => session.complete({ maxTokens: 1 })
    ]) expect(await reasonOf(call)).toBeInstanceOf(TypeError)
    await session.dispose()
  })
})
