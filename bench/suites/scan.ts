/**
 * The selective scan in the shape of mamba-130m: a chunk of a prompt, a token, and inputs that die away. Each layer has its own A and its
 * own state, so that a token finds no more in the caches than it does in a model.
 */

import { workOf } from '../../src/profile.ts'
import { columns } from '../../src/program/builder.ts'
import { createNumbers } from '../numbers.ts'
import { createOpBackend, type OpBackend } from '../op-backend.ts'
import { type Core, elements, type Group, type Line, type Suite } from '../suite.ts'
import { exp2Line } from './math.ts'

interface ScanShape {
  readonly dInner: number
  readonly dState: number
  readonly nLayers: number
  readonly nRows: number
}

const SHAPE: ScanShape = { dInner: 1536, dState: 16, nLayers: 24, nRows: 128 }
const QUICK_SHAPE: ScanShape = { dInner: 24, dState: 16, nLayers: 2, nRows: 8 }

export const scanSuite: Suite = {
  name: 'scan',
  summary: 'the selective scan: a chunk, a token, quiet inputs; against exp2 alone',
  isKernel: true,
  groups: ({ isQuick }) => [(core) => createGroup(core, isQuick ? QUICK_SHAPE : SHAPE)]
}

async function createGroup(core: Core, shape: ScanShape): Promise<Group> {
  const { dInner, dState, nLayers, nRows } = shape
  const numbers = createNumbers(5)
  const loud = await createScan(core, shape, (values) => numbers.uniform(values, 1))
  const silent = await createScan(core, shape, (values) => void values.fill(0))
  const tiny = await createScan(core, shape, (values) => numbers.uniform(values, 1e-38))
  // Around the smallest normal number, 1.2e-38: what the states of a text hold that has been silent for long.
  const faded = new Float32Array(silent.backend.program.stateSize)
  numbers.uniform(faded, 1e-37)
  const works = (rows: number, layers: number) => loud.backend.program.ops.slice(0, layers).map((op) => workOf(op, rows, () => 'f32'))
  const chunk = (name: string, run: () => void, against: string): Line => ({
    name, run, amounts: [elements(nRows * dInner * dState)], works: works(nRows, 1), against
  })
  const step = (name: string, run: () => void, against: string): Line => ({
    name, run, amounts: [elements(nLayers * dInner * dState)], works: works(1, nLayers), against
  })
  const exp2 = exp2Line(core)
  return {
    name: `${dInner} channels × ${dState} states`,
    lines: [
      exp2,
      chunk(`${nRows} rows`, () => loud.run(nRows, 1), exp2.name),
      chunk(`${nRows} rows, x is 0, state fades`, () => { restore(silent, faded); silent.run(nRows, 1) }, `${nRows} rows`),
      chunk(`${nRows} rows, x subnormal`, () => tiny.run(nRows, 1), `${nRows} rows`),
      step('1 row', () => loud.run(1, nLayers), exp2.name),
      step('1 row, x is 0, state fades', () => { restore(silent, faded); silent.run(1, nLayers) }, '1 row')
    ]
  }
}

/** Copies at once: only the promise comes later. A token's states are copied in a tenth of its time. */
function restore({ backend }: OpBackend, state: Float32Array): void {
  void backend.writeState(0, 0, state)
}

function createScan(core: Core, { dInner, dState, nLayers, nRows }: ScanShape, fillX: (values: Float32Array) => void): Promise<OpBackend> {
  const numbers = createNumbers(6)
  return createOpBackend((builder) => {
    const [x, dt, z, out] = ['x', 'dt', 'z', 'y'].map((name) => builder.buffer(name, dInner))
    const BC = builder.buffer('BC', 2 * dState)
    for (let i = 0; i < nLayers; i++) {
      builder.add({
        kind: 'selectiveScan', x, dt, z, out, dState, dtSoftplus: true,
        A: builder.parameter(`A${i}`, [dInner, dState]), B: columns(BC, 0, dState), C: columns(BC, dState, dState),
        D: builder.parameter(`D${i}`, [dInner]), dtBias: builder.parameter(`dtBias${i}`, [dInner]), state: builder.state(`ssm${i}`, [dInner, dState])
      })
    }
  }, {
    core, maxRows: nRows,
    values: {
      x: fillX,
      A: (values) => values.forEach((_, i) => (values[i] = -((i % dState) + 1))),
      // softplus of it is a dt from 0.001 to 0.1.
      dtBias: (values) => values.forEach((_, i) => (values[i] = Math.log(Math.expm1(numbers.logUniform(0.001, 0.1)))))
    }
  })
}
