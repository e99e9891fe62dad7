/** The embedded model: transformers' logits and greedy tokens, and the bits per byte that its report states. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Mamba } from '../../src/mamba.ts'
import { BUILDS } from '../support/backends.ts'
import { bitsPerByteOfWindows, meanOf } from '../support/bits-per-byte.ts'
import { relativeError, scientific } from '../support/compare.ts'
import { idsOf, readGolden, repositoryPath } from '../support/fixtures.ts'

const golden = readGolden(repositoryPath('test/fixtures/classics-8m-golden.safetensors'))
const ids = idsOf(golden.ints('input_ids'), 0)
const greedyIds = Array.from(idsOf(golden.ints('greedy_ids'), 0))

let mamba: Mamba

beforeAll(async () => {
  mamba = await Mamba.load()
})
afterAll(() => mamba.dispose())

test.each(BUILDS)('logits and greedy tokens, %s', async (build) => {
  await using model = await Mamba.load(undefined, { build, threads: 1 })
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

test('bits per byte of the first 8 windows of alice.txt', async () => {
  const mean = meanOf(await bitsPerByteOfWindows(mamba, 8))
  console.log(`alice.txt: ${mean.toFixed(5)} bits per byte in the first 8 windows`)
  // The report has four decimals.
  expect(Math.abs(mean - 1.391)).toBeLessThanOrEqual(0.0005)
})
