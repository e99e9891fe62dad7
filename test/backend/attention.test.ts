/** Rotary positions, the key-value cache and attention against the float64 reference, in both builds: heads, widths and positions around the tiles. */
import { setImmediate } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { stateElements } from '../../src/backend/backend.ts'
import { columns, ProgramBuilder } from '../../src/program/builder.ts'
import type { View } from '../../src/program/ops.ts'
import { BUILDS, createBackend } from '../support/backends.ts'
import { expectSameBits } from '../support/compare.ts'
import { createNumbers } from '../support/numbers.ts'
import { createRig, type OpSpec, segment, segmentsOf, type Snapshot } from '../support/op-rig.ts'
import { compareAll } from '../support/op-sweep.ts'

/** Positions that the kernel takes at a time: assembly/abi.ts, KEY_BLOCK; queries that share them: QUERY_TILE. */
const BLOCK = 32
const TILE = 16

interface Form {
  readonly nHeads: number
  readonly nKvHeads: number
  readonly headDim: number
}

/** Columns in the middle of a wider buffer. */
function inset(builder: ProgramBuilder, name: string, width: number): View {
  return columns(builder.buffer(name, 3 + width + 5), 3, width)
}

function attentionSpec({ nHeads, nKvHeads, headDim }: Form, options: Partial<OpSpec> & { readonly scale?: number, readonly maxRows?: number } = {}): OpSpec {
  const { scale = 1 / Math.sqrt(headDim), maxRows = 3 * BLOCK + 8, ...rest } = options
  return {
    seed: 31 * headDim + nHeads, capacity: { maxRows, maxLogitRows: 1, nSlots: 4, contextLength: 5 * BLOCK + 1 }, ranges: { q: [-3, 3] }, ...rest,
    build(builder) {
      builder.state('before', [5])
      builder.keyValue('other layer', nKvHeads * headDim)
      const cache = builder.keyValue('layer', nKvHeads * headDim)
      return { kind: 'attention', headDim, scale, cache, q: inset(builder, 'q', nHeads * headDim), out: inset(builder, 'out', nHeads * headDim) }
    }
  }
}

/** Positions around the blocks of keys, rows around the tiles of queries, several sequences. */
const BATCHES = [
  ...[0, 1, BLOCK - 2, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 5 * BLOCK].map((position) => [segment(2, 0, 1, 'none', position)]),
  ...[2, TILE - 1, TILE, TILE + 1, BLOCK, BLOCK + 1, 3 * BLOCK].map((nRows) => [segment(0, 0, nRows)]),
  [segment(1, 0, BLOCK + 2, 'none', BLOCK - 3)],
  [segment(3, 0, 1, 'none', 40), segment(0, 1, 1, 'none', 0), segment(1, 2, 1, 'none', 95)],
  [segment(1, 0, 5, 'none', 30), segment(2, 5, 0, 'none', 7), segment(0, 5, 37), segment(3, 42, 1, 'none', 64)]
]

describe.each([4, 8, 12, 64, 80, 128, 256])('attention, heads of %i columns', (headDim) => {
  test.each([[1, 1], [4, 1], [4, 2], [4, 4]])('%i heads, %i of keys and values', async (nHeads, nKvHeads) => {
    // The reference takes its time.
    const batches = headDim < 64 ? BATCHES : [BATCHES[3], BATCHES[4], ...BATCHES.slice(headDim < 128 ? 9 : 10, 11), BATCHES[14], BATCHES[15]]
    // f32 rounding of scores of some units, over 160 positions at most.
    const error = await compareAll(attentionSpec({ nHeads, nKvHeads, headDim }), batches, { tolerance: 3e-6, place: `${headDim}` })
    console.log(`attention ${nHeads} / ${nKvHeads} × ${headDim}: largest error ${error.toExponential(1)} of the largest value`)
  })
})

test.each([1, 2, 3, 5, 7, 30, 33])('attention, heads of %i columns, no whole vectors', async (headDim) => {
  await compareAll(attentionSpec({ nHeads: 6, nKvHeads: 3, headDim }), BATCHES.slice(2), { tolerance: 3e-6, place: `${headDim}` })
})

