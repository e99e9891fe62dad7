/** Threads that help each other with the outputs of a large matrix: the bits of one thread, whoever makes them. */
import { expect, test } from 'vitest'
import { HELP_ONE, OP_FLAGS } from '../../assembly/abi.ts'
import type { SteppingBackend } from '../../src/backend/backend.ts'
import { recordAt } from '../../src/backend/wasm/encode.ts'
import { createMemoryMap } from '../../src/backend/wasm/memory-map.ts'
import { shareOps } from '../../src/backend/wasm/sharing.ts'
import { createWasmBackend } from '../../src/backend/wasm/wasm-backend.ts'
import { platform } from '../../src/platform/node.ts'
import { columns, ProgramBuilder } from '../../src/program/builder.ts'
import type { WeightData, WeightFormat } from '../../src/program/formats.ts'
import { elementsOf } from '../../src/program/ops.ts'
import { expectSameBits } from '../support/compare.ts'
import { createNumbers } from '../support/numbers.ts'
import { randomWeights } from '../support/weights.ts'

const D_MODEL = 768
const D_INNER = 1536
const N_LAYERS = 2
const N_STEPS = 25
const CAPACITY = { maxRows: 3, maxLogitRows: 0, nSlots: 1, contextLength: 0 }

/** Layers of in_proj, an activation of its first half and out_proj, which adds to the input: the shapes of mamba-130m, and a width of no whole panel. */
function createProgram() {
  const builder = new ProgramBuilder()
  const [x, both, odd] = [builder.buffer('x', D_MODEL), builder.buffer('both', 2 * D_INNER), builder.buffer('odd', D_MODEL + 3)]
  const inner = columns(both, 0, D_INNER)
  for (let layer = 0; layer < N_LAYERS; layer++) {
    builder.add({ kind: 'linear', x, out: both, bias: null, accumulate: false, weight: builder.parameter(`in ${layer}`, [2 * D_INNER, D_MODEL]) })
    builder.add({ kind: 'activation', function: 'silu', x: inner, by: null, out: inner })
    builder.add({ kind: 'linear', x: inner, out: x, bias: builder.parameter(`bias ${layer}`, [D_MODEL]), accumulate: true, weight: builder.parameter(`out ${layer}`, [D_MODEL, D_INNER]) })
  }
  builder.add({ kind: 'linear', x, out: odd, bias: null, accumulate: false, weight: builder.parameter('odd', [D_MODEL + 3, D_MODEL]) })
  return { program: builder.build(null, 8), x, both, odd }
}

const { program, x, both, odd } = createProgram()

async function createBackend(nThreads: number, format: WeightFormat, weights: Map<string, WeightData>): Promise<SteppingBackend> {
  const build = nThreads === 1 ? 'simd-dot' : 'simd-threads-dot'
  const backend = await createWasmBackend(program, CAPACITY, { module: await platform.wasmModule(build), build, nThreads, reason: 'test', formatOf: () => format })
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
  expect(program.ops.map((_, i) => (recordAt(map, memory, i)[OP_FLAGS] & HELP_ONE) !== 0)).toEqual([...Array.from({ length: N_LAYERS }, () => [true, false, true]).flat(), false])
})

test.each(['f32', 'f16', 'q8_0', 'q4_0'] as const)('%s: the bits of one thread', { timeout: 60_000 }, async (format) => {
  const weights = new Map<string, WeightData>()
  const one = await createBackend(1, format, weights)
  for (const nThreads of [2, 3, 5, 8]) {
    const many = await createBackend(nThreads, format, weights)
    const numbers = createNumbers(nThreads)
    for (let step = 0; step < N_STEPS; step++) {
      // Three rows now and then: those are shared as ever.
      const nRows = step % 5 === 4 ? 3 : 1
      const values = numbers.floats(nRows * D_MODEL)
      const [expected, got] = [one, many].map((backend) => {
        backend.begin({ tokens: new Int32Array(nRows), segments: [{ slot: 0, position: 0, firstRow: 0, nRows, logits: 'none' }] })
        backend.writeView(x, values)
        backend.run(0, program.ops.length)
        return [x, both, odd].map((view) => backend.readView(view).slice())
      })
      ;['x', 'both', 'odd'].forEach((name, i) => expectSameBits(got[i], expected[i], `${name}, ${nThreads} threads, step ${step}`))
    }
    await many.dispose()
  }
  await one.dispose()
})
