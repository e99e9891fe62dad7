/** The embedded model's bits per byte over all of the windows that its report is about. */
import { expect, test } from 'vitest'
import { Mamba } from '../../src/mamba.ts'
import { bitsPerByteOfWindows, meanOf } from '../support/bits-per-byte.ts'

test('32 windows of alice.txt', { timeout: 600_000 }, async () => {
  await using mamba = await Mamba.load()
  const windows = await bitsPerByteOfWindows(mamba, 32)
  for (const [nWindows, reported] of [[8, 1.391], [16, 1.3525], [24, 1.3439], [32, 1.3701]]) {
    const mean = meanOf(windows.slice(0, nWindows))
    console.log(`alice.txt: ${mean.toFixed(5)} bits per byte in the first ${nWindows} windows`)
    // The report has four decimals.
    expect(Math.abs(mean - reported), `${nWindows} windows`).toBeLessThanOrEqual(0.0005)
  }
})
