/** Every kernel alone against the float64 reference, over sizes that straddle its tiles, in both builds. The scan has a file of its own. */
import { describe, expect, test } from 'vitest'
import type { Segment } from '../../src/backend/backend.ts'
import { columns, type ProgramBuilder } from '../../src/program/builder.ts'
import type { RowSpace, View } from '../../src/program/ops.ts'
import { createRig, type OpSpec, segment, segmentsOf } from '../support/op-rig.ts'
import { compareAll } from '../support/op-sweep.ts'

/** A buffer's columns: all of them, or some in the middle of a wider buffer (an output that fills no panels has to end its row, padding included). */
function view(builder: ProgramBuilder, name: string, { width, isInset, isOut = false, rows = 'token' }: {
  width: number, isInset: boolean, isOut?: boolean, rows?: RowSpace
}): View {
  if (!isInset) return builder.buffer(name, width, rows)
  const [before, after] = isOut && width % 8 !== 0 ? [8, 0] : [3, 5]
  return columns(builder.buffer(name, before + width + after, rows), before, width)
}

const range = (first: number, last: number): number[] => Array.from({ length: last - first + 1 }, (_, i) => first + i)
const single = (counts: readonly number[]): Segment[][] => counts.map((nRows) => [segment(0, 0, nRows)])
const report = (name: string, error: number): void => console.log(`${name}: largest error ${error.toExponential(1)} of the largest value`)

describe('linear', () => {
  const batches = single([...range(1, 9), ...range(63, 66), 130])

  test.each([1, 7, 8, 9, 15, 16, 17, 24, 40])('%i outputs', async (nOut) => {
    let error = 0
    for (const nIn of [1, 3, 8, 33]) {
      for (const [hasBias, accumulate] of [[false, false], [true, false], [false, true], [true, true]]) {
        const isInset = hasBias !== accumulate
        const spec: OpSpec = {
          seed: 100 * nOut + nIn, capacity: { maxRows: 132, maxLogitRows: 132, nSlots: 1, contextLength: 0 },
          build: (builder) => ({
            kind: 'linear', accumulate,
            x: view(builder, 'x', { width: nIn, isInset }),
            weight: builder.parameter('weight', [nOut, nIn]),
            bias: hasBias ? builder.parameter('bias', [nOut]) : null,
            out: view(builder, 'out', { width: nOut, isInset, isOut: true })
          })
        }
        // Rounding a sum of 35 terms below 1 could add up to 35 · 35 · 2^-24; in fact it is some 1e-7.
        const place = `${nIn} inputs, bias ${hasBias}, accumulate ${accumulate}`
        error = Math.max(error, await compareAll(spec, batches, { tolerance: 1e-6, size: 1, place }))
      }
    }
    report(`linear ${nOut}`, error)
  })

  test('runs over the logit rows where the output has those', async () => {
    const spec: OpSpec = {
      seed: 5, capacity: { maxRows: 20, maxLogitRows: 20, nSlots: 4, contextLength: 0 },
      build: (builder) => ({
        kind: 'linear', accumulate: false, bias: null,
        x: builder.buffer('x', 5, 'logit'), weight: builder.parameter('weight', [11, 5]), out: builder.buffer('out', 11, 'logit')
      })
    }
    const mixed = [segment(0, 0, 3, 'last'), segment(1, 3, 4, 'none'), segment(2, 7, 6, 'all')]
    await compareAll(spec, [mixed, segmentsOf([5, 5, 2], 'none'), segmentsOf([9, 1], 'last')], { tolerance: 1e-6, size: 1, place: 'logit rows' })
  })
})

test('rmsNorm', async () => {
  let error = 0
  for (const width of [...range(1, 17), 32, 100]) {
    for (const form of ['apart', 'inset', 'in place'] as const) {
      const spec: OpSpec = {
        seed: width, capacity: { maxRows: 12, maxLogitRows: 12, nSlots: 1, contextLength: 0 },
        build(builder) {
          const x = view(builder, 'x', { width, isInset: form !== 'apart' })
          const out = form === 'in place' ? x : view(builder, 'out', { width, isInset: form === 'inset' })
          return { kind: 'rmsNorm', x, out, gate: null, groupWidth: width, eps: 1e-3, weight: builder.parameter('weight', [width]) }
        }
      }
      error = Math.max(error, await compareAll(spec, single([1, 2, 5, 9]), { tolerance: 5e-7, place: `width ${width}, ${form}` }))
    }
  }
  report('rmsNorm', error)
})

test('rmsNorm of groups, with and without a gate and weights', async () => {
  let error = 0
  for (const [groupWidth, nGroups] of [[1, 3], [3, 2], [4, 1], [7, 3], [8, 2], [9, 2], [16, 3], [20, 1]]) {
    for (const [hasGate, hasWeight, isInPlace] of [[true, true, false], [true, false, true], [false, false, true], [false, true, false], [true, true, true]]) {
      const width = groupWidth * nGroups
      const spec: OpSpec = {
        seed: width + groupWidth, capacity: { maxRows: 12, maxLogitRows: 12, nSlots: 1, contextLength: 0 }, ranges: { gate: [-5, 5] },
        build(builder) {
          const x = view(builder, 'x', { width, isInset: true })
          return {
            kind: 'rmsNorm', x, groupWidth, eps: 1e-3,
            gate: hasGate ? view(builder, 'gate', { width, isInset: true }) : null,
            weight: hasWeight ? builder.parameter('weight', [width]) : null,
            out: isInPlace ? x : view(builder, 'out', { width, isInset: true })
          }
        }
      }
      const place = `${nGroups} groups of ${groupWidth}, gate ${hasGate}, weight ${hasWeight}, in place ${isInPlace}`
      error = Math.max(error, await compareAll(spec, single([1, 2, 5, 9]), { tolerance: 1e-6, place }))
    }
  }
  report('rmsNorm of groups', error)
})