test('attention, more heads to one of keys than a tile holds', async () => {
  await compareAll(attentionSpec({ nHeads: 2 * TILE + 3, nKvHeads: 1, headDim: 8 }), [[segment(0, 0, 3, 'none', 31)], segmentsOf([5, 1])], { tolerance: 3e-6, place: 'many' })
})

test('attention, scores far beyond what exp can take', async () => {
  const form = { nHeads: 2, nKvHeads: 1, headDim: 16 }
  for (const size of [100, 1e4]) {
    // The scores differ by hundreds, or more: one position has nearly all the weight, and what rounds is its score: some 1e-7 of it, in the exponent.
    const spec = attentionSpec(form, { ranges: { q: [-size, size], cache: [-10, 10] } })
    await compareAll(spec, [[segment(0, 0, 40)], [segment(1, 0, 1, 'none', 100)]], { tolerance: size === 100 ? 2e-3 : 1e-1, place: `scores of ${size}` })
  }
})

test('attention, equal scores give the plain mean', async () => {
  const spec = attentionSpec({ nHeads: 2, nKvHeads: 2, headDim: 8 }, { scale: 0, ranges: {} })
  await compareAll(spec, [[segment(0, 0, 3 * BLOCK)], [segment(0, 0, 1, 'none', 5 * BLOCK)]], { tolerance: 1e-6, size: 1, place: 'scale 0' })
})

/** The op's output of one run. */
function outOf({ changed }: Snapshot): Float32Array {
  return changed.get('out') ?? new Float32Array(0)
}

test.each(BUILDS)('attention, a row has the same bits in any chunk and beside any others, %s', async (kind) => {
  const [nHeads, headDim, length] = [4, 12, 5 * BLOCK]
  const width = nHeads * headDim
  // Queries that do not depend on the row of the batch: what is left is the position.
  const rig = await createRig(kind, attentionSpec({ nHeads, nKvHeads: 2, headDim }, { maxRows: length + 8, fills: { q: (_numbers, _row, column) => 3 * Math.sin(column) } }))
  const whole = outOf(await rig.run([segment(0, 0, length)]))
  expect(whole.length).toBe(length * width)
  expect(whole.slice(0, width)).not.toEqual(whole.slice(width, 2 * width))
  for (const [position, nRows] of [[0, 1], [1, 1], [31, 1], [32, 1], [33, 5], [20, 20], [0, 33], [64, 96], [159, 1], [100, 17]]) {
    const want = whole.subarray(position * width, (position + nRows) * width)
    expectSameBits(outOf(await rig.run([segment(0, 0, nRows, 'none', position)])), want, `${nRows} rows at ${position}`)
    const beside = outOf(await rig.run([segment(1, 0, 3, 'none', 50), segment(0, 3, nRows, 'none', position), segment(2, 3 + nRows, 2)]))
    expectSameBits(beside.subarray(3 * width, (3 + nRows) * width), want, `${nRows} rows at ${position}, beside others`)
  }
})

test('cacheKeyValue', async () => {
  for (const [nKvHeads, headDim] of [[1, 1], [2, 3], [1, 8], [3, 12], [2, 64], [1, 80]]) {
    for (const hasAttention of [true, false]) {
      const spec: OpSpec = {
        seed: headDim, capacity: { maxRows: 3 * BLOCK, maxLogitRows: 1, nSlots: 4, contextLength: 4 * BLOCK + 3 },
        build(builder) {
          builder.state('before', [3])
          builder.keyValue('other layer', 5)
          const cache = builder.keyValue('layer', nKvHeads * headDim)
          builder.keyValue('last layer', 4)
          const [key, value] = ['key', 'value'].map((name) => inset(builder, name, nKvHeads * headDim))
          return { kind: 'cacheKeyValue', key, value, cache, out: key }
        },
        // The attention that reads the cache decides its layout.
        addReaders(builder, op) {
          if (hasAttention && 'cache' in op) builder.add({ kind: 'attention', q: op.out, headDim, scale: 1, cache: op.cache, out: op.out })
        }
      }
      const batches = [
        [segment(2, 0, 1, 'none', 0)], [segment(1, 0, 1, 'none', BLOCK - 1)], [segment(1, 0, 5, 'none', BLOCK - 2)], [segment(0, 0, 3 * BLOCK, 'none', 35)],
        [segment(3, 0, 4, 'none', 10), segment(0, 4, 0, 'none', 9), segment(2, 4, 40, 'none', 60), segment(1, 44, 1, 'none', 4 * BLOCK + 2)]
      ]
      expect(await compareAll(spec, batches, { tolerance: 0, place: `${nKvHeads} × ${headDim}` })).toBe(0)
    }
  }
})

