/**
 * Linear in every format: one row, as in decoding, a few, as in decoding many sequences at once, and many, as in a prompt. One row and a few read
 * matrices that no cache holds, as the layers of a model follow each other: as many matrices as fill 192 MB, one after the other. Of 96 MB read again and again
 * the cache that cores share still gave a part.
 */

import { type Line, type Group, type Core, type Suite, bytes, flop } from '../suite.ts'
import { FORMATS, type WeightFormat } from '../../src/program/formats.ts'
import { workOf } from '../../src/profile.ts'
import { createOpBackend } from '../op-backend.ts'
import { createNumbers } from '../numbers.ts'
import { ENCODED_FORMATS } from '../random-model.ts'

interface MatrixShape {
  readonly nIn: number
  readonly nOut: number
  readonly nRows: number
  /** Numbers of rows between one and many that have lines. */
  readonly few?: readonly number[]
  /** Initial weights are uniform within 1 / √inputs, divided by this. */
  readonly divisor?: number
  /** Lines of weights so small that a half float of them is subnormal. */
  readonly hasTiny?: boolean
}

/** in_proj, out_proj, x_proj, dt_proj and the head of mamba-130m with their first weights. The head sees few rows: a prompt asks for its last token's logits. */
const SHAPES: readonly MatrixShape[] = [
  { nIn: 768, nOut: 3072, nRows: 128, few: [2, 3, 4, 6, 8], hasTiny: true },
  { nIn: 1536, nOut: 768, nRows: 128, divisor: Math.sqrt(24) },
  { nIn: 1536, nOut: 80, nRows: 128 },
  { nIn: 48, nOut: 1536, nRows: 128 },
  { nIn: 768, nOut: 50280, nRows: 16 }
]
const QUICK_SHAPES: readonly MatrixShape[] = [{ nIn: 64, nOut: 80, nRows: 8, few: [2, 3], hasTiny: true }, { nIn: 48, nOut: 16, nRows: 8 }]

const COLD_BYTES = 192 * 2 ** 20
const QUICK_COLD_BYTES = 2 ** 16

export const linearSuite: Suite = {
  name: 'linear',
  summary: 'vector and matrix products in every format, on the shapes of mamba-130m',
  isKernel: true,
  groups: ({ isQuick }) => (isQuick ? QUICK_SHAPES : SHAPES).map((shape) => (core) => createGroup(core, shape, isQuick ? QUICK_COLD_BYTES : COLD_BYTES))
}

async function createGroup(core: Core, shape: MatrixShape, coldBytes: number): Promise<Group> {
  const { nIn, nOut, hasTiny = false } = shape
  const lines: Line[] = []
  for (const format of [...ENCODED_FORMATS, 'q5_k'] as const) lines.push(...await linesOf(core, format, shape, coldBytes))
  if (hasTiny) {
    for (const format of ['f16', 'q8_0'] as const) {
      const tiny = await linesOf(core, format, { ...shape, few: [], divisor: TINY }, coldBytes)
      lines.push(...tiny.map((line) => ({ ...line, name: `${line.name}, halves subnormal`, against: line.name })))
    }
  }
  // Alike stands by alike.
  lines.sort((a, b) => parseInt(b.name, 10) - parseInt(a.name, 10))
  return { name: `${nIn} × ${nOut}`, lines, workingBytes: coldBytes }
}

/** Weights of some 1e-5: as halves they are subnormal, and so is their scale in blocks. */
const TINY = 1000

async function linesOf(core: Core, format: WeightFormat, { nIn, nOut, nRows, few = [], divisor = 1 }: MatrixShape, coldBytes: number): Promise<Line[]> {
  const { blockElements, blockBytes } = FORMATS[format]
  if (nIn % blockElements !== 0) return []
  const matrixBytes = (nIn * nOut * blockBytes) / blockElements
  const nMatrices = Math.ceil(coldBytes / matrixBytes)
  const { backend, run } = await createOpBackend((builder) => {
    const x = builder.buffer('x', nIn)
    const out = builder.buffer('out', nOut)
    for (let i = 0; i < nMatrices; i++) {
      builder.add({ kind: 'linear', x, out, bias: null, accumulate: false, weight: builder.parameter(`W${i}`, [nOut, nIn]) })
    }
  }, { core, maxRows: nRows, format, values: { W: (values) => createNumbers(3).uniform(values, 1 / Math.sqrt(nIn) / divisor) } })
  const formatOf = (): WeightFormat => format
  const [op] = backend.program.ops
  const operations = 2 * nIn * nOut
  return [
    {
      name: `${nRows} rows ${format}`, run: () => run(nRows, 1),
      amounts: [flop(nRows * operations), bytes(matrixBytes)], works: [workOf(op, nRows, formatOf)]
    },
    ...[1, ...few].map((count): Line => ({
      name: `${count} ${count === 1 ? 'row' : 'rows'} ${format}`, run: () => run(count, nMatrices),
      amounts: [flop(nMatrices * count * operations), bytes(nMatrices * matrixBytes)], works: Array.from({ length: nMatrices }, () => workOf(op, count, formatOf))
    }))
  ]
}
