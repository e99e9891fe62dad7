/** Attention on a GPU against the float64 reference: rows and tiles of queries, blocks and shares of positions, on the device and on the least that WebGPU allows. */
import { describe, test } from 'vitest'
import { columns, type ProgramBuilder } from '../../../src/program/builder.ts'
import type { View } from '../../../src/program/ops.ts'
import { type OpSpec, segment, segmentsOf } from '../../support/op-rig.ts'
import { compareGpu } from '../../support/op-sweep.ts'

/** Positions of a block, of a share, and queries of a tile: kernels/attention-rows.ts and attention-tiles.ts. */
const [BLOCK, SHARE, TILE] = [128, 256, 32]

interface Form {
  readonly nHeads: number
  readonly nKvHeads: number
  readonly headDim: number
}

function inset(builder: ProgramBuilder, name: string, width: number): View {
  return columns(builder.buffer(name, 3 + width + 5), 3, width)
}

function attentionSpec({ nHeads, nKvHeads, headDim }: Form, options: Partial<OpSpec> & { readonly scale?: number, readonly contextLength?: number } = {}): OpSpec {
  const { scale = 1 / Math.sqrt(headDim), contextLength = 3 * SHARE + 9, ...rest } = options
  return {
    seed: 31 * headDim + nHeads, capacity: { maxRows: 3 * TILE + 8, maxLogitRows: 1, nSlots: 4, contextLength }, ranges: { q: [-3, 3] }, ...rest,
    build(builder) {
      builder.keyValue('other layer', nKvHeads * headDim)
      const cache = builder.keyValue('layer', nKvHeads * headDim)
      return { kind: 'attention', headDim, scale, cache, q: inset(builder, 'q', nHeads * headDim), out: inset(builder, 'out', nHeads * headDim) }
    }
  }
}

const ROW_BATCHES = [
  ...[0, 1, BLOCK - 1, BLOCK, SHARE - 1, SHARE, 3 * SHARE + 8].map((position) => [segment(2, 0, 1, 'none', position)]),
  [segment(3, 0, 1, 'none', 40), segment(0, 1, 3, 'none', SHARE - 2), segment(2, 4, 0, 'none', 9), segment(1, 4, 1, 'none', 2 * SHARE + 95)],
  [segment(0, 0, 4, 'none', BLOCK - 3)]
]
const TILE_BATCHES = [
  ...[5, TILE - 1, TILE, TILE + 1, 3 * TILE].map((nRows) => [segment(0, 0, nRows)]),
  [segment(1, 0, TILE + 2, 'none', BLOCK - 3)],
  [segment(1, 0, 5, 'none', 30), segment(2, 5, 0, 'none', 7), segment(0, 5, 37), segment(3, 42, 1, 'none', SHARE + 64)]
]
const ALL_BATCHES = [...ROW_BATCHES, ...TILE_BATCHES]
/** The reference takes its time. */
const FEW_BATCHES = [ROW_BATCHES[2], ROW_BATCHES[7], TILE_BATCHES[3], TILE_BATCHES[6]]

// f32 rounding of scores of some units.
const tolerance = 3e-6

test.each([[1, 1, ALL_BATCHES], [4, 2, ALL_BATCHES], [4, 1, FEW_BATCHES], [4, 4, FEW_BATCHES]] as const)('%i heads, %i of keys and values', async (nHeads, nKvHeads, batches) => {
  await compareGpu(attentionSpec({ nHeads, nKvHeads, headDim: 8 }), batches, { tolerance, place: '8 columns' })
})

test.each([1, 3, 30, 64, 80])('heads of %i columns', async (headDim) => {
  await compareGpu(attentionSpec({ nHeads: 2, nKvHeads: 1, headDim }), FEW_BATCHES, { tolerance, place: `${headDim} columns` })
})

test.each([128, 256])('heads of %i columns', async (headDim) => {
  await compareGpu(attentionSpec({ nHeads: 1, nKvHeads: 1, headDim }), [ROW_BATCHES[4], TILE_BATCHES[6]], { tolerance, place: `${headDim} columns` })
})

describe('on the least device', () => {
  test.each([64, 256])('heads of %i columns', async (headDim) => {
    await compareGpu(attentionSpec({ nHeads: 2, nKvHeads: 1, headDim }), [ROW_BATCHES[7], TILE_BATCHES[6]], { tolerance, place: `${headDim} columns`, kind: 'webgpu least' })
  })
})

test('more heads to one of keys than a workgroup takes', async () => {
  await compareGpu(attentionSpec({ nHeads: 35, nKvHeads: 1, headDim: 8 }), [[segment(0, 0, 3, 'none', 2 * SHARE)], segmentsOf([5, 1])], { tolerance, place: 'many' })
})

test('a context too short to be shared', async () => {
  await compareGpu(attentionSpec({ nHeads: 2, nKvHeads: 1, headDim: 8 }, { contextLength: SHARE }), [[segment(0, 0, 1, 'none', SHARE - 1)], segmentsOf([5, 1])], { tolerance, place: 'short' })
})

test('a long context: shares of several blocks', async () => {
  const length = 20 * SHARE
  const spec = attentionSpec({ nHeads: 2, nKvHeads: 1, headDim: 16 }, { contextLength: length, capacity: { maxRows: 8, maxLogitRows: 1, nSlots: 1, contextLength: length } })
  await compareGpu(spec, [[segment(0, 0, 1, 'none', length - 1)], [segment(0, 0, 8, 'none', length - 8)]], { tolerance, place: 'long' })
})

test('scores far beyond what exp can take', async () => {
  for (const size of [100, 1e4]) {
    // The scores differ by hundreds, or more: one position has nearly all the weight, and what rounds is its score: some 1e-7 of it, in the exponent.
    const spec = attentionSpec({ nHeads: 2, nKvHeads: 1, headDim: 16 }, { ranges: { q: [-size, size], cache: [-10, 10] } })
    await compareGpu(spec, [[segment(0, 0, 40)], [segment(1, 0, 1, 'none', 2 * SHARE)]], { tolerance: size === 100 ? 2e-3 : 1e-1, place: `scores of ${size}` })
  }
})

test('equal scores give the plain mean', async () => {
  const spec = attentionSpec({ nHeads: 2, nKvHeads: 2, headDim: 8 }, { scale: 0, ranges: {} })
  await compareGpu(spec, [[segment(0, 0, 3 * TILE)], [segment(0, 0, 1, 'none', 2 * SHARE + 3)]], { tolerance: 1e-6, size: 1, place: 'scale 0' })
})
