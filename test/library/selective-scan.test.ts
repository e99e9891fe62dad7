/** The bare scan's inputs: shapes, layouts, groups, and what is refused. Its numbers are held by test/goldens/scan.test.ts. */
import { describe, expect, test } from 'vitest'
import { selectiveScan, type SelectiveScanInput, type Tensor } from '../../src/index.ts'
import { reasonOf, untyped } from '../support/anything.ts'
import { BUILDS } from '../support/backends.ts'
import { expectSameBits, relativeError } from '../support/compare.ts'
import { createNumbers } from '../support/numbers.ts'

const numbers = createNumbers(21)

function tensor(shape: readonly number[], low = -1, high = 1): Tensor {
  return { data: numbers.floats(shape.reduce((product, size) => product * size, 1), low, high), shape }
}

const [Z, L, D, N] = [2, 5, 6, 3]

function input(): SelectiveScanInput {
  return { x: tensor([Z, L, D]), dt: tensor([Z, L, D], 0.01, 0.5), A: tensor([D, N], -2, -0.1), B: tensor([Z, L, N]), C: tensor([Z, L, N]) }
}

describe('shapes', () => {
  const bad: [string, (good: SelectiveScanInput) => SelectiveScanInput, string][] = [
    ['x of two dimensions', (good) => ({ ...good, x: tensor([L, D]) }), 'x.shape'],
    ['dt of another length', (good) => ({ ...good, dt: tensor([Z, L + 1, D]) }), 'dt.shape'],
    ['A of another width', (good) => ({ ...good, A: tensor([D + 1, N]) }), 'A.shape'],
    ['B of other states', (good) => ({ ...good, B: tensor([Z, L, N + 1]) }), 'B.shape'],
    ['C of another batch', (good) => ({ ...good, C: tensor([1, L, N]) }), 'C.shape'],
    ['groups that do not divide the channels', (good) => ({ ...good, B: tensor([Z, L, 4, N]) }), 'B'],
    ['no groups', (good) => ({ ...good, C: tensor([Z, L, 0, N]) }), 'C'],
    ['D of another width', (good) => ({ ...good, D: tensor([D - 1]) }), 'D.shape'],
    ['z of another shape', (good) => ({ ...good, z: tensor([Z, D, L]) }), 'z.shape'],
    ['dtBias of another shape', (good) => ({ ...good, dtBias: tensor([1, D]) }), 'dtBias.shape'],
    ['a state of another shape', (good) => ({ ...good, initialState: tensor([Z, N, D]) }), 'initialState.shape'],
    ['data that is too short', (good) => ({ ...good, x: { data: new Float32Array(3), shape: [Z, L, D] } }), 'x.data'],
    ['a fractional size', (good) => ({ ...good, x: { data: new Float32Array(0), shape: [Z, 0.5, D] } }), 'x.shape'],
    ['a negative size', (good) => ({ ...good, x: { data: new Float32Array(0), shape: [Z, -1, D] } }), 'x.shape'],
    ['no states', (good) => ({ ...good, A: tensor([D, 0]), B: tensor([Z, L, 0]), C: tensor([Z, L, 0]) }), 'A'],
    ['an unknown layout', (good) => ({ ...good, layout: untyped('dbl') }), 'layout'],
    ['an unknown backend', (good) => ({ ...good, backend: untyped('cuda') }), 'backend']
  ]

  test.each(bad)('%s: RangeError', async (_, change, place) => {
    const error = await reasonOf(() => selectiveScan(change(input())))
    expect(error).toBeInstanceOf(RangeError)
    expect(String(error)).toContain(`${place}:`)
  })

  test.each([['an array', [1, 2]], ['nothing', undefined], ['null', null], ['float64', { data: new Float64Array(60), shape: [Z, L, D] }], ['no shape', { data: new Float32Array(60) }]])('%s is no tensor: TypeError', async (_, x) => {
    const error = await reasonOf(() => selectiveScan({ ...input(), x: untyped(x) }))
    expect(error).toBeInstanceOf(TypeError)
    expect(String(error)).toContain('x:')
  })

  test('no tokens: the state as it was', async () => {
    const initialState = tensor([Z, D, N])
    const none = (width: number): Tensor => tensor([Z, 0, width])
    const { y, lastState } = await selectiveScan({ ...input(), x: none(D), dt: none(D), B: none(N), C: none(N), initialState })
    expect(y).toEqual({ data: new Float32Array(0), shape: [Z, 0, D] })
    expectSameBits(lastState.data, initialState.data, 'state')
  })

  test('no sequences', async () => {
    const [perChannel, perState] = [tensor([0, L, D]), tensor([0, L, N])]
    const { y, lastState } = await selectiveScan({ ...input(), x: perChannel, dt: perChannel, B: perState, C: perState })
    expect([y.shape, lastState.shape]).toEqual([[0, L, D], [0, D, N]])
  })
})

