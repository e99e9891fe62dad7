/** The scan's shaders alone against the float64 reference: channels, states, tiles of tokens and groups around their sizes, with subgroups and without. */
import { describe, expect, test } from 'vitest'
import type { Segment } from '../../../src/backend/backend.ts'
import type { DeviceFacts } from '../../../src/backend/webgpu/kernel.ts'
import { type OpSpec, segment, segmentsOf } from '../../support/op-rig.ts'
import { compareGpu } from '../../support/op-sweep.ts'
import { addScan, type Form, PLAIN } from '../../support/scan-op.ts'

const KINDS = ['webgpu', 'webgpu least'] as const

/** Of the largest value: f32 rounding over some tens of states and steps. */
const TOLERANCE = 2e-6

/** Gives the largest error. */
function compare(kind: (typeof KINDS)[number], form: Form, batches: readonly (readonly Segment[])[], facts: Partial<DeviceFacts> = {}): Promise<number> {
  const maxRows = Math.max(...batches.map((segments) => segments.reduce((sum, { nRows }) => sum + nRows, 0)))
  const spec: OpSpec = {
    seed: 31 * form.dInner + form.dState, capacity: { maxRows, maxLogitRows: maxRows, nSlots: 4, contextLength: 0 },
    build: (builder) => addScan(builder, form), facts,
    ranges: { A: [-4, -0.05], dt: form.dtSoftplus ? [-4, 3] : [0.001, 0.8], dtBias: form.dtSoftplus ? [-1, 1] : [0, 0.3], xz: [-2, 2], z: [-4, 4] }
  }
  return compareGpu(spec, batches, { tolerance: TOLERANCE, place: JSON.stringify(form), kind })
}

/** Steps alone, steps beside tiles, more than one tile of either kind of device: of 64 and 256 tokens. */
const BATCHES = [[segment(1, 0, 2)], segmentsOf([3, 0, 40, 1]), [segment(3, 0, 5, 'none', 100), segment(1, 5, 130, 'none', 5)]]

test.each(KINDS)('tokens around steps, slices and tiles, %s', async (kind) => {
  const lengths = [1, 2, 3, 4, 5, ...[16, 64, 256].flatMap((tokens) => [tokens - 1, tokens, tokens + 1]), 32, 128, 300]
  const error = await compare(kind, { ...PLAIN, dInner: 18 }, [...lengths.map((nRows) => [segment(0, 0, nRows)]), segmentsOf([1, 1, 1]), segmentsOf([7, 1, 4]), ...BATCHES])
  console.log(`selectiveScan, ${kind}: largest error ${error.toExponential(1)} of the largest value`)
  expect(error).toBeLessThan(TOLERANCE)
})

const FORMS: readonly Partial<Form>[] = [
  ...[1, 5, 8, 17, 64, 128].map((dState) => ({ dState })),
  { dInner: 1, hasZ: false }, { dInner: 16, hasD: false }, { dInner: 17, hasDtBias: false }, { dInner: 33, dtSoftplus: false, isInset: false },
  // Groups as wide as a workgroup's channels and narrower ones, the same for B and C and not.
  { dInner: 32, BGroups: 2, CGroups: 2 }, { dInner: 12, BGroups: 3, CGroups: 2 }, { dInner: 32, BGroups: 2, CGroups: 32, dState: 6 },
  { BGroups: 'fixed' }, { CGroups: 'fixed', dState: 20 }, { BGroups: 'fixed', CGroups: 'fixed', dState: 6 }
]

test.each(FORMS)('%o', async (form) => {
  await compare('webgpu', { ...PLAIN, dInner: 4, ...form }, BATCHES)
})

describe('without subgroups and with the least limits', () => {
  test.each(FORMS.filter((_, i) => i % 3 === 1))('%o', async (form) => {
    await compare('webgpu least', { ...PLAIN, dInner: 4, ...form }, BATCHES)
  })
})

describe('one slice of tokens at a time', () => {
  test.each<Partial<Form>>([{ dInner: 20 }, { dState: 17 }, { dState: 1 }, { dInner: 12, BGroups: 3, CGroups: 2 }, { BGroups: 'fixed' }])('%o', async (form) => {
    await compare('webgpu', { ...PLAIN, dInner: 4, ...form }, BATCHES, { isSoftware: true })
  })

  test('where there are many channels', async () => {
    await compare('webgpu', { ...PLAIN, dInner: 4098 }, [segmentsOf([35, 1])])
  })
})
