/** The small ops against the float64 reference, over shapes around the workgroups, on the device as it is and on the least that WebGPU allows. */
import { describe, expect, test } from 'vitest'
import { columns, type ProgramBuilder } from '../../../src/program/builder.ts'
import type { View } from '../../../src/program/ops.ts'
import type { Numbers } from '../../support/numbers.ts'
import { createRig, type OpSpec, type RigKind, segment, segmentsOf } from '../../support/op-rig.ts'
import { compareGpu } from '../../support/op-sweep.ts'

const KINDS: readonly RigKind[] = ['webgpu', 'webgpu least']
const capacity = { maxRows: 70, maxLogitRows: 12, nSlots: 4, contextLength: 0 }
const ROWS = [segmentsOf([1]), segmentsOf([7]), segmentsOf([3, 0, 60])]

/** Columns in the middle of a wider buffer. */
function inset(builder: ProgramBuilder, name: string, width: number, rows: View['buffer']['rows'] = 'token'): View {
  return columns(builder.buffer(name, 3 + width + 5, rows), 3, width)
}

describe.each(KINDS)('rmsNorm, %s', (kind) => {
  // 4 columns a lane, 32 to 512 lanes.
  test.each([1, 31, 127, 129, 1023, 1025, 2300])('%i columns', async (width) => {
    const spec: OpSpec = {
      seed: width, capacity,
      build(builder) {
        const x = inset(builder, 'x', width)
        return { kind: 'rmsNorm', x, out: width % 2 === 0 ? x : inset(builder, 'out', width), gate: null, groupWidth: width, eps: 1e-3, weight: builder.parameter('weight', [width]) }
      }
    }
    await compareGpu(spec, ROWS, { tolerance: 5e-7, place: `width ${width}`, kind })
  })

  test.each([[1, 3], [9, 2], [64, 3], [600, 1]])('groups of %i columns, %i of them', async (groupWidth, nGroups) => {
    for (const [hasGate, hasWeight, target] of [[true, true, 'gate'], [true, false, 'x'], [false, false, 'out'], [false, true, 'x']] as const) {
      const width = groupWidth * nGroups
      const spec: OpSpec = {
        seed: width + groupWidth, capacity, ranges: { gate: [-5, 5] },
        build(builder) {
          const [x, gate] = ['x', 'gate'].map((name) => inset(builder, name, width))
          const out = { gate, x, out: inset(builder, 'out', width) }[target]
          return { kind: 'rmsNorm', x, groupWidth, eps: 1e-3, gate: hasGate ? gate : null, weight: hasWeight ? builder.parameter('weight', [width]) : null, out }
        }
      }
      await compareGpu(spec, [ROWS[0], ROWS[2]], { tolerance: 1e-6, place: `${nGroups} groups of ${groupWidth}, gate ${hasGate}, weight ${hasWeight}`, kind })
    }
  })
})

test('rmsNorm and activation of logit rows', async () => {
  const batches = [[segment(0, 0, 5, 'last')], [segment(1, 0, 3, 'none'), segment(0, 3, 9, 'all'), segment(2, 12, 2, 'last')]]
  const norm: OpSpec = { seed: 5, capacity, build(builder) {
    const x = inset(builder, 'x', 100, 'logit')
    return { kind: 'rmsNorm', x, out: x, gate: null, groupWidth: 100, eps: 1e-5, weight: null }
  } }
  const silu: OpSpec = { seed: 6, capacity, build(builder) {
    const x = inset(builder, 'x', 300, 'logit')
    return { kind: 'activation', function: 'silu', x, by: null, out: x }
  } }
  await compareGpu(norm, batches, { tolerance: 5e-7, place: 'rmsNorm' })
  await compareGpu(silu, batches, { tolerance: 5e-7, size: 1, place: 'silu' })
})