test('rotary', async () => {
  let error = 0
  for (const [nHeads, headDim, rotaryDim] of [[1, 2, 2], [3, 6, 4], [2, 8, 8], [2, 20, 10], [4, 64, 64], [2, 80, 32], [1, 14, 14]]) {
    for (const theta of [10_000, 500_000, 1e11]) {
      const spec: OpSpec = {
        seed: headDim, capacity: { maxRows: 40, maxLogitRows: 1, nSlots: 4, contextLength: 0 },
        build(builder) {
          const x = inset(builder, 'x', nHeads * headDim)
          return { kind: 'rotary', x, headDim, rotaryDim, theta, out: x }
        }
      }
      const batches = [[segment(0, 0, 1)], [segment(0, 0, 40, 'none', 4000)], [segment(2, 0, 3, 'none', 100_000), segment(1, 3, 0), segment(0, 3, 30, 'none', 7)]]
      error = Math.max(error, await compareAll(spec, batches, { tolerance: 3e-7, size: 1, place: `${nHeads} × ${headDim}, ${rotaryDim} turned` }))
    }
  }
  console.log(`rotary: largest error ${error.toExponential(1)} of the largest value`)
})

test('a long context is linear in memory', async () => {
  const [headDim, length] = [16, 4096]
  const spec = attentionSpec({ nHeads: 2, nKvHeads: 1, headDim }, {
    capacity: { maxRows: 8, maxLogitRows: 1, nSlots: 1, contextLength: length }, ranges: { q: [-2, 2] }
  })
  const error = await compareAll(spec, [[segment(0, 0, 1, 'none', length - 1)], [segment(0, 0, 8, 'none', length - 8)]], { tolerance: 5e-7, size: 1, place: 'long' })
  console.log(`attention over ${length} positions: largest error ${error.toExponential(1)}, where values are up to 1`)
})

test('a long chunk far into a text is taken some rows at a time, with the same result', async () => {
  // Three threads share each head of keys by its heads of queries, one and two of them.
  const [headDim, nHeads, length, nRows] = [64, 6, 4096, 250]
  const builder = new ProgramBuilder()
  const [q, out] = ['q', 'out'].map((name) => builder.buffer(name, nHeads * headDim))
  builder.add({ kind: 'attention', q, headDim, scale: 0.125, cache: builder.keyValue('layer', 2 * headDim), out })
  const program = builder.build(null, 0)
  const backend = await createBackend('3 threads', program, { maxRows: 2 * nRows, maxLogitRows: 1, nSlots: 3, contextLength: length })
  const numbers = createNumbers(8)
  for (const slot of [0, 2]) await backend.writeState(slot, length, numbers.floats(stateElements(program, length)))
  const segments = [segment(2, 0, nRows, 'none', length - nRows), segment(1, nRows, 0), segment(0, nRows, nRows, 'none', 3000)]
  const batch = { tokens: new Int32Array(2 * nRows), segments }
  backend.begin(batch)
  backend.writeView(q, numbers.floats(2 * nRows * q.width))
  backend.run(0, 1)
  const want = backend.readView(out)
  backend.writeView(out, new Float32Array(want.length))
  let nTurns = 0
  const startMs = performance.now()
  const run = backend.forward(batch, new Float32Array(0)).then(() => true)
  // Two billion products and sums, of which a slice has a tenth: a turn of the event loop comes after 25 ms and the slice under way then.
  for (let isDone = false; !isDone; nTurns++) isDone = await Promise.race([run, setImmediate(false)])
  expect(nTurns).toBeGreaterThan(1)
  expect((performance.now() - startMs) / nTurns).toBeLessThan(100)
  expectSameBits(backend.readView(out), want, 'in slices')
  await backend.dispose()
})
