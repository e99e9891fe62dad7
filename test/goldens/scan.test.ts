/** The selective scan against `selective_scan_ref` of state-spaces/mamba in float64, and its promise of the same bits. */
import { readdirSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { factsOf } from '../../src/backend/webgpu/device.ts'
import { createWebGpuBackend } from '../../src/backend/webgpu/webgpu-backend.ts'
import { ProgramBuilder } from '../../src/program/builder.ts'
import type { Parameter, ScanInput, View } from '../../src/program/ops.ts'
import { selectiveScan, type SelectiveScanInput, type Tensor } from '../../src/selective-scan.ts'
import { BUILDS, KINDS } from '../support/backends.ts'
import { expectSameBits, relativeError, scientific } from '../support/compare.ts'
import { readGolden, repositoryPath } from '../support/fixtures.ts'
import { gpuDevice, GPUS } from '../support/gpu.ts'
import { createNumbers } from '../support/numbers.ts'

const TOLERANCES = { reference: 1e-6, scalar: 1e-5, simd: 1e-5, webgpu: 1e-5 }
const FOLDER = repositoryPath('test/fixtures/scan')
const NAMES = readdirSync(FOLDER).map((file) => file.replace('.safetensors', ''))

function readCase(name: string) {
  const golden = readGolden(`${FOLDER}/${name}.safetensors`)
  const optional = (key: string): Tensor | undefined => (golden.has(key) ? golden.floats(key) : undefined)
  const input: SelectiveScanInput = {
    x: golden.floats('u'), dt: golden.floats('delta'), A: golden.floats('A'), B: golden.floats('B'), C: golden.floats('C'),
    D: optional('D'), z: optional('z'), dtBias: optional('delta_bias'),
    dtSoftplus: golden.metadata['delta_softplus'] === 'true', layout: 'bdl'
  }
  return { input, out: golden.floats('out'), lastState: golden.floats('last_state') }
}

/** The last two axes swapped for those before them: (Z, …, L) to (Z, L, …). */
function lengthSecond({ data, shape }: Tensor): Tensor {
  const [nBatch, length] = [shape[0], shape[shape.length - 1]]
  const inner = data.length / nBatch / length
  const moved = new Float32Array(data.length)
  for (let b = 0; b < nBatch; b++) {
    for (let i = 0; i < inner; i++) {
      for (let t = 0; t < length; t++) moved[(b * length + t) * inner + i] = data[(b * inner + i) * length + t]
    }
  }
  return { data: moved, shape: [nBatch, length, ...shape.slice(1, -1)] }
}

/** Applies a function to the tensors that change with the tokens. */
function mapTokens(input: SelectiveScanInput, change: (tensor: Tensor) => Tensor): SelectiveScanInput {
  const perToken = (tensor: Tensor): Tensor => (tensor.shape.length === 2 ? tensor : change(tensor))
  return { ...input, x: change(input.x), dt: change(input.dt), z: input.z && change(input.z), B: perToken(input.B), C: perToken(input.C) }
}

function toLengthSecond(input: SelectiveScanInput): SelectiveScanInput {
  return { ...mapTokens(input, lengthSecond), layout: 'bld' }
}

/** Tokens [start, end) of a tensor whose second axis is the length. */
function slice({ data, shape }: Tensor, start: number, end: number): Tensor {
  const inner = data.length / shape[0] / shape[1]
  const parts = Array.from({ length: shape[0] }, (_, b) => data.subarray((b * shape[1] + start) * inner, (b * shape[1] + end) * inner))
  const sliced = new Float32Array(shape[0] * (end - start) * inner)
  parts.forEach((part, b) => sliced.set(part, b * (end - start) * inner))
  return { data: sliced, shape: [shape[0], end - start, ...shape.slice(2)] }
}

/** The op by itself, all sequences beside each other, so many tokens of each at a time. Tensors are (Z, L, …). */
async function scanOnGpu(input: SelectiveScanInput, parts: readonly number[]): Promise<{ y: Float32Array, lastState: Float32Array }> {
  const { x: { shape: [nBatch, length, dInner] }, A: { shape: [, dState] } } = input
  const builder = new ProgramBuilder()
  const tokens: [View, Tensor][] = []
  const perToken = (name: string, tensor: Tensor): View => {
    const view = builder.buffer(name, tensor.data.length / nBatch / length)
    tokens.push([view, tensor])
    return view
  }
  const fixed: [Parameter, Tensor][] = []
  const parameter = (name: string, tensor: Tensor): Parameter => {
    const made = builder.parameter(name, tensor.shape)
    fixed.push([made, tensor])
    return made
  }
  const scanInput = (name: string, tensor: Tensor): ScanInput => (tensor.shape.length === 2 ? parameter(name, tensor) : perToken(name, tensor))
  const out = builder.buffer('y', dInner)
  builder.add({
    kind: 'selectiveScan', out, dState, dtSoftplus: input.dtSoftplus ?? false, x: perToken('x', input.x), dt: perToken('dt', input.dt),
    z: input.z ? perToken('z', input.z) : null, A: parameter('A', input.A), B: scanInput('B', input.B), C: scanInput('C', input.C),
    D: input.D ? parameter('D', input.D) : null, dtBias: input.dtBias ? parameter('dtBias', input.dtBias) : null, state: builder.state('ssm', [dInner, dState])
  })
  const capacity = { maxRows: nBatch * length, maxLogitRows: 0, nSlots: nBatch, contextLength: 0 }
  const device = await gpuDevice()
  const backend = await createWebGpuBackend(builder.build(null, 0), capacity, { device, ownsDevice: false, reason: 'test', facts: { ...factsOf(device), isSoftware: false } })
  for (const [made, { data }] of fixed) await backend.write(made, data, 0)
  for (let slot = 0; slot < nBatch; slot++) await backend.clearState(slot)
  const y = new Float32Array(input.x.data.length)
  let start = 0
  for (const nRows of parts) {
    backend.begin({
      tokens: new Int32Array(nBatch * nRows),
      segments: Array.from({ length: nBatch }, (_, slot) => ({ slot, position: start, firstRow: slot * nRows, nRows, logits: 'none' as const }))
    })
    for (const [view, tensor] of tokens) backend.writeView(view, slice(tensor, start, start + nRows).data)
    await backend.run(0, 1)
    const values = await backend.readView(out)
    for (let b = 0; b < nBatch; b++) y.set(values.subarray(b * nRows * dInner, (b + 1) * nRows * dInner), (b * length + start) * dInner)
    start += nRows
  }
  const lastState = new Float32Array(nBatch * dInner * dState)
  for (let slot = 0; slot < nBatch; slot++) lastState.set(await backend.readState(slot, length), slot * dInner * dState)
  await backend.dispose()
  return { y, lastState }
}

test('all of the goldens are here', () => {
  expect(NAMES).toEqual(['fixed_b', 'fixed_bc', 'groups2', 'long', 'no_z_no_d', 'one_step', 'paper_full'])
})

describe.each(NAMES)('%s', (name) => {
  const { input, out, lastState } = readCase(name)

  test('y and the last state', async () => {
    const report: string[] = []
    for (const backend of KINDS) {
      const result = await selectiveScan({ ...input, backend })
      expect(result.y.shape).toEqual(out.shape)
      expect(result.lastState.shape).toEqual(lastState.shape)
      const [yError, stateError] = [relativeError(result.y.data, out.data), relativeError(result.lastState.data, lastState.data)]
      report.push(`${backend} y ${scientific(yError)} state ${scientific(stateError)}`)
      expect(yError, `${backend}: y`).toBeLessThanOrEqual(TOLERANCES[backend])
      expect(stateError, `${backend}: last state`).toBeLessThanOrEqual(TOLERANCES[backend])
    }
    console.log(`scan ${name}: ${report.join(', ')}`)
  })

  test.each(GPUS)('on a GPU, whole and split: %s', async () => {
    const numbers = createNumbers(18)
    const [, length] = toLengthSecond(input).x.shape
    for (const parts of [[length], numbers.parts(length, 40), numbers.parts(length, 300)]) {
      const got = await scanOnGpu(toLengthSecond(input), parts)
      expect(relativeError(got.y, lengthSecond(out).data), 'y').toBeLessThanOrEqual(TOLERANCES.webgpu)
      expect(relativeError(got.lastState, lastState.data), 'last state').toBeLessThanOrEqual(TOLERANCES.webgpu)
    }
  })

  test('both builds give the same bits', async () => {
    const [scalar, simd] = [await selectiveScan({ ...input, backend: 'scalar' }), await selectiveScan({ ...input, backend: 'simd' })]
    expectSameBits(simd.y.data, scalar.y.data, 'y')
    expectSameBits(simd.lastState.data, scalar.lastState.data, 'last state')
  })

  test.each(BUILDS)('layout bld gives the bits of bdl, %s', async (backend) => {
    const transposed = await selectiveScan({ ...input, backend })
    const plain = await selectiveScan({ ...toLengthSecond(input), backend })
    expectSameBits(plain.y.data, lengthSecond(transposed.y).data, 'y')
    expectSameBits(plain.lastState.data, transposed.lastState.data, 'last state')
  })

  test.each(BUILDS)('any split of the tokens gives the same bits, %s', async (backend) => {
    const whole = toLengthSecond(input)
    const expected = await selectiveScan({ ...whole, backend })
    const [, length] = whole.x.shape
    const numbers = createNumbers(17)
    for (const most of [length, 40, 300]) {
      let initialState: Tensor | undefined
      let start = 0
      for (const count of numbers.parts(length, most)) {
        const piece = mapTokens(whole, (tensor) => slice(tensor, start, start + count))
        const { y, lastState } = await selectiveScan({ ...piece, backend, initialState })
        expectSameBits(y.data, slice(expected.y, start, start + count).data, `y of tokens ${start} to ${start + count - 1}`)
        initialState = lastState
        start += count
      }
      expectSameBits(initialState?.data ?? new Float32Array(0), expected.lastState.data, 'last state')
    }
  })
})
