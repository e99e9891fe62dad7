/** Trained models of other alphabets: DNA, and the paper's induction heads (section 4.1.2), which are to be solved at every length. */
import { describe, expect, test } from 'vitest'
import { Mamba } from '../../src/mamba.ts'
import { BUILDS } from '../support/backends.ts'
import { relativeError, scientific } from '../support/compare.ts'
import { idsOf, readGolden, repositoryPath } from '../support/fixtures.ts'
import { inductionExample, indexOfLargest } from '../support/induction.ts'

const folderOf = (name: string): string => repositoryPath(`test/models/${name}`)

describe.each(['induction', 'dna'])('%s', (name) => {
  const golden = readGolden(`${folderOf(name)}/golden.safetensors`)
  const [nSequences] = golden.ints('input_ids').shape

  test.each(BUILDS)('logits and greedy tokens, %s', async (build) => {
    await using mamba = await Mamba.load(folderOf(name), { build })
    const { data, shape: [, length, vocabSize] } = golden.floats('logits')
    let largest = 0
    for (let i = 0; i < nSequences; i++) {
      const ids = idsOf(golden.ints('input_ids'), i)
      const logits = await mamba.forward(ids, { allLogits: true })
      largest = Math.max(largest, relativeError(logits, data.subarray(i * length * vocabSize, (i + 1) * length * vocabSize)))
      const wanted = Array.from(idsOf(golden.ints('greedy_ids'), i))
      const { ids: continuation } = await mamba.complete(ids, { maxTokens: wanted.length, temperature: 0, ignoreEos: true })
      expect(continuation).toEqual(wanted)
    }
    console.log(`${name}: ${build} ${scientific(largest)} of the largest logit`)
    expect(largest).toBeLessThanOrEqual(1e-5)
  })
})

test.each([64, 128, 256, 512, 1024, 2048, 4096])('induction heads at length %i', async (length) => {
  await using mamba = await Mamba.load(folderOf('induction'))
  let nRight = 0
  for (let i = 0; i < 32; i++) {
    const { ids, answer } = inductionExample(length, 1000 * length + i)
    if (indexOfLargest(await mamba.forward(ids)) === answer) nRight++
  }
  expect(nRight).toBe(32)
})
