/** Mamba-2's shaders alone against the float64 reference: heads, channels, states, groups and tokens around their tiles, with subgroups and without. */
import { describe, expect, test } from 'vitest'
import type { Segment } from '../../../src/backend/backend.ts'
import { type OpSpec, type RigKind, segment, segmentsOf } from '../../support/op-rig.ts'
import { compareGpu } from '../../support/op-sweep.ts'
import { addScan, PLAIN, type SsdShape } from '../../support/ssd-op.ts'

/** Of the largest value: f32 rounding over some tens of states and steps. */
const TOLERANCE = 2e-6

function compare(kind: RigKind, shape: SsdShape, batches: readonly (readonly Segment[])[], more: Partial<OpSpec> = {}): Promise<number> {
  const maxRows = Math.max(...batches.map((segments) => segments.reduce((sum, { nRows }) => sum + nRows, 0)))
  const spec: OpSpec = {
    seed: 31 * shape.headDim + shape.dState, capacity: { maxRows, maxLogitRows: maxRows, nSlots: 4, contextLength: 0 },
    build: (builder) => addScan(builder, shape),
    ranges: { A: [-4, -0.05], dt: [-4, 3], zdt: [-4, 3], xBC: [-2, 2] }, ...more
  }
  return compareGpu(spec, batches, { tolerance: TOLERANCE, place: JSON.stringify(shape), kind })
}

/** Tokens around a tile of 8, all segments by one dispatch. */
const BATCHES = [[segment(1, 0, 1)], segmentsOf([7, 8, 0, 9]), [segment(3, 0, 2, 'none', 100), segment(1, 2, 17, 'none', 5)]]

const SHAPES: readonly Partial<SsdShape>[] = [
  { dState: 1 }, { dState: 5, hasD: false }, { dState: 17, headDim: 3, nHeads: 2 }, { dState: 64, headDim: 33, hasDtBias: false, nHeads: 2 }, { dState: 128, headDim: 64, nHeads: 1 },
  { nGroups: 2, nHeads: 6, headDim: 1 }, { nGroups: 3, nHeads: 3, headDim: 70, dtLimit: [0.1, 0.7] }, { dState: 260, headDim: 2, isInset: false }
]

/** Without subgroups and with the least limits. */
const LEAST = SHAPES.filter((_, i) => i % 3 === 1)

describe.each([['webgpu', SHAPES], ['webgpu least', LEAST]] as const)('the recurrence, %s', (kind, shapes) => {
  test.each(shapes)('%o', async (shape) => {
    expect(await compare(kind, { ...PLAIN, ...shape }, BATCHES)).toBeLessThan(TOLERANCE)
  })
})

/** Around the fewest tokens that go by chunks, 32, and around a chunk. */
const LONG = [segmentsOf([31, 32, 63, 33]), segmentsOf([64, 1, 65]), [segment(3, 0, 130, 'none', 100), segment(1, 130, 2, 'none', 5)]]

describe.each([['webgpu chunked', SHAPES.slice(1, -1)], ['webgpu least chunked', LEAST.slice(1)]] as const)('by chunks, %s', (kind, shapes) => {
  test.each(shapes)('%o', async (shape) => {
    expect(await compare(kind, { ...PLAIN, ...shape }, LONG)).toBeLessThan(TOLERANCE)
  })
})

test('what a strong decay leaves behind does not blur the decays after it', async () => {
  // Sums of dt · A to -1200 within a chunk, then steps of 0.02: in f32 their differences would be off by up to 6e-5.
  const shape = { ...PLAIN, hasDtBias: false, isInset: false, dtLimit: [0, 100] as const }
  const fills = { dt: (_: unknown, row: number) => (row % 64 < 12 ? 100 : -5) }
  await compare('webgpu chunked', shape, [[segment(0, 0, 64)], [segment(0, 0, 192)]], { fills, ranges: { A: [-1.1, -0.9], xBC: [-2, 2] } })
})

test('a decay of zero, and one that leaves nothing', async () => {
  const shape = { ...PLAIN, hasDtBias: false, isInset: false }
  for (const dt of [-100, 100]) await compare('webgpu chunked', shape, [[segment(0, 0, 128)]], { fills: { dt: () => dt } })
})
