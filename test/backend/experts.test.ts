/** Activations, scaled sums and mixtures of experts against the float64 reference, in both builds and, for the experts' matrices, in every format. */
import { describe, expect, test } from 'vitest'
import { columns, type ProgramBuilder } from '../../src/program/builder.ts'
import { FORMATS, type WeightFormat } from '../../src/program/formats.ts'
import type { View } from '../../src/program/ops.ts'
import { BUILDS } from '../support/backends.ts'
import { createNumbers, type Numbers } from '../support/numbers.ts'
import { createRig, type OpSpec, segment, segmentsOf } from '../support/op-rig.ts'
import { compareAll } from '../support/op-sweep.ts'
import { activationRounding } from '../support/weights.ts'

const capacity = { maxRows: 104, maxLogitRows: 1, nSlots: 4, contextLength: 0 }
const ROWS = [segmentsOf([1]), segmentsOf([2]), segmentsOf([5]), segmentsOf([9])]

function inset(builder: ProgramBuilder, name: string, width: number): View {
  return columns(builder.buffer(name, 3 + width + 5), 3, width)
}

test.each(['silu', 'gelu', 'relu2'] as const)('activation %s', async (name) => {
  let error = 0
  for (const width of [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 100]) {
    for (const [hasBy, isInPlace] of [[false, false], [true, false], [true, true]]) {
      const spec: OpSpec = {
        seed: width, capacity, ranges: { x: [-6, 6] },
        build(builder) {
          const x = inset(builder, 'x', width)
          return { kind: 'activation', function: name, x, by: hasBy ? inset(builder, 'by', width) : null, out: isInPlace ? x : inset(builder, 'out', width) }
        }
      }
      error = Math.max(error, await compareAll(spec, ROWS, { tolerance: 3e-7, size: 1, place: `width ${width}, by ${hasBy}` }))
    }
  }
  console.log(`${name}: largest error ${error.toExponential(1)} of the largest value`)
})

test('scaledAdd', async () => {
  for (const width of [1, 3, 4, 5, 8, 31, 100]) {
    for (const [factor, accumulate, isInPlace] of [[0.22, true, false], [12, false, false], [1, false, false], [0.5, false, true], [-3, true, true]] as const) {
      const spec: OpSpec = {
        seed: width, capacity,
        build(builder) {
          const x = inset(builder, 'x', width)
          return { kind: 'scaledAdd', factor, accumulate, x, out: isInPlace ? x : inset(builder, 'out', width) }
        }
      }
      await compareAll(spec, ROWS, { tolerance: 2e-7, size: 1, place: `width ${width}, ${factor}, accumulate ${accumulate}` })
    }
  }
})

describe('route', () => {
  function routeSpec(nExperts: number, topK: number, softmaxOver: 'chosen' | 'all', fill?: (numbers: Numbers) => number): OpSpec {
    return {
      seed: nExperts, capacity, ranges: { x: [-4, 4] }, ...(fill && { fills: { x: fill } }),
      build: (builder) => ({ kind: 'route', x: inset(builder, 'x', nExperts), topK, softmaxOver, out: inset(builder, 'out', 2 * topK) })
    }
  }

  test.each(['chosen', 'all'] as const)('softmax over %s', async (softmaxOver) => {
    for (const [nExperts, topK] of [[1, 1], [2, 1], [4, 2], [5, 5], [16, 2], [62, 8], [64, 6]]) {
      await compareAll(routeSpec(nExperts, topK, softmaxOver), [...ROWS, segmentsOf([40, 60])], { tolerance: 1e-6, size: 1, place: `${topK} of ${nExperts}` })
      // Logits of which many are equal: ties go to the lowest index.
      await compareAll(routeSpec(nExperts, topK, softmaxOver, (numbers) => numbers.integer(-1, 1)), [segmentsOf([100])], { tolerance: 1e-6, size: 1, place: `ties, ${topK} of ${nExperts}` })
    }
  })

  test('logits that exp could not take', async () => {
    await compareAll(routeSpec(8, 3, 'all', (numbers) => 1e4 * numbers.float(-1, 1)), [segmentsOf([50])], { tolerance: 1e-6, size: 1, place: 'large' })
  })

  test.each(BUILDS)('NaN among the logits neither traps nor chooses an expert that is not there, %s', async (kind) => {
    const rig = await createRig(kind, routeSpec(6, 3, 'chosen', (numbers) => (numbers.integer(0, 2) > 0 ? NaN : numbers.float(-1, 1))))
    const out = (await rig.run(segmentsOf([60]))).changed.get('out') ?? new Float32Array(0)
    for (let row = 0; row < 60; row++) {
      const [a, b, c] = out.subarray(6 * row, 6 * row + 3)
      expect(a >= 0 && a < b && b < c && c < 6 && [a, b, c].every(Number.isInteger), `${a}, ${b}, ${c}`).toBe(true)
    }
  })
})

