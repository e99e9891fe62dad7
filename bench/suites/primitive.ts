/** `selectiveScan()`, the primitive of the library, against the op that it runs: what planning, copying and checking add. */

import type { SelectiveScanInput, Tensor } from '../../src/selective-scan.ts'
import { selectiveScan } from '../../src/selective-scan.ts'
import { columns } from '../../src/program/builder.ts'
import { createNumbers } from '../numbers.ts'
import { createOpBackend } from '../op-backend.ts'
import { type Core, elements, type Group, type Line, type Suite } from '../suite.ts'

interface Sizes {
  readonly length: number
  readonly dInner: number
  readonly dState: number
}

export const primitiveSuite: Suite = {
  name: 'primitive',
  summary: 'selectiveScan(), the library\'s primitive, against the op alone',
  isKernel: false,
  groups: ({ isQuick }) => {
    const sizes = isQuick ? [{ length: 8, dInner: 24, dState: 16 }] : [{ length: 512, dInner: 1536, dState: 16 }, { length: 64, dInner: 64, dState: 16 }]
    return sizes.map((size) => (core) => createGroup(core, size))
  }
}

async function createGroup(core: Core, sizes: Sizes): Promise<Group> {
  const { length, dInner, dState } = sizes
  const input = randomInput(sizes)
  const chunkRows = Math.min(256, length)
  const alone = await createOpBackend((builder) => {
    const [x, dt, z, out] = ['x', 'dt', 'z', 'y'].map((name) => builder.buffer(name, dInner))
    const BC = builder.buffer('BC', 2 * dState)
    builder.add({
      kind: 'selectiveScan', x, dt, z, out, dState, dtSoftplus: true, A: builder.parameter('A', [dInner, dState]),
      B: columns(BC, 0, dState), C: columns(BC, dState, dState), D: builder.parameter('D', [dInner]), dtBias: builder.parameter('dtBias', [dInner]),
      state: builder.state('ssm', [dInner, dState])
    })
  }, { core, maxRows: chunkRows, values: { A: (values) => values.set(input.A.data), dtBias: (values) => void values.fill(-4) } })
  const amounts = [elements(length * dInner * dState)]
  const op: Line = { name: 'the op alone', amounts, run: () => { for (let first = 0; first < length; first += chunkRows) alone.run(chunkRows, 1) } }
  const call = (name: string, given: SelectiveScanInput): Line => ({
    name, amounts, against: op.name, isAsync: true, run: async () => void await selectiveScan(given)
  })
  const transposed = Object.fromEntries(Object.entries(input).map(([key, tensor]) => [key, tensor.shape.length === 3 ? channelsFirst(tensor) : tensor]))
  return {
    name: `${length} tokens × ${dInner} channels × ${dState} states`,
    lines: [
      op,
      call('selectiveScan()', { ...input, dtSoftplus: true }),
      call("selectiveScan(), layout 'bdl'", { ...input, ...transposed, dtSoftplus: true, layout: 'bdl' })
    ]
  }
}

function randomInput({ length, dInner, dState }: Sizes) {
  const numbers = createNumbers(9)
  const tensor = (shape: readonly number[], values?: (i: number) => number): Tensor => {
    const data = new Float32Array(shape.reduce((product, size) => product * size, 1))
    if (values === undefined) numbers.uniform(data, 1)
    else data.forEach((_, i) => (data[i] = values(i)))
    return { data, shape }
  }
  return {
    x: tensor([1, length, dInner]), dt: tensor([1, length, dInner]), z: tensor([1, length, dInner]), A: tensor([dInner, dState], (i) => -((i % dState) + 1)),
    B: tensor([1, length, dState]), C: tensor([1, length, dState]), D: tensor([dInner]), dtBias: tensor([dInner], () => -4)
  }
}

/** (1, L, D) as (1, D, L). */
function channelsFirst({ data, shape: [, length, width] }: Tensor): Tensor {
  const result = new Float32Array(data.length)
  data.forEach((value, i) => (result[(i % width) * length + Math.floor(i / width)] = value))
  return { data: result, shape: [1, width, length] }
}
