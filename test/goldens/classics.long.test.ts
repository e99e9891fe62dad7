/** The embedded model's bits per byte over all of the windows that its report is about. */
import { expect, test } from 'vitest'
import { Mamba } from '../../src/mamba.ts'
import { bitsPerByteOfWindows } from '../support/bits-per-byte.ts'

test.each([[8, 1.391], [16, 1.3525], [24, 1.3439], [32, 1.3701]])('the first %i windows of alice.txt', { timeout: 600_000 }, async (nWindows, reported) => {
  await using mamba = await Mamba.load()
  const mean = await bitsPerByteOfWindows(mamba, nWindows)
  console.log(`alice.txt: ${mean.toFixed(5)} bits per byte in the first ${nWindows} windows`)
  expect(Math.abs(mean - reported)).toBeLessThanOrEqual(0.0005)
})
