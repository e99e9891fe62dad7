/** Mamba-2's scan in both forms against its sequential definition in float64; the recurrence's promise of the same bits for any split of the tokens. */
import { readdirSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { QueuedBackend } from '../../src/backend/backend.ts'
import { createWebGpuBackend } from '../../src/backend/webgpu/webgpu-backend.ts'
import { ProgramBuilder } from '../../src/program/builder.ts'
import type { Parameter, SsdScanOp, View } from '../../src/program/ops.ts'
import { CHUNKED_KINDS, createBackend, KINDS, type Kind, WASM_KINDS } from '../support/backends.ts'
import { expectSameBits, relativeError, scientific } from '../support/compare.ts'
import { readGolden, repositoryPath } from '../support/fixtures.ts'
import { gpuDevice, GPUS } from '../support/gpu.ts'
import { createNumbers } from '../support/numbers.ts'

const TOLERANCES = { reference: 1e-6, scalar: 1e-5, simd: 1e-5, chunked: 1e-5, webgpu: 1e-5, 'webgpu chunked': 1e-5 }
const GPU_KINDS = ['webgpu', 'webgpu chunked'] as const
type AnyKind = Kind | (typeof GPU_KINDS)[number]
const FOLDER = repositoryPath('test/fixtures/ssd')
const NAMES = readdirSync(FOLDER).map((file) => file.replace('.safetensors', ''))

interface Outcome {
  readonly out: Float32Array
  readonly lastState: Float32Array
}

function readCase(name: string) {
  const golden = readGolden(`${FOLDER}/${name}.safetensors`)
  const floats = (key: string): Float32Array => golden.floats(key).data
  const [nSequences, length, nHeads, headDim] = golden.floats('x').shape
  const [, , nGroups, dState] = golden.floats('B').shape
  const [least, largest] = (JSON.parse(golden.metadata['dt_limit']) as (number | string)[]).map((limit) => (limit === 'inf' ? Infinity : Number(limit)))
  const stateSize = nHeads * headDim * dState

  async function load(kind: AnyKind): Promise<{ backend: QueuedBackend, op: SsdScanOp }> {
    const builder = new ProgramBuilder()
    const perHead = (key: string): Parameter => builder.parameter(key, [nHeads])
    const op: SsdScanOp = {
      kind: 'ssdScan', dState, dtLimit: [least, largest],
      x: builder.buffer('x', nHeads * headDim), dt: builder.buffer('dt', nHeads),
      A: perHead('A'), D: perHead('D'), dtBias: perHead('dt_bias'),
      B: builder.buffer('B', nGroups * dState), C: builder.buffer('C', nGroups * dState),
      state: builder.state('ssm', [nHeads, headDim, dState]), out: builder.buffer('out', nHeads * headDim)
    }
    builder.add(op)
    const rows = nSequences * length
    const [program, capacity] = [builder.build(null, 0), { maxRows: rows, maxLogitRows: rows, nSlots: nSequences, contextLength: 0 }]
    const backend: QueuedBackend = kind === 'webgpu' || kind === 'webgpu chunked'
      ? await createWebGpuBackend(program, capacity, { device: await gpuDevice(), ownsDevice: false, reason: 'test', ssd: kind === 'webgpu' ? 'recurrent' : 'chunked' })
      : await createBackend(kind, program, capacity)
    for (const parameter of backend.program.parameters) await backend.write(parameter, floats(parameter.name), 0)
    for (let slot = 0; slot < nSequences; slot++) {
      await backend.writeState(slot, 0, floats('initial_state').subarray(slot * stateSize, (slot + 1) * stateSize))
    }
    return { backend, op }
  }

  /** All sequences beside each other, so many tokens of each at a time. */
  async function run(kind: AnyKind, parts: readonly number[]): Promise<Outcome> {
    const { backend, op } = await load(kind)
    const out = new Float32Array(floats('out').length)
    let start = 0
    for (const count of parts) {
      const segments = Array.from({ length: nSequences }, (_, slot) => ({ slot, position: start, firstRow: slot * count, nRows: count, logits: 'none' as const }))
      backend.begin({ tokens: new Int32Array(nSequences * count), segments })
      const rowsOf = (key: string, { width }: View): Float32Array => {
        const values = new Float32Array(nSequences * count * width)
        for (let b = 0; b < nSequences; b++) values.set(floats(key).subarray((b * length + start) * width, (b * length + start + count) * width), b * count * width)
        return values
      }
      for (const [key, view] of Object.entries({ x: op.x, dt: op.dt, B: op.B, C: op.C })) backend.writeView(view, rowsOf(key, view))
      await backend.run(0, 1)
      const values = await backend.readView(op.out)
      const { width } = op.out
      for (let b = 0; b < nSequences; b++) out.set(values.subarray(b * count * width, (b + 1) * count * width), (b * length + start) * width)
      start += count
    }
    const lastState = new Float32Array(nSequences * stateSize)
    for (let slot = 0; slot < nSequences; slot++) lastState.set(await backend.readState(slot, length), slot * stateSize)
    await backend.dispose()
    return { out, lastState }
  }
  return { length, run, out: floats('out'), lastState: floats('last_state') }
}

test('all of the goldens are here', () => {
  expect(NAMES).toEqual(['basic', 'groups', 'one_step'])
})

describe.each(NAMES)('%s', (name) => {
  const { length, run, out, lastState } = readCase(name)

  test('out and the last state', async () => {
    const report: string[] = []
    for (const kind of [...KINDS, 'chunked'] as const) {
      const got = await run(kind, [length])
      const [outError, stateError] = [relativeError(got.out, out), relativeError(got.lastState, lastState)]
      report.push(`${kind} out ${scientific(outError)} state ${scientific(stateError)}`)
      expect(outError, `${kind}: out`).toBeLessThanOrEqual(TOLERANCES[kind])
      expect(stateError, `${kind}: last state`).toBeLessThanOrEqual(TOLERANCES[kind])
    }
    console.log(`ssd ${name}: ${report.join(', ')}`)
  })

  test.each(GPUS)('on a GPU, in both forms and in other splits of the tokens: %s', async () => {
    const numbers = createNumbers(19)
    for (const kind of GPU_KINDS) {
      for (const parts of [[length], numbers.parts(length, 70)]) {
        const got = await run(kind, parts)
        expect(relativeError(got.out, out), `${kind}: out`).toBeLessThanOrEqual(TOLERANCES[kind])
        expect(relativeError(got.lastState, lastState), `${kind}: last state`).toBeLessThanOrEqual(TOLERANCES[kind])
      }
    }
  })

  test.each(WASM_KINDS)('any split of the tokens gives the same bits, %s', async (kind) => {
    const expected = await run('scalar', [length])
    const numbers = createNumbers(17)
    for (const most of [length, 1, 9, 40]) {
      const got = await run(kind, most === length ? [length] : numbers.parts(length, most))
      expectSameBits(got.out, expected.out, 'out')
      expectSameBits(got.lastState, expected.lastState, 'last state')
    }
  })

  test('by chunks: any number of threads gives the same bits', async () => {
    const [one, ...others] = await Promise.all(CHUNKED_KINDS.map((kind) => run(kind, [length])))
    for (const other of others) {
      expectSameBits(other.out, one.out, 'out')
      expectSameBits(other.lastState, one.lastState, 'last state')
    }
  })

  test('by chunks: other splits of the tokens, within the tolerance', async () => {
    const numbers = createNumbers(18)
    for (const most of [9, 40, 70]) {
      const got = await run('chunked', numbers.parts(length, most))
      expect(relativeError(got.out, out), 'out').toBeLessThanOrEqual(TOLERANCES.chunked)
      expect(relativeError(got.lastState, lastState), 'last state').toBeLessThanOrEqual(TOLERANCES.chunked)
    }
  })
})
