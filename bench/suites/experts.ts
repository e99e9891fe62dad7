/** The products of a mixture of experts: a token, which reads the matrices of its own experts alone, and a chunk, whose rows are gathered by expert. */

import { workOf } from '../../src/profile.ts'
import type { WeightFormat } from '../../src/program/formats.ts'
import { createNumbers } from '../numbers.ts'
import { createOpBackend } from '../op-backend.ts'
import { bytes, type Core, flop, type Group, type Line, type Suite } from '../suite.ts'

interface ExpertShape {
  readonly nExperts: number
  readonly topK: number
  readonly nIn: number
  readonly nOut: number
  readonly nRows: number
}

/** A quarter of the experts of Granite 4 H Tiny and of those that it chooses: as many bytes as the limit of reading is taken with. */
const SHAPE: ExpertShape = { nExperts: 16, topK: 2, nIn: 1536, nOut: 1024, nRows: 128 }
const QUICK_SHAPE: ExpertShape = { nExperts: 4, topK: 2, nIn: 64, nOut: 24, nRows: 8 }
const FORMATS = ['f32', 'f16', 'q8_0', 'q4_0'] as const

export const expertsSuite: Suite = {
  name: 'experts',
  summary: "the products of a mixture of experts: a token's, and a chunk's gathered by expert",
  isKernel: true,
  groups: ({ isQuick }) => [(core) => createGroup(core, isQuick ? QUICK_SHAPE : SHAPE)]
}

async function createGroup(core: Core, shape: ExpertShape): Promise<Group> {
  const lines: Line[] = []
  for (const format of FORMATS) lines.push(...await linesOf(core, shape, format))
  const { nExperts, nIn, nOut, topK } = shape
  return { name: `${topK} of ${nExperts}, ${nIn} × ${nOut}`, lines, workingBytes: 4 * nExperts * nIn * nOut }
}

async function linesOf(core: Core, { nExperts, topK, nIn, nOut, nRows }: ExpertShape, format: WeightFormat): Promise<Line[]> {
  const numbers = createNumbers(7)
  const { backend, run } = await createOpBackend((builder) => {
    // One op after the other on other experts, so that a token finds none of them in a cache.
    for (let i = 0; i < nExperts / topK; i++) {
      builder.add({
        kind: 'expertLinear', isPerChoice: false, topK, nExperts, x: builder.buffer('x', nIn), choices: builder.buffer(`choices${i}`, 2 * topK),
        weights: [builder.parameter('W', [nExperts, nOut, nIn])], out: builder.buffer('out', topK * nOut)
      })
    }
  }, {
    core, maxRows: nRows, format,
    values: {
      choices(values) {
        for (let row = 0; row < nRows; row++) {
          const first = row === 0 ? 0 : numbers.below(nExperts - topK + 1)
          for (let j = 0; j < topK; j++) values[2 * topK * row + j] = first + j
        }
      }
    }
  })
  // The first row of op i has experts from i · topK on.
  backend.begin({ tokens: new Int32Array(1), segments: [{ slot: 0, position: 0, firstRow: 0, nRows: 1, logits: 'none' }] })
  for (const [i, op] of backend.program.ops.entries()) {
    if (op.kind === 'expertLinear') backend.writeView(op.choices, Float32Array.from({ length: 2 * topK }, (_, j) => i * topK + j))
  }
  const line = (rows: number, nOps: number): Line => {
    const works = backend.program.ops.slice(0, nOps).map((op) => workOf(op, rows, () => format))
    const sum = (amount: (work: (typeof works)[number]) => number | undefined): number => works.reduce((total, work) => total + (amount(work) ?? 0), 0)
    return {
      name: `${rows} ${rows === 1 ? 'row' : 'rows'} ${format}`, run: () => run(rows, nOps),
      amounts: [flop(2 * nOps * rows * topK * nIn * nOut), bytes(sum(({ byte }) => byte))], works
    }
  }
  return [line(1, backend.program.ops.length), line(nRows, 1)]
}
