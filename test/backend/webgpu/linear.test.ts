/** Products with matrices of every format on a GPU against the float64 reference, around the sizes of tiles, teams and batches. */
import { describe, expect, test } from 'vitest'
import { FORMATS, type WeightFormat } from '../../../src/program/formats.ts'
import { columns, type ProgramBuilder } from '../../../src/program/builder.ts'
import type { View } from '../../../src/program/ops.ts'
import { type OpSpec, segment } from '../../support/op-rig.ts'
import { compareGpu } from '../../support/op-sweep.ts'

const FORMAT_NAMES = Object.keys(FORMATS) as readonly WeightFormat[]
const capacity = { maxRows: 72, maxLogitRows: 72, nSlots: 1, contextLength: 0 }

function inset(builder: ProgramBuilder, name: string, width: number): View {
  return columns(builder.buffer(name, 3 + width + 2), 3, width)
}

interface Form {
  readonly format: WeightFormat
  readonly nOut: number
  readonly nIn: number
  readonly isPlain?: boolean
}

/** With a bias, added to what is there, on views within wider buffers; or without all that. */
function linearSpec({ format, nOut, nIn, isPlain = false }: Form): OpSpec {
  return {
    seed: 100 * nOut + nIn, format, capacity,
    build: (builder) => ({
      kind: 'linear', accumulate: !isPlain, weight: builder.parameter('weight', [nOut, nIn]),
      x: isPlain ? builder.buffer('x', nIn) : inset(builder, 'x', nIn), bias: isPlain ? null : builder.parameter('bias', [nOut]),
      out: isPlain ? builder.buffer('out', nOut) : inset(builder, 'out', nOut)
    })
  }
}

const batchesOf = (rows: readonly number[]) => rows.map((nRows) => [segment(0, 0, nRows)])

const ROWS = [1, 2, 3, 4, 5, 8, 9, 63, 64, 65]

describe.each(FORMAT_NAMES)('linear, %s', (format) => {
  const block = FORMATS[format].blockElements
  const inputs = block === 256 ? [256, 512] : block === 32 ? [32, 96, 480] : [1, 3, 30, 33, 259, 512]
  test('all numbers of rows', async () => {
    for (const nIn of inputs.slice(-2)) await compareGpu(linearSpec({ format, nOut: 33, nIn }), batchesOf(ROWS), { tolerance: 1e-6, size: 1, place: `${nIn} inputs` })
  })
  test('outputs and inputs around the tiles', async () => {
    for (const [i, nOut] of [1, 7, 31, 63, 64, 65, 130].entries()) {
      const nIn = inputs[i % inputs.length]
      await compareGpu(linearSpec({ format, nOut, nIn, isPlain: i % 2 === 0 }), batchesOf([1, 6, 33]), { tolerance: 1e-6, size: 1, place: `${nOut} outputs, ${nIn} inputs` })
    }
  })
})

test('long rows: inputs that come to workgroup memory in pieces', async () => {
  for (const [format, nIn] of [['f32', 5001], ['q8_0', 5120]] as const) {
    const error = await compareGpu(linearSpec({ format, nOut: 40, nIn }), batchesOf([1, 4, 8, 20]), { tolerance: 3e-6, size: 1, place: `${nIn} inputs` })
    expect(error).toBeLessThan(3e-6)
  }
})