/** A row's choices, ascending, and weights: of the first `nUsed` experts only, so that some are chosen by many rows and some by none. */
function choicesOf(nUsed: number, topK: number): NonNullable<OpSpec['fills']>[string] {
  const chosen = new Map<number, number[]>()
  return (numbers, row, column) => {
    const j = column - 3
    if (j < 0 || j >= topK) return numbers.float(0, 1)
    // One stream of numbers for each row: the order of the calls does not matter.
    const experts = chosen.get(row) ?? shuffled(nUsed, createNumbers(row)).slice(0, topK).sort((a, b) => a - b)
    chosen.set(row, experts)
    return experts[j]
  }
}

function shuffled(count: number, numbers: Numbers): number[] {
  const values = Array.from({ length: count }, (_, i) => i)
  for (let i = count - 1; i > 0; i--) {
    const j = numbers.integer(0, i);
    [values[i], values[j]] = [values[j], values[i]]
  }
  return values
}

interface Experts {
  readonly format: WeightFormat
  readonly nExperts: number
  readonly nUsed: number
  readonly topK: number
  readonly nIn: number
  readonly nOut: number
  readonly isPerChoice: boolean
  /** Of all experts, or one for each. */
  readonly isOneTensor: boolean
}

function expertSpec({ format, nExperts, nUsed, topK, nIn, nOut, isPerChoice, isOneTensor }: Experts): OpSpec {
  return {
    seed: nOut + 10 * nIn, format, capacity, fills: { choices: choicesOf(nUsed, topK) },
    build: (builder) => ({
      kind: 'expertLinear', isPerChoice, topK, nExperts,
      x: inset(builder, 'x', isPerChoice ? topK * nIn : nIn),
      choices: inset(builder, 'choices', 2 * topK),
      weights: isOneTensor
        ? [builder.parameter('weight', [nExperts, nOut, nIn])]
        : Array.from({ length: nExperts }, (_, i) => builder.parameter(`weight${i}`, [nOut, nIn])),
      out: inset(builder, 'out', topK * nOut)
    })
  }
}

describe.each(Object.keys(FORMATS) as WeightFormat[])('expertLinear, %s', (format) => {
  const tolerance = FORMATS[format].blockElements > 1 ? activationRounding(format) : 1e-6

  test.each([1, 5, 7, 8, 9, 16, 17])('%i outputs', async (nOut) => {
    let error = 0
    for (const [nIn, topK, isPerChoice, isOneTensor] of [[32, 2, false, true], [33, 2, true, true], [64, 3, true, false], [6, 1, false, false], [96, 2, false, true]] as const) {
      const spec = expertSpec({ format, nExperts: 5, nUsed: 4, topK, nIn, nOut, isPerChoice, isOneTensor })
      error = Math.max(error, await compareAll(spec, [...ROWS, segmentsOf([30, 40])], { tolerance, size: 1, place: `${nIn} inputs, ${topK} chosen, per choice ${isPerChoice}` }))
    }
    console.log(`expertLinear ${format} ${nOut}: largest error ${error.toExponential(1)}`)
  })

  // 512 outputs are kept at a time, 32 rows gathered: assembly/abi.ts, EXPERT_PANELS and EXPERT_ROWS.
  test.each([511, 512, 513, 1030])('%i outputs: around a tile', async (nOut) => {
    const spec = expertSpec({ format, nExperts: 3, nUsed: 1, topK: 1, nIn: 32, nOut, isPerChoice: false, isOneTensor: true })
    await compareAll(spec, [31, 32, 33, 100].map((nRows) => segmentsOf([nRows])), { tolerance, size: 1, place: 'one expert for all' })
  })

  test.each(BUILDS)('the same bits for a row beside any others, %s', async (kind) => {
    const rig = await createRig(kind, expertSpec({ format, nExperts: 4, nUsed: 3, topK: 2, nIn: 64, nOut: 24, isPerChoice: false, isOneTensor: true }))
    const outOf = async (nRows: number): Promise<Float32Array> => (await rig.run(segmentsOf([nRows]))).changed.get('out') ?? new Float32Array(0)
    const whole = await outOf(100)
    for (const nRows of [1, 2, 3, 7, 50, 65]) expect(await outOf(nRows)).toEqual(whole.slice(0, nRows * 48))
  })
})

test('mixExperts', async () => {
  for (const width of [1, 3, 4, 5, 8, 31, 100]) {
    for (const topK of [1, 2, 8]) {
      for (const accumulate of [false, true]) {
        const spec: OpSpec = {
          seed: width, capacity, fills: { choices: choicesOf(9, topK) },
          build: (builder) => ({
            kind: 'mixExperts', topK, accumulate, x: inset(builder, 'x', topK * width), choices: inset(builder, 'choices', 2 * topK), out: inset(builder, 'out', width)
          })
        }
        await compareAll(spec, [...ROWS, [segment(2, 0, 3), segment(0, 3, 50)]], { tolerance: 5e-7, size: 1, place: `width ${width}, ${topK} chosen, accumulate ${accumulate}` })
      }
    }
  }
})
