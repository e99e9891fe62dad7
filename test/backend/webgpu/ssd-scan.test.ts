/** Mamba-2's shaders alone against the float64 reference: heads, channels, states, groups and tokens around their tiles, with subgroups and without. */
import { describe, expect, test } from 'vitest'
import type { Segment } from '../../../src/backend/backend.ts'
import { type OpSpec, type RigKind, segment, segmentsOf } from '../../support/op-rig.ts'
import { compareGpu } from '../../support/op-sweep.ts'
import { addScan, PLAIN, type SsdShape } from '../../support/ssd-op.ts'

/** Of the largest value: f32 rounding over some tens of states and steps. */
const TOLERANCE = 2e-6
const MAX_ROWS = 200

function compare(kind: RigKind, shape: SsdShape, batches: readonly (readonly Segment[])[]): Promise<number> {
  const spec: OpSpec = {
    seed: 31 * shape.headDim + shape.dState, capacity: { maxRows: MAX_ROWS, maxLogitRows: MAX_ROWS, nSlots: 4, contextLength: 0 },
    build: (builder) => addScan(builder, shape),
    ranges: { A: [-4, -0.05], dt: [-4, 3], zdt: [-4, 3], xBC: [-2, 2] }
  }
  return compareGpu(spec, batches, { tolerance: TOLERANCE, place: JSON.stringify(shape), kind })
}

const BATCHES = [
  ...[1, 2, 7, 8, 9, 17].map((nRows) => [segment(1, 0, nRows)]),
  segmentsOf([1, 1, 1]), segmentsOf([3, 0, 12]), [segment(3, 0, 7, 'none', 100), segment(1, 7, 30, 'none', 5)]
]

const SHAPES: readonly Partial<SsdShape>[] = [
  { dState: 1 }, { dState: 5, hasD: false }, { dState: 17, headDim: 3, nHeads: 2 }, { dState: 64, headDim: 33, hasDtBias: false }, { dState: 128, headDim: 64, nHeads: 2 },
  { nGroups: 2, nHeads: 6, headDim: 1 }, { nGroups: 3, nHeads: 3, headDim: 70, dtLimit: [0.1, 0.7] }, { dState: 260, headDim: 2, isInset: false }
]

describe.each(['webgpu', 'webgpu least'] as const)('the recurrence, %s', (kind) => {
  test.each(SHAPES)('%o', async (shape) => {
    expect(await compare(kind, { ...PLAIN, ...shape }, BATCHES)).toBeLessThan(TOLERANCE)
  })
})
