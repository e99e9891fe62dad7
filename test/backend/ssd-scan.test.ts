/** Mamba-2's scan alone against the float64 reference: heads, channels, states, groups and blocks of tokens around its tiles, in both builds. */
import { describe, expect, test } from 'vitest'
import type { Segment } from '../../src/backend/backend.ts'
import { BUILDS } from '../support/backends.ts'
import { createNumbers } from '../support/numbers.ts'
import { compareSnapshots, createRig, expectSameSnapshot, type OpSpec, segment, segmentsOf } from '../support/op-rig.ts'
import { addScan, PLAIN, type SsdShape } from '../support/ssd-op.ts'

/** The kernel takes so many tokens at a time: assembly/abi.ts, SSD_BLOCK. */
const BLOCK = 16
/** Of the largest value: f32 rounding over some tens of states and steps. */
const TOLERANCE = 2e-6

async function compareAll(form: SsdShape, batches: readonly (readonly Segment[])[]): Promise<number> {
  const spec: OpSpec = {
    seed: 31 * form.headDim + form.dState, capacity: { maxRows: 3 * BLOCK + 8, maxLogitRows: 3 * BLOCK + 8, nSlots: 4, contextLength: 0 },
    build: (builder) => addScan(builder, form),
    ranges: { A: [-4, -0.05], dt: [-4, 3], zdt: [-4, 3], xBC: [-2, 2] }
  }
  const [reference, scalar, simd] = await Promise.all((['reference', ...BUILDS] as const).map((kind) => createRig(kind, spec)))
  let error = 0
  for (const segments of batches) {
    const where = `${JSON.stringify(form)}, segments of ${segments.map(({ nRows }) => nRows).join(', ')} rows`
    const [want, fromScalar, fromSimd] = [await reference.run(segments), await scalar.run(segments), await simd.run(segments)]
    error = Math.max(error, compareSnapshots(fromScalar, want, { tolerance: TOLERANCE, place: `${where}, scalar` }))
    expectSameSnapshot(fromSimd, fromScalar, `${where}, simd beside scalar`)
  }
  return error
}

describe.each([1, 2, 3, 4, 5, 7, 8, 9, 12])('%i channels a head', (headDim) => {
  test('states, heads, groups, inputs that may be missing', async () => {
    const numbers = createNumbers(headDim)
    const isSet = (): boolean => numbers.integer(0, 1) === 1
    for (const dState of [1, 2, 3, 4, 5, 7, 8, 9, 12, 16]) {
      for (const [nHeads, nGroups] of [[1, 1], [3, 1], [3, 3], [6, 2]]) {
        const dtLimit = isSet() ? [0.1, 0.7] as const : [0, Infinity] as const
        const form = { nHeads, nGroups, headDim, dState, dtLimit, hasD: isSet(), hasDtBias: isSet(), isInset: isSet() }
        await compareAll(form, [segmentsOf([numbers.integer(1, 4)]), segmentsOf([3, 1, 2])])
      }
    }
  })
})

test('tokens around a block', async () => {
  const batches = [
    ...[1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1, 3 * BLOCK].map((nRows) => [segment(0, 0, nRows)]),
    segmentsOf([BLOCK - 1, 2]), segmentsOf([1, BLOCK + 1, BLOCK]), segmentsOf([BLOCK, 0, 3]), [segment(3, 0, 7, 'none', 100), segment(1, 7, BLOCK, 'none', 5)]
  ]
  let error = 0
  for (const form of [PLAIN, { ...PLAIN, headDim: 6, dState: 32, nGroups: 2 }, { ...PLAIN, dState: 6, isInset: false }]) {
    error = Math.max(error, await compareAll(form, batches))
  }
  console.log(`ssdScan: largest error ${error.toExponential(1)} of the largest value`)
})

test.each(BUILDS)('a state that fades ends at zero, not among the subnormals, %s', async (kind) => {
  const spec: OpSpec = {
    seed: 3, capacity: { maxRows: 64, maxLogitRows: 64, nSlots: 1, contextLength: 0 },
    build: (builder) => addScan(builder, { ...PLAIN, headDim: 5, dtLimit: [1, 1], hasD: false, hasDtBias: false, isInset: false }),
    ranges: { A: [-1.5, -1.2], x: [0, 0] }
  }
  const rig = await createRig(kind, spec)
  const { changed } = await rig.run([segment(0, 0, 64)])
  const state = changed.get('state of slot 0')?.subarray(5, 5 + 4 * 5 * 16) ?? new Float32Array(0)
  // exp(-1.35 · 64) of 1 is 3e-38, among the subnormals or just above.
  expect(state.length).toBe(320)
  for (const value of state) expect(value === 0 || Math.abs(value) >= 2 ** -126, `${value} is subnormal`).toBe(true)
  expect(state.some((value) => value === 0)).toBe(true)
})
