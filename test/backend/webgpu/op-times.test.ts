/** Times of ops by the GPU's own clock. */
import { describe, expect, test } from 'vitest'
import type { Batch, Capacity } from '../../../src/backend/backend.ts'
import { createWebGpuBackend } from '../../../src/backend/webgpu/webgpu-backend.ts'
import { UnsupportedError } from '../../../src/errors.ts'
import { profile } from '../../../src/profile.ts'
import { openModel } from '../../support/backends.ts'
import { fixtureModel } from '../../support/fixtures.ts'
import { GPUS, leastGpuDevice } from '../../support/gpu.ts'
import { segment } from '../../support/op-rig.ts'

const capacity: Capacity = { maxRows: 8, maxLogitRows: 2, nSlots: 1, contextLength: 32 }
const BATCH: Batch = { tokens: Int32Array.of(5, 6, 7, 8, 9, 10), segments: [segment(0, 0, 6, 'last')] }

describe.each(GPUS)('%s', { timeout: 60_000 }, () => {
  test('every op has one, and the batch has run', async () => {
    const backend = await (await openModel(fixtureModel('bamba'))).loadGpu(capacity)
    await backend.forward(BATCH, new Float32Array(backend.program.vocabSize))
    const state = await backend.readState(0, 6)
    await backend.clearState(0)
    const timesMs = await backend.timeOps(BATCH)
    expect(timesMs).toHaveLength(backend.program.ops.length)
    expect(timesMs.every((ms) => ms >= 0 && ms < 1000)).toBe(true)
    for (const [i, { kind }] of backend.program.ops.entries()) if (kind === 'ssdScan' || kind === 'attention') expect(timesMs[i], kind).toBeGreaterThan(0)
    expect(await backend.readState(0, 6)).toEqual(state)
    await backend.dispose()
  })

  test('a profile is of them', async () => {
    const backend = await (await openModel(fixtureModel('mamba'))).loadGpu(capacity)
    const { lines, limits, totalMs, wholeMs } = await profile(backend, BATCH, { repeats: 2 })
    expect(limits).toBeNull()
    expect(lines.reduce((sum, { nOps }) => sum + nOps, 0)).toBe(backend.program.ops.length)
    expect(totalMs).toBeGreaterThan(0)
    expect(wholeMs).toBeGreaterThan(0)
    await expect(profile(backend, BATCH, { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough')
    await backend.dispose()
  })

  test('a device without a clock', async () => {
    const { program } = await openModel(fixtureModel('mamba'))
    const backend = await createWebGpuBackend(program, capacity, { device: await leastGpuDevice(), ownsDevice: false, reason: 'test' })
    const error = await backend.timeOps(BATCH).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(UnsupportedError)
    expect(String(error)).toMatch(/times of ops: expected a GPU with timestamp-query, got .* without/)
    await backend.dispose()
  })
})
