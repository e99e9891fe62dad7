/** classics-8m's bits per byte over all of the windows that its report is about, as it was trained and in fewer bits. */
import { expect, test } from 'vitest'
import { Mamba } from '../../src/mamba.ts'
import { bitsPerByteOfWindows, meanOf } from '../support/bits-per-byte.ts'
import { repositoryPath } from '../support/fixtures.ts'

const TRAINED = repositoryPath('test/models/classics-8m')
const REPORTED = 1.3701

test('32 windows of alice.txt', { timeout: 600_000 }, async () => {
  await using mamba = await Mamba.load(TRAINED)
  const windows = await bitsPerByteOfWindows(mamba, 32)
  for (const [nWindows, reported] of [[8, 1.391], [16, 1.3525], [24, 1.3439], [32, REPORTED]]) {
    const mean = meanOf(windows.slice(0, nWindows))
    console.log(`alice.txt: ${mean.toFixed(5)} bits per byte in the first ${nWindows} windows`)
    // The report has four decimals.
    expect(Math.abs(mean - reported), `${nWindows} windows`).toBeLessThanOrEqual(0.0005)
  }
})

test.each([['q8_0', 0.002], ['q4_0', 0.05]] as const)('32 windows in %s', { timeout: 600_000 }, async (dtype, limit) => {
  await using mamba = await Mamba.load(TRAINED, { dtype })
  const mean = meanOf(await bitsPerByteOfWindows(mamba, 32))
  console.log(`${dtype}: ${mean.toFixed(5)} bits per byte in 32 windows`)
  expect(mean - REPORTED).toBeLessThanOrEqual(limit)
})
