/** Mamba-2's scan in the shape of mamba2-130m: a chunk of a prompt, a token, a state that fades. Each layer has its own state, as in a model. */

import { workOf } from '../../src/profile.ts'
import { columns } from '../../src/program/builder.ts'
import { createNumbers } from '../numbers.ts'
import { createOpBackend, type OpBackend } from '../op-backend.ts'
import { type Core, elements, type Group, type Line, type Suite } from '../suite.ts'

interface SsdShape {
  readonly nHeads: number
  readonly headDim: number
  readonly dState: number
  readonly nLayers: number
  readonly nRows: number
}

const SHAPE: SsdShape = { nHeads: 24, headDim: 64, dState: 128, nLayers: 24, nRows: 128 }
const QUICK_SHAPE: SsdShape = { nHeads: 4, headDim: 8, dState: 16, nLayers: 2, nRows: 8 }

export const ssdSuite: Suite = {
  name: 'ssd',
  summary: "Mamba-2's scan: a chunk, a token, a state that fades",
  isKernel: true,
  groups: ({ isQuick }) => [(core) => createGroup(core, isQuick ? QUICK_SHAPE : SHAPE)]
}

async function createGroup(core: Core, shape: SsdShape): Promise<Group> {
  const { nHeads, headDim, dState, nLayers, nRows } = shape
  const numbers = createNumbers(5)
  const loud = await createScan(core, shape, (values) => numbers.uniform(values, 1))
  // One layer: more states would take longer to copy than to run.
  const silent = await createScan(core, { ...shape, nLayers: 1 }, (values) => void values.fill(0))
  const faded = new Float32Array(silent.backend.program.stateSize)
  numbers.uniform(faded, 1e-37)
  const line = (name: string, { rows, layers }: { rows: number; layers: number }, run: () => void): Line => ({
    name, run, amounts: [elements(rows * layers * nHeads * headDim * dState)],
    works: loud.backend.program.ops.slice(0, layers).map((op) => workOf(op, rows, () => 'f32'))
  })
  // Copies at once: only the promise comes later.
  const restore = (): void => void silent.backend.writeState(0, 0, faded)
  const chunk = { rows: nRows, layers: 1 }
  return {
    name: `${nHeads} heads × ${headDim} channels × ${dState} states`,
    lines: [
      line(`${nRows} rows`, chunk, () => loud.run(nRows, 1)),
      { ...line(`${nRows} rows, x is 0, state fades`, chunk, () => { restore(); silent.run(nRows, 1) }), against: `${nRows} rows` },
      line('1 row', { rows: 1, layers: nLayers }, () => loud.run(1, nLayers))
    ]
  }
}

function createScan(core: Core, { nHeads, headDim, dState, nLayers, nRows }: SsdShape, fillX: (values: Float32Array) => void): Promise<OpBackend> {
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
    core, maxRows: nRows,
    values: {
      x: fillX,
      A: (values) => values.forEach((_, i) => (values[i] = -(1 + (15 * i) / nHeads))),
      // softplus of it is a dt from 0.001 to 0.1.
      dtBias: (values) => values.forEach((_, i) => (values[i] = Math.log(Math.expm1(numbers.logUniform(0.001, 0.1)))))
    }
  })
}
