/** The selective scan against `selective_scan_ref` of state-spaces/mamba in float64, and its promise of the same bits. */
import { readdirSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { selectiveScan, type SelectiveScanInput, type Tensor } from '../../src/selective-scan.ts'
import { BUILDS, KINDS } from '../support/backends.ts'
import { expectSameBits, relativeError, scientific } from '../support/compare.ts'
import { readGolden, repositoryPath } from '../support/fixtures.ts'
import { createNumbers } from '../support/numbers.ts'

const TOLERANCES = { reference: 1e-6, scalar: 1e-5, simd: 1e-5 }
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
