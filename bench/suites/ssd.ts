/**
 * Mamba-2's scan in the shapes of mamba2-130m and mamba2-2.7b: the chunk of a prompt that one forward takes, in both forms; a token; a state that
 * fades. Each layer has its own state, as in a model.
 */

import type { SsdForm } from '../../src/backend/backend.ts'
import { workOf } from '../../src/profile.ts'
import { columns } from '../../src/program/builder.ts'
import { createNumbers } from '../numbers.ts'
import { createOpBackend, type OpBackend } from '../op-backend.ts'
import { type Core, elements, type Group, type Line, type Suite } from '../suite.ts'

interface SsdShape {
  readonly nHeads: number
  readonly headDim: number
  readonly dState: number
  /** Of the lines of one token. */
  readonly nLayers: number
  readonly nRows: number
}

const SHAPES: readonly SsdShape[] = [
  { nHeads: 24, headDim: 64, dState: 128, nLayers: 24, nRows: 256 },
  { nHeads: 80, headDim: 64, dState: 128, nLayers: 8, nRows: 256 }
]
const QUICK_SHAPE: SsdShape = { nHeads: 4, headDim: 8, dState: 16, nLayers: 2, nRows: 40 }
/** Of a segment in a batch, and of a prompt's rest. */
const FEW_ROWS = 16

export const ssdSuite: Suite = {
  name: 'ssd',
  summary: "Mamba-2's scan, token by token and by chunks; a state that fades",
  isKernel: true,
  groups: ({ isQuick }) => (isQuick ? [QUICK_SHAPE] : SHAPES).map((shape) => (core) => createGroup(core, shape))
}

async function createGroup(core: Core, shape: SsdShape): Promise<Group> {
  const { nHeads, headDim, dState, nLayers, nRows } = shape
  const numbers = createNumbers(5)
  const faded = new Float32Array(nHeads * headDim * dState)
  numbers.uniform(faded, 1e-37)
  const line = (name: string, { rows, layers }: { rows: number; layers: number }, run: () => void): Line => ({
    name, run, amounts: [elements(rows * layers * nHeads * headDim * dState)],
    works: loud.backend.program.ops.slice(0, layers).map((op) => workOf(op, rows, () => 'f32'))
  })
  const loud = await createScan(core, shape, { fillX: (values) => numbers.uniform(values, 1) })
  // One layer: more states would take longer to copy than to run.
  const oneLayer = { ...shape, nLayers: 1 }
  const chunked = await createScan(core, oneLayer, { ssd: 'chunked', fillX: (values) => numbers.uniform(values, 1) })
  const silentLine = async (name: string, ssd: SsdForm, against: string): Promise<Line> => {
    const silent = await createScan(core, oneLayer, { ssd, fillX: (values) => void values.fill(0) })
    const run = (): void => {
      // Copies at once: only the promise comes later.
      void silent.backend.writeState(0, 0, faded)
      silent.run(nRows, 1)
    }
    return { ...line(name, { rows: nRows, layers: 1 }, run), against }
  }
  const [many, few] = [`${nRows} rows`, `${FEW_ROWS} rows`]
  return {
    name: `${nHeads} heads × ${headDim} channels × ${dState} states`,
    lines: [
      line(many, { rows: nRows, layers: 1 }, () => loud.run(nRows, 1)),
      { ...line(`${many}, chunked`, { rows: nRows, layers: 1 }, () => chunked.run(nRows, 1)), against: many },
      line(few, { rows: FEW_ROWS, layers: 1 }, () => loud.run(FEW_ROWS, 1)),
      { ...line(`${few}, chunked`, { rows: FEW_ROWS, layers: 1 }, () => chunked.run(FEW_ROWS, 1)), against: few },
      await silentLine(`${many}, x is 0, state fades`, 'recurrent', many),
      await silentLine(`${many}, x is 0, state fades, chunked`, 'chunked', `${many}, chunked`),
      line('1 row', { rows: 1, layers: nLayers }, () => loud.run(1, nLayers))
    ]
  }
}

interface ScanInput {
  readonly ssd?: SsdForm
  readonly fillX: (values: Float32Array) => void
}

function createScan(core: Core, { nHeads, headDim, dState, nLayers, nRows }: SsdShape, { ssd = 'recurrent', fillX }: ScanInput): Promise<OpBackend> {
  const numbers = createNumbers(6)
  return createOpBackend((builder) => {
    const [x, out] = ['x', 'y'].map((name) => builder.buffer(name, nHeads * headDim))
    const BC = builder.buffer('BC', 2 * dState)
    for (let i = 0; i < nLayers; i++) {
      builder.add({
        kind: 'ssdScan', x, out, dState, dtLimit: [0, Infinity], dt: builder.buffer('dt', nHeads),
        A: builder.parameter(`A${i}`, [nHeads]), B: columns(BC, 0, dState), C: columns(BC, dState, dState),
        D: builder.parameter(`D${i}`, [nHeads]), dtBias: builder.parameter(`dtBias${i}`, [nHeads]), state: builder.state(`ssm${i}`, [nHeads, headDim, dState])
      })
    }
  }, {
    core, maxRows: nRows, ssd,
    values: {
      x: fillX,
      A: (values) => values.forEach((_, i) => (values[i] = -(1 + (15 * i) / nHeads))),
      // softplus of it is a dt from 0.001 to 0.1.
      dtBias: (values) => values.forEach((_, i) => (values[i] = Math.log(Math.expm1(numbers.logUniform(0.001, 0.1)))))
    }
  })
}