test.each([1, 255, 300])('gatherRows, %i columns', async (width) => {
  const spec: OpSpec = { seed: width, capacity, build: (builder) => ({ kind: 'gatherRows', x: inset(builder, 'x', width), out: inset(builder, 'out', width, 'logit') }) }
  await compareGpu(spec, [
    [segment(0, 0, 1, 'last')], [segment(0, 0, 60, 'last')], [segment(1, 0, 9, 'last'), segment(2, 9, 20, 'none'), segment(0, 29, 0, 'last'), segment(3, 29, 11, 'all')]
  ], { tolerance: 0, place: 'gatherRows' })
})

describe.each(['silu', 'gelu', 'relu2'] as const)('activation %s', (name) => {
  test.each([[1, false, false], [100, true, false], [256, true, true], [257, false, true]])('%i columns, by another %s, in place %s', async (width, hasBy, isInPlace) => {
    const spec: OpSpec = {
      seed: width, capacity, ranges: { x: [-6, 6] },
      build(builder) {
        const x = inset(builder, 'x', width)
        return { kind: 'activation', function: name, x, by: hasBy ? inset(builder, 'by', width) : null, out: isInPlace ? x : inset(builder, 'out', width) }
      }
    }
    await compareGpu(spec, ROWS, { tolerance: 5e-7, size: 1, place: `width ${width}` })
  })

  test('every size, and far beyond what exp takes', async () => {
    const extremes = [0, -0, 1e-30, -1e-30, 20, -20, 87, -87, 90, -90, 200, -200, 1e4, -1e4, 1e18, -1e18]
    const spec: OpSpec = {
      seed: 3, capacity,
      fills: { x: (numbers, _row, column) => (column - 3 < extremes.length ? extremes[Math.max(0, column - 3)] : numbers.float(-9, 9)) },
      build: (builder) => ({ kind: 'activation', function: name, x: inset(builder, 'x', 1000), by: null, out: inset(builder, 'out', 1000) })
    }
    const rigs = await Promise.all([createRig('reference', spec), createRig('webgpu', spec)])
    const [want, got] = (await Promise.all(rigs.map((rig) => rig.run(segmentsOf([4]))))).map(({ changed }) => changed.get('out') ?? new Float32Array(0))
    let largest = 0
    want.forEach((value, i) => {
      const error = Math.abs(got[i] - value) / Math.max(1, Math.abs(value))
      largest = Math.max(largest, error)
      expect(error, `element ${i} is ${got[i]}, not ${value}`).toBeLessThan(1e-6)
    })
    console.log(`${name} on a GPU: largest error ${largest.toExponential(1)}`)
  })
})

test.each([[0.22, true, false], [12, false, false], [1e-9, true, false], [-3, true, true]])('scaledAdd by %d, accumulate %s, in place %s', async (factor, accumulate, isInPlace) => {
  for (const width of [1, 31, 300]) {
    const spec: OpSpec = { seed: width, capacity, build(builder) {
      const x = inset(builder, 'x', width)
      return { kind: 'scaledAdd', factor, accumulate, x, out: isInPlace ? x : inset(builder, 'out', width) }
    } }
    await compareGpu(spec, ROWS, { tolerance: 2e-7, size: 1, place: `width ${width}` })
  }
})

test.each([[1, 2, 2, 10_000], [3, 6, 4, 1e11], [4, 64, 64, 500_000], [2, 80, 32, 10_000], [1, 14, 14, 10_000]])('rotary of %i heads of %i columns, %i of them turned, theta %d', async (nHeads, headDim, rotaryDim, theta) => {
  const spec: OpSpec = { seed: headDim, capacity, build(builder) {
    const x = inset(builder, 'x', nHeads * headDim)
    return { kind: 'rotary', x, headDim, rotaryDim, theta, out: x }
  } }
  const batches = [[segment(0, 0, 1)], [segment(0, 0, 40, 'none', 4000)], [segment(2, 0, 3, 'none', 100_000), segment(1, 3, 0), segment(0, 3, 60, 'none', 7)]]
  await compareGpu(spec, batches, { tolerance: 3e-7, size: 1, place: 'rotary' })
})

