/** The profile accounts for the whole of a forward, and its limits are those of this machine. */
import { describe, expect, test } from 'vitest'
import { FUNCTION_EXP2 } from '../assembly/abi.ts'
import { createRandomBackend, createRandomModel } from '../bench/random-model.ts'
import type { Batch } from '../src/backend/backend.ts'
import { createReferenceBackend } from '../src/backend/reference/reference-backend.ts'
import { platform } from '../src/platform/node.ts'
import { bestOf, createLimitKernels, EXP2_CODE } from '../src/limits.ts'
import { leastSeconds, limitsOfThreads, profile, worksOf } from '../src/profile.ts'

const model = createRandomModel({ vocabSize: 320, dModel: 64, nLayers: 3 })
const capacity = { maxRows: 32, maxLogitRows: 4, nSlots: 2, contextLength: 0 }

function batchOf(nRows: number, logits: 'none' | 'last' | 'all' = 'last'): Batch {
  return { tokens: Int32Array.from({ length: nRows }, (_, i) => i), segments: [{ slot: 0, position: 0, firstRow: 0, nRows, logits }] }
}

describe('profile', () => {
  test.each([1, 2])('has every op in one line, and shares that add up, with threads: %i', async (threads) => {
    const backend = await createRandomBackend(model, { format: 'q8_0', threads, capacity })
    const { lines, totalMs, wholeMs, nTokens, limits, ...rest } = await profile(backend, batchOf(32), { repeats: 3 })
    await backend.dispose()
    expect({ nTokens, limits, threads: rest.threads }).toEqual({ nTokens: 32, limits: null, threads })
    expect(lines.map(({ name }) => name).sort()).toEqual([
      'conv1d', 'embed', 'gatherRows', 'linear 128 × 36 q8_0', 'linear 128 × 64 q8_0', 'linear 4 × 128 f32', 'linear 64 × 256 q8_0', 'linear 64 × 320 q8_0',
      'rmsNorm', 'selectiveScan'
    ])
    expect(lines.reduce((sum, { nOps }) => sum + nOps, 0)).toBe(model.program.ops.length)
    expect(lines.reduce((sum, { elapsedMs }) => sum + elapsedMs, 0)).toBeCloseTo(totalMs, 9)
    expect(lines.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 9)
    expect(lines.every(({ works, nOps, elapsedMs }) => works.length === nOps && elapsedMs >= 0)).toBe(true)
    expect(lines.map(({ elapsedMs }) => elapsedMs)).toEqual(lines.map(({ elapsedMs }) => elapsedMs).sort((a, b) => b - a))
    expect(wholeMs).toBeGreaterThan(0)
  })

  test('accounts for the time of a whole forward', async () => {
    // The reference takes long enough for the clock and the machine's other work to count little.
    const backend = createReferenceBackend(model.program, capacity, 'test')
    const { totalMs, wholeMs } = await profile(backend, batchOf(32), { repeats: 5 })
    expect(totalMs / wholeMs).toBeGreaterThan(0.4)
    expect(totalMs / wholeMs).toBeLessThan(2.5)
  })

  test('refuses more logits than are made at a time, and stops when aborted', async () => {
    const backend = createReferenceBackend(model.program, capacity, 'test')
    await expect(profile(backend, batchOf(5, 'all'))).rejects.toThrow(new RangeError('profile: expected a batch with logits of 4 rows at most, got 5'))
    await expect(profile(backend, batchOf(5), { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough')
  })
})

describe('work', () => {
  test('counts what ops do at least', async () => {
    const backend = await createRandomBackend(model, { format: 'q8_0', threads: 1, capacity })
    const works = worksOf(backend, batchOf(8))
    const workOfOp = (index: number) => [backend.program.ops[index].kind, works[index]]
    expect([0, 1, 2, 3, 6].map(workOfOp)).toEqual([
      ['embed', { byte: (8 * 64 * 34) / 32 }],
      ['rmsNorm', { flop: 4 * 8 * 64 }],
      ['linear', { intOp: 2 * 8 * 64 * 256, byte: (64 * 256 * 34) / 32 }],
      ['conv1d', { flop: 2 * 4 * 8 * 128, exp2: 8 * 128 }],
      ['selectiveScan', { exp2: 8 * 128 * 16 }]
    ])
    // The head sees one row.
    expect(works.at(-1)).toEqual({ intOp: 2 * 64 * 320, byte: (64 * 320 * 34) / 32 })
  })

  test('takes the time of the limit that it meets first', () => {
    const limits = { flop: 100, intOp: 200, byte: 10, exp2: 1 }
    expect(leastSeconds({ flop: 100, byte: 20 }, limits)).toBe(2)
    expect(leastSeconds({ flop: 300, byte: 20 }, limits)).toBe(3)
    expect(leastSeconds({}, limits)).toBe(0)
    expect(leastSeconds({ exp2: 4, intOp: 200 }, limitsOfThreads(limits, 2))).toBe(2)
  })
})

describe('limits', () => {
  test('are measured by kernels that V8 takes, with figures that a processor can have', async () => {
    expect(EXP2_CODE).toBe(FUNCTION_EXP2)
    for (const isShared of [false, true]) {
      const kernels = createLimitKernels({ core: await platform.wasmModule(isShared ? 'simd-threads' : 'simd'), isShared })
      // Products of 16 bits, and of bytes, which this Node has.
      expect(kernels.map(({ limit }) => limit)).toEqual(['flop', 'intOp', 'intOp', 'byte', 'byte', 'byte', 'exp2'])
      const rates = kernels.map(({ amount, run }) => {
        run()
        const startMs = performance.now()
        run()
        return (1000 * amount) / (performance.now() - startMs)
      })
      const { flop, intOp, byte, exp2 } = bestOf(kernels, rates)
      for (const rate of [flop, intOp, byte]) expect(rate > 1e8 && rate < 2e12, String(rate)).toBe(true)
      expect(exp2 > 1e6 && exp2 < 1e11, String(exp2)).toBe(true)
    }
  })

  test('a limit without a kernel is no bound', () => {
    expect(bestOf([], [])).toEqual({ flop: Infinity, intOp: Infinity, byte: Infinity, exp2: Infinity })
  })
})