describe('conv1d', () => {
  const batches = [
    ...single(range(1, 6)),
    segmentsOf([1, 1, 1]), segmentsOf([2, 5, 1]), segmentsOf([6, 3]), segmentsOf([4, 1, 2]),
    // A segment without rows leaves its state as it is.
    segmentsOf([3, 0, 2])
  ]

  test.each(range(1, 5))('%i taps', async (dConv) => {
    let error = 0
    for (const width of [...range(1, 9), 16, 21]) {
      for (const [hasBias, activation, isInset] of [[true, 'silu', false], [false, 'silu', true], [true, 'none', true]] as const) {
        const spec: OpSpec = {
          seed: 10 * width + dConv, capacity: { maxRows: 12, maxLogitRows: 12, nSlots: 4, contextLength: 0 }, ranges: { x: [-3, 3] },
          build(builder) {
            // States before and after this one in the slot must stay as they are.
            builder.state('before', [3])
            const state = builder.state('conv', [width, dConv - 1])
            builder.state('after', [2, 2])
            return {
              kind: 'conv1d', activation, state,
              x: view(builder, 'x', { width, isInset }),
              weight: builder.parameter('weight', [width, 1, dConv]),
              bias: hasBias ? builder.parameter('bias', [width]) : null,
              out: view(builder, 'out', { width, isInset, isOut: true })
            }
          }
        }
        error = Math.max(error, await compareAll(spec, batches, { tolerance: 1e-6, place: `${width} channels, bias ${hasBias}, ${activation}` }))
      }
    }
    report(`conv1d ${dConv}`, error)
  })
})

test('embed', async () => {
  for (const vocabSize of [1, 7, 8, 9, 20]) {
    for (const width of [...range(1, 9), 32]) {
      const spec: OpSpec = {
        seed: vocabSize, vocabSize, capacity: { maxRows: 20, maxLogitRows: 20, nSlots: 2, contextLength: 0 },
        build: (builder) => ({
          kind: 'embed', weight: builder.parameter('weight', [vocabSize, width]), out: view(builder, 'out', { width, isInset: width % 2 === 0, isOut: true })
        })
      }
      expect(await compareAll(spec, single([1, 2, 7, 19]), { tolerance: 0, place: `${vocabSize} ids, width ${width}` })).toBe(0)
    }
  }
})

test('gatherRows', async () => {
  const batches = [
    segmentsOf([4, 3, 6], 'last'), segmentsOf([4, 3, 6], 'all'), segmentsOf([4, 3, 6], 'none'),
    [segment(1, 0, 3, 'all'), segment(0, 3, 4, 'none'), segment(2, 7, 5, 'last'), segment(3, 12, 0, 'last'), segment(4, 12, 1, 'all')]
  ]
  for (const width of [...range(1, 9), 33]) {
    const spec: OpSpec = {
      seed: width, capacity: { maxRows: 16, maxLogitRows: 16, nSlots: 5, contextLength: 0 },
      build: (builder) => ({
        kind: 'gatherRows', x: view(builder, 'x', { width, isInset: width % 2 === 0 }),
        out: view(builder, 'out', { width, isInset: width % 3 === 0, isOut: true, rows: 'logit' })
      })
    }
    expect(await compareAll(spec, batches, { tolerance: 0, place: `width ${width}` })).toBe(0)
  }
})

describe('outputs that the kernels could not store without harm are refused', () => {
  test('columns in front of others', async () => {
    await expect(createLinear(0, 7, 16)).rejects.toThrow(TypeError)
    await expect(createLinear(8, 4, 16)).rejects.toThrow(TypeError)
  })

  // Eight columns are stored from column 3 of a row that has eight: the last three are the next row's.
  test('columns at the end of a row whose padding does not hold a whole panel', async () => {
    await expect(createLinear(3, 1, 4)).rejects.toThrow(TypeError)
    await expect(createLinear(15, 9, 24)).rejects.toThrow(TypeError)
  })
})

/** Resolves to the error's absence alone: a rig would be a long message. */
async function createLinear(offset: number, width: number, bufferWidth: number): Promise<string> {
  await createRig('simd', {
    seed: 1, capacity: { maxRows: 4, maxLogitRows: 4, nSlots: 1, contextLength: 0 },
    build: (builder) => ({
      kind: 'linear', accumulate: false, bias: null, x: builder.buffer('x', 3),
      weight: builder.parameter('weight', [width, 3]), out: columns(builder.buffer('out', bufferWidth), offset, width)
    })
  })
  return `columns ${offset} to ${offset + width} of ${bufferWidth} are taken`
}
