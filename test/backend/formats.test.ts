/** Linear and embed on weights of every format against float64 on the same numbers, in all builds. */
import { describe, expect, test } from 'vitest'
import type { Segment } from '../../src/backend/backend.ts'
import { pack, packedBytes } from '../../src/backend/wasm/packing.ts'
import { columns, type ProgramBuilder } from '../../src/program/builder.ts'
import { isBlockFormat } from '../../src/ggml-blocks.ts'
import type { WeightFormat } from '../../src/program/formats.ts'
import type { View } from '../../src/program/ops.ts'
import { BUILDS } from '../support/backends.ts'
import { activationLimit, activationRounding, BLOCK_FORMATS, blockElementsOf } from '../support/weights.ts'
import { compareSnapshots, createRig, expectSameSnapshot, type OpSpec, segment } from '../support/op-rig.ts'

const DENSE = ['bf16', 'f16'] as const
const QUANTIZED = BLOCK_FORMATS
const ROWS = [1, 2, 3, 4, 5, 8, 63, 64, 65, 69]
const OUTPUTS = [1, 7, 8, 9, 16, 17, 24, 40]
const INSET = 3

async function compareAll(spec: OpSpec, batches: readonly (readonly Segment[])[], limits: { tolerance: number, size?: number, place: string }): Promise<number> {
  const [reference, scalar, simd, dot] = await Promise.all((['reference', ...BUILDS, 'simd-dot'] as const).map((kind) => createRig(kind, spec)))
  let error = 0
  for (const segments of batches) {
    const [want, fromScalar, fromSimd] = [await reference.run(segments), await scalar.run(segments), await simd.run(segments)]
    const place = `${limits.place}, ${segments[0].nRows} rows`
    error = Math.max(error, compareSnapshots(fromScalar, want, { ...limits, place: `${place}, scalar` }))
    expectSameSnapshot(fromSimd, fromScalar, `${place}, simd beside scalar`)
    expectSameSnapshot(await dot.run(segments), fromScalar, `${place}, simd-dot beside scalar`)
  }
  return error
}

const batches = ROWS.map((nRows) => [segment(0, 0, nRows)])

interface LinearForm {
  readonly format: WeightFormat
  readonly nOut: number
  readonly nIn: number
  readonly hasBias: boolean
  readonly accumulate: boolean
}

function linearSpec({ format, nOut, nIn, hasBias, accumulate }: LinearForm, fill?: NonNullable<OpSpec['fills']>[string]): OpSpec {
  const x = (builder: ProgramBuilder): View => columns(builder.buffer('x', INSET + nIn + 2), INSET, nIn)
  return {
    seed: 100 * nOut + nIn, format, capacity: { maxRows: 72, maxLogitRows: 72, nSlots: 1, contextLength: 0 },
    ...(fill ? { fills: { x: fill } } : {}),
    build: (builder) => ({
      kind: 'linear', accumulate, x: x(builder), weight: builder.parameter('weight', [nOut, nIn]),
      bias: hasBias ? builder.parameter('bias', [nOut]) : null, out: builder.buffer('out', nOut)
    })
  }
}

const FLAGS = [[false, false], [true, true]] as const

describe.each(DENSE)('linear, %s', (format) => {
  test.each(OUTPUTS)('%i outputs', async (nOut) => {
    let error = 0
    // Odd numbers of inputs are kept in f32: the formats keep pairs together.
    for (const nIn of [1, 2, 3, 6, 8, 34]) {
      for (const [hasBias, accumulate] of FLAGS) {
        const place = `${nIn} inputs, bias and accumulate ${hasBias}`
        error = Math.max(error, await compareAll(linearSpec({ format, nOut, nIn, hasBias, accumulate }), batches, { tolerance: 1e-6, size: 1, place }))
      }
    }
    console.log(`linear ${format} ${nOut}: largest error ${error.toExponential(1)}`)
  })
})

/** Multiples of 1 / (limit + 1) with one of ±limit among them in each block of 16: as such integers they are what they were. */
const exactInputs = (limit: number): NonNullable<OpSpec['fills']>[string] => (numbers, _row, column) => {
  const k = (column - INSET + 16) % 16
  return (k === 7 ? (numbers.integer(0, 1) * 2 - 1) * limit : numbers.integer(-limit, limit)) / (limit + 1)
}

