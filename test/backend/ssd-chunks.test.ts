/** Mamba-2's chunked form against the float64 reference and beside the recurrence: chunks, tiles, heads, groups and states around its sizes. */
import { describe, expect, test } from 'vitest'
import type { Segment } from '../../src/backend/backend.ts'
import { createNumbers } from '../support/numbers.ts'
import { compareSnapshots, createRig, expectSameSnapshot, type OpSpec, segment, segmentsOf } from '../support/op-rig.ts'
import { addScan, PLAIN, type SsdShape } from '../support/ssd-op.ts'

/** The kernel takes so many tokens at a time, and so many at least: assembly/abi.ts, SSD_CHUNK and SSD_CHUNK_LEAST. */
const [CHUNK, LEAST] = [32, 8]
/** Of the largest value. */
const TOLERANCE = 2e-6
const CAPACITY = { maxRows: 4 * CHUNK, maxLogitRows: 4 * CHUNK, nSlots: 4, contextLength: 0 }
const RANGES = { A: [-4, -0.05], dt: [-4, 3], zdt: [-4, 3], xBC: [-2, 2] } as const

function specOf(shape: SsdShape, more: Partial<OpSpec> = {}): OpSpec {
  return { seed: 31 * shape.headDim + shape.dState, capacity: CAPACITY, build: (builder) => addScan(builder, shape), ranges: RANGES, ...more }
}

/** The larger of the errors of out and state. */
async function compare(spec: OpSpec, batches: readonly (readonly Segment[])[]): Promise<number> {
  const [reference, chunked] = await Promise.all((['reference', 'chunked'] as const).map((kind) => createRig(kind, spec)))
  let error = 0
  for (const segments of batches) {
    const place = `seed ${spec.seed}, segments of ${segments.map(({ nRows }) => nRows).join(', ')} rows`
    error = Math.max(error, compareSnapshots(await chunked.run(segments), await reference.run(segments), { tolerance: TOLERANCE, place }))
  }
  return error
}

const batchesAround = [
  ...[LEAST, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + LEAST - 1, CHUNK + LEAST, 2 * CHUNK + 3, 3 * CHUNK + 13].map((nRows) => [segment(0, 0, nRows)]),
  segmentsOf([LEAST + 1, 2]), segmentsOf([1, CHUNK + 9, CHUNK]), segmentsOf([CHUNK, 0, 3]), [segment(3, 0, 11, 'none', 100), segment(1, 11, CHUNK, 'none', 5)]
]

describe.each([1, 2, 3, 4, 5, 7, 8, 12])('%i channels a head', (headDim) => {
  test('states, heads, groups, inputs that may be missing', async () => {
    const numbers = createNumbers(headDim)
    const isSet = (): boolean => numbers.integer(0, 1) === 1
    for (const dState of [1, 2, 3, 4, 7, 8, 9, 12, 16, 20]) {
      for (const [nHeads, nGroups] of [[1, 1], [3, 1], [3, 3], [6, 2]]) {
        const dtLimit = isSet() ? [0.1, 0.7] as const : [0, Infinity] as const
        const shape = { nHeads, nGroups, headDim, dState, dtLimit, hasD: isSet(), hasDtBias: isSet(), isInset: isSet() }
        await compare(specOf(shape), [segmentsOf([numbers.integer(LEAST, 20)]), segmentsOf([9, 1, CHUNK + 10])])
      }
    }
  })
})

test('tokens around a chunk', async () => {
  let error = 0
  for (const shape of [PLAIN, { ...PLAIN, headDim: 6, dState: 32, nGroups: 2 }, { ...PLAIN, headDim: 16, dState: 64, isInset: false }, { ...PLAIN, dState: 6, isInset: false }]) {
    error = Math.max(error, await compare(specOf(shape), batchesAround))
  }
  console.log(`ssdScan by chunks: largest error ${error.toExponential(1)} of the largest value`)
})

test('fewer tokens than it takes are the recurrence, bit for bit', async () => {
  const [chunked, simd] = await Promise.all((['chunked', 'simd'] as const).map((kind) => createRig(kind, specOf(PLAIN))))
  for (const lengths of [[1], [LEAST - 1], [1, 1, 4], [3, LEAST - 1]]) {
    expectSameSnapshot(await chunked.run(segmentsOf(lengths)), await simd.run(segmentsOf(lengths)), `${lengths.join(', ')} rows`)
  }
})

test('what a strong decay leaves behind does not blur the decays after it', async () => {
  // Sums of dt · A to -1200 within a chunk, then steps of 0.02: in f32 their differences would be off by up to 6e-5.
  const shape = { ...PLAIN, hasDtBias: false, isInset: false, dtLimit: [0, 100] as const }
  const fills = { dt: (_: unknown, row: number) => (row % CHUNK < 12 ? 100 : -5) }
  await compare(specOf(shape, { fills, ranges: { ...RANGES, A: [-1.1, -0.9] } }), [[segment(0, 0, CHUNK)], [segment(0, 0, 3 * CHUNK)]])
})

test('a decay of zero, and one that leaves nothing', async () => {
  const shape = { ...PLAIN, hasDtBias: false, isInset: false }
  for (const dt of [-100, 100]) {
    await compare(specOf(shape, { fills: { dt: () => dt } }), [[segment(0, 0, 2 * CHUNK)]])
  }
})

test('a state that fades ends at zero, not among the subnormals', async () => {
  const shape = { ...PLAIN, headDim: 5, dtLimit: [1, 1] as const, hasD: false, hasDtBias: false, isInset: false }
  const rig = await createRig('chunked', specOf(shape, { seed: 3, ranges: { A: [-1.5, -1.2], x: [0, 0] } }))
  const { changed } = await rig.run([segment(0, 0, 2 * CHUNK)])
  const state = changed.get('state of slot 0')?.subarray(5, 5 + 4 * 5 * 16) ?? new Float32Array(0)
  // exp(-1.35 · 64) of 1 is 3e-38, among the subnormals or just above.
  expect(state.length).toBe(320)
  for (const value of state) expect(value === 0 || Math.abs(value) >= 2 ** -126, `${value} is subnormal`).toBe(true)
  expect(state.some((value) => value === 0)).toBe(true)
})
