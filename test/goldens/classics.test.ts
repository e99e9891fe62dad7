/**
 * classics-8m as it was trained (f16): transformers' logits and greedy tokens, and the bits per byte that its report states.
 * And as it is embedded, in 8 bits.
 */
import { readFileSync, statSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Mamba } from '../../src/mamba.ts'
import { BUILDS } from '../support/backends.ts'
import { bitsPerByteOfWindows, meanOf } from '../support/bits-per-byte.ts'
import { expectSameBits, relativeError, scientific } from '../support/compare.ts'
import { idsOf, readGolden, repositoryPath } from '../support/fixtures.ts'

const golden = readGolden(repositoryPath('test/fixtures/classics-8m-golden.safetensors'))
const ids = idsOf(golden.ints('input_ids'), 0)
const greedyIds = Array.from(idsOf(golden.ints('greedy_ids'), 0))

const TRAINED = repositoryPath('test/models/classics-8m')

let mamba: Mamba

beforeAll(async () => {
  mamba = await Mamba.load(TRAINED)
})
afterAll(() => mamba.dispose())

test.each(BUILDS)('logits and greedy tokens, %s', async (build) => {
  await using model = await Mamba.load(TRAINED, { build, threads: 1 })
  const error = relativeError(await model.forward(ids, { allLogits: true }), golden.floats('logits').data)
  console.log(`classics-8m: ${build} ${scientific(error)} of the largest logit`)
  expect(error).toBeLessThanOrEqual(1e-5)
  const { ids: continuation } = await model.complete(ids, { maxTokens: greedyIds.length, temperature: 0, ignoreEos: true })
  expect(continuation).toEqual(greedyIds)
})

test('the text of the report', async () => {
  const { greedy } = JSON.parse(readFileSync(repositoryPath('models/classics-8m/report.json'), 'utf8'))
  const prompt = mamba.detokenize(ids)
  expect(greedy.startsWith(prompt)).toBe(true)
  const { text } = await mamba.complete(prompt, { maxTokens: greedyIds.length, temperature: 0 })
  expect(prompt + text).toBe(greedy)
})

test('bits per byte of the first 8 windows of alice.txt', { timeout: 240_000 }, async () => {
  const mean = meanOf(await bitsPerByteOfWindows(mamba, 8))
  console.log(`alice.txt: ${mean.toFixed(5)} bits per byte in the first 8 windows`)
  // The report has four decimals.
  expect(Math.abs(mean - 1.391)).toBeLessThanOrEqual(0.0005)
})

describe('in fewer bits', () => {
  test('the embedded model is a GGUF file of less than 9 MB, in q8_0', async () => {
    expect(statSync(repositoryPath('models/classics-8m/model.gguf')).size).toBeLessThan(9_000_000)
    await using embedded = await Mamba.load()
    await using rounded = await Mamba.load(TRAINED, { dtype: 'q8_0' })
    expectSameBits(await embedded.forward(ids, { allLogits: true }), await rounded.forward(ids, { allLogits: true }), 'logits')
  })

  test.each([['q8_0', 0.002], ['q4_0', 0.05]] as const)('%s costs at most %s bits per byte', { timeout: 240_000 }, async (dtype, limit) => {
    await using rounded = await Mamba.load(TRAINED, { dtype })
    const cost = meanOf(await bitsPerByteOfWindows(rounded, 2)) - meanOf(await bitsPerByteOfWindows(mamba, 2))
    console.log(`${dtype}: ${cost.toFixed(5)} bits per byte more in the first 2 windows`)
    expect(cost).toBeLessThanOrEqual(limit)
  })
})
