/** The ops between the products and the scan: convolution, norm, embedding. In the shapes of mamba-130m. */

import { workOf, type Work } from '../../src/profile.ts'
import { createNumbers } from '../numbers.ts'
import { createOpBackend, type OpBackend } from '../op-backend.ts'
import { ENCODED_FORMATS } from '../random-model.ts'
import { bytes, type Core, elements, type Group, type Line, type Suite } from '../suite.ts'

interface OpShape {
  readonly width: number
  readonly nRows: number
  /** Ops of one kind, one after the other: one row of each is what a token takes. */
  readonly nOps: number
}

export const conv1dSuite: Suite = {
  name: 'conv1d',
  summary: 'the causal convolution of 4 taps and its silu; quiet inputs',
  isKernel: true,
  groups: ({ isQuick }) => [(core) => convGroup(core, isQuick ? { width: 24, nRows: 8, nOps: 2 } : { width: 1536, nRows: 128, nOps: 24 })]
}

export const rmsNormSuite: Suite = {
  name: 'rmsNorm',
  summary: 'the norm of rows',
  isKernel: true,
  groups: ({ isQuick }) => [(core) => normGroup(core, isQuick ? { width: 24, nRows: 8, nOps: 2 } : { width: 768, nRows: 128, nOps: 25 })]
}

export const embedSuite: Suite = {
  name: 'embed',
  summary: 'rows of the embedding, in every format',
  isKernel: true,
  groups: ({ isQuick }) => [(core) => embedGroup(core, isQuick ? { vocabSize: 64, width: 64, nRows: 8 } : { vocabSize: 50280, width: 768, nRows: 128 })]
}

async function convGroup(core: Core, shape: OpShape): Promise<Group> {
  const numbers = createNumbers(8)
  const create = (fillX: (values: Float32Array) => void): Promise<OpBackend> =>
    createOpBackend((builder) => {
      const x = builder.buffer('x', shape.width)
      const out = builder.buffer('out', shape.width)
      for (let i = 0; i < shape.nOps; i++) {
        builder.add({
          kind: 'conv1d', x, out, activation: 'silu', weight: builder.parameter(`W${i}`, [shape.width, 1, 4]),
          bias: builder.parameter(`bias${i}`, [shape.width]), state: builder.state(`conv${i}`, [shape.width, 3])
        })
      }
    }, { core, maxRows: shape.nRows, values: { x: fillX } })
  const [rows, row] = linesOf(await create((values) => numbers.uniform(values, 1)), shape)
  const [quiet] = linesOf(await create((values) => numbers.uniform(values, 1e-38)), shape)
  return { name: `${shape.width} channels`, lines: [rows, { ...quiet, name: `${quiet.name}, x subnormal`, against: rows.name }, row] }
}

async function normGroup(core: Core, shape: OpShape): Promise<Group> {
  const norm = await createOpBackend((builder) => {
    const x = builder.buffer('x', shape.width)
    const out = builder.buffer('out', shape.width)
    for (let i = 0; i < shape.nOps; i++) builder.add({ kind: 'rmsNorm', x, gate: null, out, eps: 1e-5, groupWidth: shape.width, weight: builder.parameter(`W${i}`, [shape.width]) })
  }, { core, maxRows: shape.nRows })
  return { name: `width ${shape.width}`, lines: linesOf(norm, shape) }
}

/** A chunk through one op, and a row through all. */
function linesOf({ backend, run }: OpBackend, { width, nRows, nOps }: OpShape): [Line, Line] {
  const works = (rows: number, count: number): Work[] => backend.program.ops.slice(0, count).map((op) => workOf(op, rows, () => 'f32'))
  return [
    { name: `${nRows} rows`, run: () => run(nRows, 1), amounts: [elements(nRows * width)], works: works(nRows, 1) },
    { name: '1 row', run: () => run(1, nOps), amounts: [elements(nOps * width)], works: works(1, nOps) }
  ]
}

async function embedGroup(core: Core, { vocabSize, width, nRows }: { vocabSize: number; width: number; nRows: number }): Promise<Group> {
  const lines: Line[] = []
  for (const format of ENCODED_FORMATS) {
    const { backend, run } = await createOpBackend((builder) => {
      builder.add({ kind: 'embed', weight: builder.parameter('W', [vocabSize, width]), out: builder.buffer('out', width) })
    }, { core, maxRows: nRows, format, vocabSize })
    const work = workOf(backend.program.ops[0], nRows, () => format)
    lines.push({ name: `${nRows} rows ${format}`, run: () => run(nRows, 1), amounts: [elements(nRows * width), bytes(work.byte ?? 0)], works: [work] })
  }
  return { name: `${vocabSize} × ${width}`, lines }
}