test.each([[1, 1], [2, 3], [3, 12], [5, 80]])('cacheKeyValue of %i heads of %i columns', async (nKvHeads, headDim) => {
  const spec: OpSpec = {
    seed: headDim, capacity: { ...capacity, contextLength: 131 },
    build(builder) {
      builder.keyValue('other layer', 5)
      const cache = builder.keyValue('layer', nKvHeads * headDim)
      const [key, value] = ['key', 'value'].map((name) => inset(builder, name, nKvHeads * headDim))
      return { kind: 'cacheKeyValue', key, value, cache, out: key }
    }
  }
  const batches = [
    [segment(2, 0, 1)], [segment(1, 0, 5, 'none', 30)],
    [segment(3, 0, 4, 'none', 10), segment(0, 4, 0, 'none', 9), segment(2, 4, 40, 'none', 60), segment(1, 44, 1, 'none', 130)]
  ]
  await compareGpu(spec, batches, { tolerance: 0, place: 'cacheKeyValue' })
})

describe('route', () => {
  function routeSpec(nExperts: number, topK: number, softmaxOver: 'chosen' | 'all', fill?: (numbers: Numbers) => number): OpSpec {
    return {
      seed: nExperts, capacity, ranges: { x: [-4, 4] }, ...(fill && { fills: { x: fill } }),
      build: (builder) => ({ kind: 'route', x: inset(builder, 'x', nExperts), topK, softmaxOver, out: inset(builder, 'out', 2 * topK) })
    }
  }

  test.each([[1, 1], [4, 2], [5, 5], [16, 2], [63, 8], [64, 6], [65, 6], [300, 10]])('of %i experts %i', async (nExperts, topK) => {
    for (const softmaxOver of ['chosen', 'all'] as const) {
      await compareGpu(routeSpec(nExperts, topK, softmaxOver), ROWS, { tolerance: 1e-6, size: 1, place: `softmax over ${softmaxOver}` })
      // Many are equal: ties go to the lowest index.
      await compareGpu(routeSpec(nExperts, topK, softmaxOver, (numbers) => numbers.integer(-1, 1)), [segmentsOf([60])], { tolerance: 1e-6, size: 1, place: `ties, softmax over ${softmaxOver}` })
    }
  })

  test('logits that exp could not take', async () => {
    await compareGpu(routeSpec(8, 3, 'all', (numbers) => 1e4 * numbers.float(-1, 1)), [segmentsOf([50])], { tolerance: 1e-6, size: 1, place: 'large' })
  })

  test('NaN among the logits chooses no expert that is not there, and none twice', async () => {
    const rig = await createRig('webgpu', routeSpec(6, 3, 'chosen', (numbers) => (numbers.integer(0, 2) > 0 ? NaN : numbers.float(-1, 1))))
    const out = (await rig.run(segmentsOf([60]))).changed.get('out') ?? new Float32Array(0)
    expect(out.length).toBe(360)
    for (let row = 0; row < 60; row++) {
      const [a, b, c] = out.subarray(6 * row, 6 * row + 3)
      expect(a >= 0 && a < b && b < c && c < 6 && [a, b, c].every(Number.isInteger), `${a}, ${b}, ${c}`).toBe(true)
    }
  })
})

test.each([[1, 1, false], [5, 2, true], [100, 8, false], [257, 3, true]])('mixExperts of %i columns, %i chosen, accumulate %s', async (width, topK, accumulate) => {
  const spec: OpSpec = { seed: width, capacity, build: (builder) => ({
    kind: 'mixExperts', topK, accumulate, x: inset(builder, 'x', topK * width), choices: inset(builder, 'choices', 2 * topK), out: inset(builder, 'out', width)
  }) }
  await compareGpu(spec, ROWS, { tolerance: 5e-7, size: 1, place: 'mixExperts' })
})
