/** `score`: log probabilities by the softmax of `forward`'s logits, windows, perplexity, bits per byte. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Mamba } from '../../src/index.ts'
import { fixtureModel } from '../support/fixtures.ts'
import { createNumbers } from '../support/numbers.ts'

const numbers = createNumbers(6)
const IDS = Array.from({ length: 530 }, () => numbers.integer(0, 159))

let mamba: Mamba
let tiny: Mamba

beforeAll(async () => {
  [mamba, tiny] = [await Mamba.load(), await Mamba.load(fixtureModel('mamba'))]
})
afterAll(async () => {
  await Promise.all([mamba.dispose(), tiny.dispose()])
})

/** log softmax in float64, of rows of logits, at the tokens that follow. */
function logProbabilities(logits: Float32Array, vocabSize: number, next: readonly number[]): number[] {
  return next.map((id, i) => {
    const row = Array.from(logits.subarray(i * vocabSize, (i + 1) * vocabSize))
    const most = Math.max(...row)
    return row[id] - most - Math.log(row.reduce((sum, value) => sum + Math.exp(value - most), 0))
  })
}

function expectClose(got: ArrayLike<number>, wanted: readonly number[]): void {
  expect(got.length).toBe(wanted.length)
  wanted.forEach((value, i) => expect(Math.abs(got[i] - value), `of token ${i + 1}`).toBeLessThanOrEqual(1e-12 * Math.max(1, Math.abs(value))))
}

test('one state by default', async () => {
  const wanted = logProbabilities(await tiny.forward(IDS, { allLogits: true }), 160, IDS.slice(1))
  const score = await tiny.score(IDS)
  expectClose(score.logProbabilities, wanted)
  const mean = wanted.reduce((sum, value) => sum + value, 0) / wanted.length
  expect(score.perplexity).toBeCloseTo(Math.exp(-mean), 6)
  expect(score.nTokens).toBe(530)
  expect(score.elapsedMs).toBeGreaterThan(0)
})

test.each([1, 2, 100, 256, 300, 529, 530, 1000])('a fresh state every %i tokens', async (window) => {
  const wanted: number[] = []
  for (let start = 0; start < IDS.length - 1; start += window) {
    const inputs = IDS.slice(start, Math.min(start + window, IDS.length - 1))
    wanted.push(...logProbabilities(await tiny.forward(inputs, { allLogits: true }), 160, IDS.slice(start + 1, start + inputs.length + 1)))
  }
  const progress: number[] = []
  const { logProbabilities: got } = await tiny.score(IDS, {
    window,
    onProgress({ doneTokens, totalTokens }) {
      expect(totalTokens).toBe(529)
      progress.push(doneTokens)
    }
  })
  expectClose(got, wanted)
  expect(progress).toEqual(progress.toSorted((a, b) => a - b))
  expect(progress.at(-1)).toBe(529)
})

describe('bits per byte', () => {
  test.each([['ASCII', 'The quick brown fox jumps over the lazy dog.'], ['other characters', 'Ça coûte 5 €, naïve? 🙂']])('%s', async (_, text) => {
    // A token is a byte; the first is not predicted.
    const nBytes = new TextEncoder().encode(text).length - 1
    const { logProbabilities: values, bitsPerByte } = await mamba.score(text)
    expect(bitsPerByte).toBeCloseTo(-values.reduce((sum, value) => sum + value, 0) / Math.LN2 / nBytes, 9)
  })

  test('ids and their text have the same', async () => {
    const text = 'Alice was beginning to get very tired'
    const [ofText, ofIds] = [await mamba.score(text), await mamba.score(mamba.tokenize(text))]
    expect(ofIds.bitsPerByte).toBe(ofText.bitsPerByte)
    expect(ofIds.logProbabilities).toEqual(ofText.logProbabilities)
  })

  test('a text that begins in the middle of a character', async () => {
    const bytes = new TextEncoder().encode('é, she said').subarray(1)
    const { logProbabilities: values, bitsPerByte } = await mamba.score(bytes)
    expect(bitsPerByte).toBeCloseTo(-values.reduce((sum, value) => sum + value, 0) / Math.LN2 / (bytes.length - 1), 9)
  })

  test('English is likelier than noise', async () => {
    const [english, noise] = [await mamba.score('It is a truth universally acknowledged, that a single man'), await mamba.score('xq zvk!jw9 pl0 qqz ;; vbn rtw xkcd zzx, mlp qwk jjh')]
    expect(english.bitsPerByte).toBeLessThan(2)
    expect(noise.bitsPerByte).toBeGreaterThan(5)
  })
})

test('a single token predicts nothing', async () => {
  const { logProbabilities: values, perplexity, nTokens } = await tiny.score([5])
  expect([values.length, nTokens]).toEqual([0, 1])
  expect(perplexity).toBeNaN()
})
