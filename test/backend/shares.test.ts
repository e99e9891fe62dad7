/** Threads that help each other with the outputs of a large matrix and the channels of a scan: the bits of one thread, whoever makes them. */
import { expect, test } from 'vitest'
import { HELP_MANY, HELP_ONE, OP_FLAGS } from '../../assembly/abi.ts'
import type { SteppingBackend } from '../../src/backend/backend.ts'
import { recordAt } from '../../src/backend/wasm/encode.ts'
import { createMemoryMap } from '../../src/backend/wasm/memory-map.ts'
import { shareOps } from '../../src/backend/wasm/sharing.ts'
import { createWasmBackend } from '../../src/backend/wasm/wasm-backend.ts'
import { platform } from '../../src/platform/node.ts'
import { columns, ProgramBuilder } from '../../src/program/builder.ts'
import type { WeightData, WeightFormat } from '../../src/program/formats.ts'
import { elementsOf, type OpOf, type View } from '../../src/program/ops.ts'
import { expectSameBits } from '../support/compare.ts'
import { createNumbers } from '../support/numbers.ts'
import { randomWeights } from '../support/weights.ts'

const D_MODEL = 768
const D_INNER = 1536
const D_STATE = 16
const N_LAYERS = 2
/** Three rows are shared as ever; the other batches of several are of one block of rows, of two, the second of one row alone, and of three. */
const ROWS = [1, 1, 1, 3, 40, 65, 150, 1]
const N_ROUNDS = 3
const CAPACITY = { maxRows: 150, maxLogitRows: 0, nSlots: 1, contextLength: 0 }

/** Layers of in_proj, an activation of its first half, dt, B and C, a scan and out_proj, which adds to the input: the shapes of mamba-130m, and a width of no whole panel. */
function createProgram() {
  const builder = new ProgramBuilder()
  const [x, both, odd] = [builder.buffer('x', D_MODEL), builder.buffer('both', 2 * D_INNER), builder.buffer('odd', D_MODEL + 3)]
  const [dt, BC, y] = [builder.buffer('dt', D_INNER), builder.buffer('BC', 2 * D_STATE), builder.buffer('y', D_INNER)]
  const [inner, z] = [columns(both, 0, D_INNER), columns(both, D_INNER, D_INNER)]
  const linear = (name: string, from: View, out: View, more: Partial<OpOf<'linear'>> = {}): void => {
    builder.add({ kind: 'linear', x: from, out, bias: null, accumulate: false, weight: builder.parameter(name, [out.width, from.width]), ...more })
  }
  for (let layer = 0; layer < N_LAYERS; layer++) {
    linear(`in ${layer}`, x, both)
    builder.add({ kind: 'activation', function: 'silu', x: inner, by: null, out: inner })
    linear(`BC ${layer}`, inner, BC)
    linear(`dt ${layer}`, x, dt)
    builder.add({
      kind: 'selectiveScan', x: inner, dt, z, B: columns(BC, 0, D_STATE), C: columns(BC, D_STATE, D_STATE), out: y, dState: D_STATE, dtSoftplus: true,
      A: builder.parameter(`A ${layer}`, [D_INNER, D_STATE], { transform: 'negExp' }), D: null, dtBias: null, state: builder.state(`state ${layer}`, [D_INNER, D_STATE])
    })
    linear(`out ${layer}`, y, x, { accumulate: true, bias: builder.parameter(`bias ${layer}`, [D_MODEL]) })
  }
  linear('odd', x, odd)
  return { program: builder.build(null, 8), x, both, odd }
}

const { program, x, both, odd } = createProgram()

async function createBackend(nThreads: number, format: WeightFormat, weights: Map<string, WeightData>): Promise<SteppingBackend> {
  const build = nThreads === 1 ? 'simd-dot' : 'simd-threads-dot'
  const backend = await createWasmBackend(program, CAPACITY, { module: await platform.wasmModule(build), build, nThreads, reason: 'test', formatOf: ({ name, shape }) => (shape.length === 2 && !name.startsWith('A') ? format : 'f32') })
  for (const parameter of program.parameters) {
    const data = weights.get(parameter.name) ?? randomWeights(createNumbers(weights.size), backend.formatOf(parameter), elementsOf(parameter.shape)).data
    weights.set(parameter.name, data)
    backend.write(parameter, data, 0)
  }
  await backend.ready?.()
  return backend
}

test('the large matrices of this program are helped with', () => {
  const options = { heapBase: 0, nThreads: 2, formatOf: () => 'q4_0' as const, hasDots: true }
  const map = createMemoryMap(program, CAPACITY, options)
  const memory = new ArrayBuffer(map.pages * 65536)
  shareOps(program.ops, map, memory)
  const helped = (flag: number): number[] => program.ops.map((_, i) => i).filter((i) => recordAt(map, memory, i)[OP_FLAGS] & flag)
  expect(helped(HELP_ONE)).toEqual([0, 3, 5, 6, 9, 11])
  expect(helped(HELP_MANY)).toEqual([0, 3, 4, 5, 6, 9, 10, 11])
})

test.each(['f32', 'f16', 'q8_0', 'q4_0'] as const)('%s: the bits of one thread', { timeout: 60_000 }, async (format) => {
  const weights = new Map<string, WeightData>()
  const one = await createBackend(1, format, weights)
  for (const nThreads of [2, 3, 5, 8]) {
    const many = await createBackend(nThreads, format, weights)
    const numbers = createNumbers(nThreads)
    for (let step = 0; step < N_ROUNDS * ROWS.length; step++) {
      const nRows = ROWS[step % ROWS.length]
      const values = numbers.floats(nRows * D_MODEL)
      await Promise.all([one, many].map((backend) => backend.clearState(0)))
      const [expected, got] = [one, many].map((backend) => {
        backend.begin({ tokens: new Int32Array(nRows), segments: [{ slot: 0, position: 0, firstRow: 0, nRows, logits: 'none' }] })
        backend.writeView(x, values)
        backend.run(0, program.ops.length)
        return [x, both, odd].map((view) => backend.readView(view).slice())
      })
      ;['x', 'both', 'odd'].forEach((name, i) => expectSameBits(got[i], expected[i], `${name}, ${nThreads} threads, ${nRows} rows, step ${step}`))
    }
    await many.dispose()
  }
  await one.dispose()
})
