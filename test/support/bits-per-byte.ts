/** The procedure of models/classics-8m/report.json. */
import { readFileSync } from 'node:fs'
import { expect } from 'vitest'
import type { Mamba } from '../../src/mamba.ts'
import { repositoryPath } from './fixtures.ts'

const WINDOW = 4096

/** Of the first windows of alice.txt: window w reads bytes 4096 w to 4096 w + 4095 from a fresh state and predicts those one further on. */
export async function bitsPerByteOfWindows(mamba: Mamba, nWindows: number): Promise<number[]> {
  const bytes = Uint8Array.from(readFileSync(repositoryPath('test/fixtures/alice.txt'))).subarray(0, nWindows * WINDOW + 1)
  expect(bytes.length).toBe(nWindows * WINDOW + 1)
  const { logProbabilities } = await mamba.score(bytes, { window: WINDOW })
  expect(logProbabilities.length).toBe(nWindows * WINDOW)
  return Array.from({ length: nWindows }, (_, w) => {
    const window = logProbabilities.subarray(w * WINDOW, (w + 1) * WINDOW)
    return -window.reduce((sum, value) => sum + value, 0) / Math.LN2 / WINDOW
  })
}

export function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}
