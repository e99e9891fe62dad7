/**
 * What a state saved in f16 or in 8 bits costs: bits per byte of alice.txt by classics-8m, its state saved and restored every 64 bytes, so that the
 * rounding of all of them adds up. README.md has these numbers.
 */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Mamba, type StatePrecision } from '../../src/index.ts'
import { repositoryPath } from '../support/fixtures.ts'

const N_BYTES = 4096
const EVERY = 64

let mamba: Mamba
beforeAll(async () => {
  mamba = await Mamba.load(repositoryPath('test/models/classics-8m'))
})
afterAll(() => mamba.dispose())

/** −log2 softmax(logits)[id] */
function bitsOf(logits: Float32Array, id: number): number {
  const max = logits.reduce((a, b) => Math.max(a, b))
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - max), 0)
  return (Math.log(sum) + max - logits[id]) / Math.LN2
}

async function bitsPerByte(precision: StatePrecision): Promise<number> {
  const bytes = Uint8Array.from(readFileSync(repositoryPath('test/fixtures/alice.txt'))).subarray(0, N_BYTES + 1)
  let session = mamba.session()
  let bits = 0
  for (let start = 0; start < N_BYTES; start += EVERY) {
    const logits = await session.forward(bytes.subarray(start, start + EVERY), { allLogits: true })
    for (let i = 0; i < EVERY; i++) bits += bitsOf(logits.subarray(256 * i, 256 * (i + 1)), bytes[start + i + 1])
    const saved = await session.save({ precision })
    await session.dispose()
    session = await mamba.restore(saved)
  }
  await session.dispose()
  return bits / N_BYTES
}

test('f16 costs nothing to speak of, 8 bits little', { timeout: 300_000 }, async () => {
  const exact = await bitsPerByte('f32')
  const [f16, q8] = [await bitsPerByte('f16'), await bitsPerByte('q8')]
  console.log(`bits per byte: f32 ${exact.toFixed(6)}, f16 ${(f16 - exact).toFixed(6)} more, q8 ${(q8 - exact).toFixed(6)} more`)
  expect(Math.abs(f16 - exact)).toBeLessThan(2e-5)
  expect(Math.abs(q8 - exact)).toBeLessThan(5e-4)
  // The report's mean of 1.37 over other windows: the text is what it should be.
  expect(exact).toBeGreaterThan(1.2)
  expect(exact).toBeLessThan(1.5)
})
