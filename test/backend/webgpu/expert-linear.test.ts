/** Products with the matrices of chosen experts on a GPU against the float64 reference. */
import { describe, expect, test } from 'vitest'
import { columns, type ProgramBuilder } from '../../../src/program/builder.ts'
import { FORMATS, type WeightFormat } from '../../../src/program/formats.ts'
import type { View } from '../../../src/program/ops.ts'
import { createNumbers } from '../../support/numbers.ts'
import { type OpSpec, segment } from '../../support/op-rig.ts'
import { compareGpu } from '../../support/op-sweep.ts'

function inset(builder: ProgramBuilder, name: string, width: number): View {
  return columns(builder.buffer(name, 3 + width + 5), 3, width)
}

interface Experts {
  readonly format: WeightFormat
  readonly topK: number
  readonly nIn: number
  readonly nOut: number
  readonly isPerChoice: boolean
  /** Of all experts, or one for each. */
  readonly isOneTensor: boolean
  /** The others are chosen by no row. */
  readonly nUsed?: number
}

const N_EXPERTS = 5

function spec({ format, topK, nIn, nOut, isPerChoice, isOneTensor, nUsed = 4 }: Experts): OpSpec {
  return {
    seed: nOut + 10 * nIn, format, capacity: { maxRows: 80, maxLogitRows: 1, nSlots: 1, contextLength: 0 },
    fills: {
      choices(numbers, row, column) {
        if (column < 3 || column >= 3 + topK) return numbers.float(0, 1)
        return chosen(row, topK, nUsed)[column - 3]
      }
    },
    build: (builder) => ({
      kind: 'expertLinear', isPerChoice, topK, nExperts: N_EXPERTS,
      x: inset(builder, 'x', isPerChoice ? topK * nIn : nIn), choices: inset(builder, 'choices', 2 * topK),
      weights: isOneTensor
        ? [builder.parameter('weight', [N_EXPERTS, nOut, nIn])]
        : Array.from({ length: N_EXPERTS }, (_, i) => builder.parameter(`weight${i}`, [nOut, nIn])),
      out: inset(builder, 'out', topK * nOut)
    })
  }
}

/** Ascending, of the first nUsed experts: every row its own. */
function chosen(row: number, topK: number, nUsed: number): number[] {
  const numbers = createNumbers(row)
  const left = Array.from({ length: nUsed }, (_, i) => i)
  while (left.length > topK) left.splice(numbers.integer(0, left.length - 1), 1)
  return left
}

// One at a time up to 32 choices, and beyond in tiles of 32 rows.
const ROWS = [1, 2, 7, 16, 17, 33, 80]

describe.each(Object.keys(FORMATS) as WeightFormat[])('expertLinear, %s', (format) => {
  test('inputs, outputs and choices', async () => {
    const wide = FORMATS[format].blockElements
    const forms = [
      { nIn: Math.max(wide, 32), nOut: 17, topK: 2, isPerChoice: false, isOneTensor: true },
      { nIn: wide === 1 ? 33 : wide, nOut: 70, topK: 3, isPerChoice: true, isOneTensor: false }
    ]
    for (const form of forms) {
      const error = await compareGpu(spec({ format, ...form }), ROWS.map((nRows) => [segment(0, 0, nRows)]), { tolerance: 2e-6, size: 1, place: JSON.stringify(form) })
      expect(error).toBeLessThan(2e-6)
    }
  })
})

test('one expert for all rows, none for the others', async () => {
  const form = { format: 'f32', nIn: 40, nOut: 65, topK: 1, isPerChoice: false, isOneTensor: true, nUsed: 1 } as const
  await compareGpu(spec(form), [[segment(0, 0, 3)], [segment(0, 0, 80)]], { tolerance: 2e-6, size: 1, place: 'one expert' })
})