describe.each(QUANTIZED)('linear, %s', (format) => {
  const block = blockElementsOf(format)
  // The long ones would take minutes with all outputs and rows.
  const limit = activationLimit(format)
  const rounding = activationRounding(format)
  const few = block === 32 ? batches : [1, 4, 6].map((nRows) => [segment(0, 0, nRows)])

  test.each(OUTPUTS)('%i outputs, inputs that the integers hold', async (nOut) => {
    let error = 0
    // 33 inputs are no whole blocks, nor are 32 of those of 256: f32.
    for (const nIn of block === 32 ? [32, 33, 96] : [32, 256, 512]) {
      for (const [hasBias, accumulate] of FLAGS) {
        const place = `${nIn} inputs, bias and accumulate ${hasBias}`
        error = Math.max(error, await compareAll(linearSpec({ format, nOut, nIn, hasBias, accumulate }, exactInputs(limit)), few, { tolerance: 1e-6, size: 1, place }))
      }
    }
    console.log(`linear ${format} ${nOut}: largest error ${error.toExponential(1)}`)
  })

  test('any inputs: half a step of the integers in each', async () => {
    const nIn = Math.max(96, block)
    const error = await compareAll(linearSpec({ format, nOut: 24, nIn, hasBias: false, accumulate: false }), few, { tolerance: rounding, size: 1, place: `${nIn} inputs` })
    console.log(`linear ${format}, any inputs: largest error ${error.toExponential(1)}`)
    // The inputs are quantized indeed: the test of exact ones means something.
    expect(error).toBeGreaterThan(1e-6)
  })

  // From 2048 inputs on a row alone reads four panels at once, where it multiplies bytes: 71 outputs are two times four and one more.
  test('a long row', async () => {
    const spec = linearSpec({ format, nOut: 71, nIn: 2048, hasBias: true, accumulate: true }, exactInputs(limit))
    await compareAll(spec, [[segment(0, 0, 1)], [segment(0, 0, 3)]], { tolerance: 1e-6, size: 1, place: 'a long row' })
  })

  test('inputs of zero, and tiny and large ones', async () => {
    for (const [name, size, tolerance] of [['zero', 0, 0], ['tiny', 1e-20, rounding], ['large', 1e20, rounding], ['beyond the smallest', 1e-36, rounding]] as const) {
      const spec = linearSpec({ format, nOut: 9, nIn: Math.max(64, block), hasBias: false, accumulate: false }, (numbers) => size * numbers.float(-1, 1))
      // Below 1e-25 a block counts as zero: nothing larger than its products may come of it.
      await compareAll(spec, [[segment(0, 0, 5)]], { tolerance, size: name === 'beyond the smallest' ? 1e-28 : 1e-30, place: name })
    }
  })
})

describe.each([...DENSE, ...QUANTIZED])('embed, %s', (format) => {
  test.each([1, 7, 8, 9, 20])('%i ids', async (vocabSize) => {
    for (const width of [1, 2, 6, 32, 64, 96, 256, 512]) {
      if (isBlockFormat(format) && width % blockElementsOf(format) !== 0) continue
      const spec: OpSpec = {
        seed: width, format, vocabSize, capacity: { maxRows: 20, maxLogitRows: 20, nSlots: 1, contextLength: 0 },
        build: (builder) => ({ kind: 'embed', weight: builder.parameter('weight', [vocabSize, width]), out: builder.buffer('out', width) })
      }
      expect(await compareAll(spec, [[segment(0, 0, 1)], [segment(0, 0, 19)]], { tolerance: 0, place: `width ${width}` })).toBe(0)
    }
  })
})

describe('a matrix in panels, written in pieces of any size', () => {
  test.each(['f32', 'bf16', 'f16'] as const)('%s: element (row, input) where the panel has it', (format) => {
    const [nOut, nIn] = [11, 6]
    const layout = { kind: 'panels', format, form: format, nMatrices: 1, nOut, nIn } as const
    const group = format === 'f32' ? 1 : 2
    // Each value is its own number: row-major.
    const numbers = Array.from({ length: nOut * nIn }, (_, i) => i + 1)
    const values = format === 'f32' ? Float32Array.from(numbers) : Uint16Array.from(numbers)
    for (const pieceSize of [1, 3, 4, 7, 13, nOut * nIn]) {
      const bytes = new Uint8Array(packedBytes(layout))
      for (let first = 0; first < values.length; first += pieceSize) pack(layout, bytes, values.subarray(first, first + pieceSize), first)
      const packed = format === 'f32' ? new Float32Array(bytes.buffer) : new Uint16Array(bytes.buffer)
      const wanted = Array.from({ length: packed.length }, (_, at) => {
        const [panel, inPanel] = [Math.floor(at / (8 * nIn)), at % (8 * nIn)]
        const row = 8 * panel + (Math.floor(inPanel / group) % 8)
        const input = group * Math.floor(inPanel / (8 * group)) + (inPanel % group)
        return row < nOut ? row * nIn + input + 1 : 0
      })
      expect([...packed], `pieces of ${pieceSize}`).toEqual(wanted)
    }
  })
})