test('inputs are left as they are', async () => {
  const given = { ...input(), D: tensor([D]), z: tensor([Z, L, D]), initialState: tensor([Z, D, N]) }
  const copy = structuredClone(given)
  await selectiveScan(given)
  expect(given).toEqual(copy)
})

test('dt is taken as it is by default', async () => {
  const given = input()
  expectSameBits((await selectiveScan(given)).y.data, (await selectiveScan({ ...given, dtSoftplus: false })).y.data, 'y')
  expect((await selectiveScan({ ...given, dtSoftplus: true })).y.data).not.toEqual((await selectiveScan(given)).y.data)
})

describe.each(BUILDS)('%s', (backend) => {
  // The reference repeats B and C over the channels one by one: any two numbers that divide the channels go together.
  test.each([[1, 1], [2, 2], [1, 3], [6, 2], [3, 1], [2, 3], [3, 2]])('%i groups of B and %i of C', async (BGroups, CGroups) => {
    const given = { ...input(), B: tensor([Z, L, BGroups, N]), C: tensor([Z, L, CGroups, N]) }
    const [got, wanted] = [await selectiveScan({ ...given, backend }), await selectiveScan({ ...given, backend: 'reference' })]
    expect(relativeError(got.y.data, wanted.y.data)).toBeLessThanOrEqual(1e-6)
    expect(relativeError(got.lastState.data, wanted.lastState.data)).toBeLessThanOrEqual(1e-6)
  })

  test('groups of one are as none', async () => {
    const given = input()
    const grouped = { ...given, B: { data: given.B.data, shape: [Z, L, 1, N] }, C: { data: given.C.data, shape: [Z, L, 1, N] } }
    expectSameBits((await selectiveScan({ ...grouped, backend })).y.data, (await selectiveScan({ ...given, backend })).y.data, 'y')
  })

  test('a batch is its sequences', async () => {
    const given = { ...input(), initialState: tensor([Z, D, N]) }
    const whole = await selectiveScan({ ...given, backend })
    for (let b = 0; b < Z; b++) {
      const one = ({ data, shape }: Tensor): Tensor => ({ data: data.subarray(b * (data.length / Z), (b + 1) * (data.length / Z)), shape: [1, ...shape.slice(1)] })
      const alone = await selectiveScan({ ...given, x: one(given.x), dt: one(given.dt), B: one(given.B), C: one(given.C), initialState: one(given.initialState), backend })
      expectSameBits(alone.y.data, one(whole.y).data, `y of sequence ${b}`)
      expectSameBits(alone.lastState.data, one(whole.lastState).data, `state of sequence ${b}`)
    }
  })
})

describe('one call after another', () => {
  const full = (): SelectiveScanInput => ({ ...input(), D: tensor([D]), z: tensor([Z, L, D]), dtBias: tensor([D]), dtSoftplus: true })
  const nans = ({ data, shape }: Tensor): Tensor => ({ data: new Float32Array(data.length).fill(NaN), shape })

  test('of the same shapes knows nothing of the last: other values, NaNs, a state', async () => {
    const given = full()
    const wanted = await selectiveScan({ ...given, backend: 'reference' })
    const first = await selectiveScan(given)
    expect(relativeError(first.y.data, wanted.y.data)).toBeLessThanOrEqual(1e-6)
    const spoilt = await selectiveScan({ ...given, x: nans(given.x), B: nans(given.B), A: nans(given.A), initialState: nans(tensor([Z, D, N])) })
    expect(spoilt.y.data.every(Number.isNaN)).toBe(true)
    const again = await selectiveScan(given)
    expectSameBits(again.y.data, first.y.data, 'y')
    expectSameBits(again.lastState.data, first.lastState.data, 'state')
  })

  test('at the same time, of the same shapes and of others', async () => {
    const inputs = [full(), full(), input(), full(), input()]
    const together = await Promise.all(inputs.map(async (given) => selectiveScan(given)))
    for (const [i, given] of inputs.entries()) {
      const wanted = await selectiveScan({ ...given, backend: 'reference' })
      expect(relativeError(together[i].y.data, wanted.y.data)).toBeLessThanOrEqual(1e-6)
      expect(relativeError(together[i].lastState.data, wanted.lastState.data)).toBeLessThanOrEqual(1e-6)
    }
  })

  test('after one that was aborted', async () => {
    const given = full()
    const first = await selectiveScan(given)
    await expect(selectiveScan({ ...given, x: nans(given.x), signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough')
    expectSameBits((await selectiveScan(given)).y.data, first.y.data, 'y')
  })
})
