/** The scan's kernel alone against the float64 reference: channels, states, blocks of tokens and groups around its tiles, in all builds. */
import { describe, expect, test } from 'vitest'
import type { Segment } from '../../src/backend/backend.ts'
import { BUILDS } from '../support/backends.ts'
import { createNumbers } from '../support/numbers.ts'
import { compareSnapshots, createRig, expectSameSnapshot, type OpSpec, segment, segmentsOf } from '../support/op-rig.ts'
import { addScan, type Form, type Groups, PLAIN } from '../support/scan-op.ts'

/** The kernel takes so many tokens at a time: assembly/abi.ts, SCAN_BLOCK. */
const BLOCK = 32
/** Of the largest value: f32 rounding over some tens of states and steps. */
const TOLERANCE = 2e-6

async function compareAll(form: Form, batches: readonly (readonly Segment[])[]): Promise<number> {
  const spec: OpSpec = {
    seed: 31 * form.dInner + form.dState, capacity: { maxRows: 2 * BLOCK + 8, maxLogitRows: 2 * BLOCK + 8, nSlots: 4, contextLength: 0 },
    build: (builder) => addScan(builder, form),
    ranges: { A: [-4, -0.05], dt: form.dtSoftplus ? [-4, 3] : [0.001, 0.8], dtBias: form.dtSoftplus ? [-1, 1] : [0, 0.3], xz: [-2, 2], z: [-4, 4] }
  }
  const [reference, scalar, simd, dot] = await Promise.all((['reference', ...BUILDS, 'simd-dot'] as const).map((kind) => createRig(kind, spec)))
  let error = 0
  for (const segments of batches) {
    const where = `${JSON.stringify(form)}, segments of ${segments.map(({ nRows }) => nRows).join(', ')} rows`
    const [want, fromScalar] = [await reference.run(segments), await scalar.run(segments)]
    error = Math.max(error, compareSnapshots(fromScalar, want, { tolerance: TOLERANCE, place: `${where}, scalar` }))
    expectSameSnapshot(await simd.run(segments), fromScalar, `${where}, simd beside scalar`)
    expectSameSnapshot(await dot.run(segments), fromScalar, `${where}, simd-dot beside scalar`)
  }
  return error
}

const divisorsOf = (value: number): number[] => Array.from({ length: value }, (_, i) => i + 1).filter((divisor) => value % divisor === 0)

describe.each([1, 2, 3, 4, 5, 6, 7, 8, 9, 12])('%i channels', (dInner) => {
  test('states, inputs that may be missing, groups', async () => {
    const numbers = createNumbers(dInner)
    const isSet = (): boolean => numbers.integer(0, 1) === 1
    // Where groups of both differ, one has all or the other has one: the rest is tested below.
    const groupsOf = (): [Groups, Groups] => {
      const divisors = divisorsOf(dInner)
      const groups = divisors[numbers.integer(0, divisors.length - 1)]
      const pairs: [Groups, Groups][] = [[groups, groups], [1, groups], [groups, 1], [dInner, groups], ['fixed', groups], [groups, 'fixed'], ['fixed', 'fixed'], [1, 1]]
      return pairs[numbers.integer(0, pairs.length - 1)]
    }
    for (const dState of [1, 2, 3, 4, 5, 6, 7, 8, 9, 16]) {
      for (let i = 0; i < 3; i++) {
        const [BGroups, CGroups] = groupsOf()
        const form = { dInner, dState, BGroups, CGroups, hasZ: isSet(), hasD: isSet(), hasDtBias: isSet(), dtSoftplus: isSet(), isInset: isSet() }
        await compareAll(form, [segmentsOf([numbers.integer(1, 4)]), segmentsOf([3, 1, 2])])
      }
    }
  })
})

test('tokens around a block', async () => {
  const batches = [
    ...[1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1].map((nRows) => [segment(0, 0, nRows)]),
    segmentsOf([BLOCK - 1, 2]), segmentsOf([1, BLOCK + 1, BLOCK]), segmentsOf([BLOCK, 0, 3]), [segment(3, 0, 7, 'none', 100), segment(1, 7, BLOCK, 'none', 5)]
  ]
  let error = 0
  for (const form of [PLAIN, { ...PLAIN, dInner: 12, dState: 6, BGroups: 3, CGroups: 3, hasZ: false }, { ...PLAIN, dInner: 8, BGroups: 'fixed' as const }]) {
    error = Math.max(error, await compareAll(form, batches))
  }
  console.log(`selectiveScan: largest error ${error.toExponential(1)} of the largest value`)
})

// Of a short segment up to BLOCK / nRows tiles are taken at once where all are whole, an even or an odd number of vectors; a token's states by 4 · BLOCK.
test.each([
  ['whole tiles', { ...PLAIN, dInner: 4 * BLOCK + 20 }],
  ['more states than are taken at once', { ...PLAIN, dInner: 12, dState: 4 * BLOCK + 20 }],
  ['states that are no whole vectors', { ...PLAIN, dInner: 4 * BLOCK + 12, dState: 5 }],
  ['narrow last tiles', { ...PLAIN, dInner: 2 * (4 * 17 + 3), BGroups: 2, CGroups: 2 }]
] as const)('more than is taken at once: %s', async (_name, form) => {
  await compareAll(form, [1, 2, 3, 5, 11].map((nRows) => segmentsOf([nRows])))
})

// selective_scan_ref repeats B and C over the channels one by one, so any two numbers that divide the channels go together.
test.each([[6, 2, 3], [6, 3, 2], [12, 4, 6], [12, 3, 4], [12, 2, 3]])('%i channels in %i groups of B and %i of C', async (dInner, BGroups, CGroups) => {
  await compareAll({ ...PLAIN, dInner, BGroups, CGroups }, [segmentsOf([3]), segmentsOf([2, 4])])
})

test.each(BUILDS)('a state that fades ends at zero, at the same token however the tokens are split, %s', async (kind) => {
  const spec: OpSpec = {
    seed: 3, capacity: { maxRows: 64, maxLogitRows: 64, nSlots: 1, contextLength: 0 },
    build: (builder) => addScan(builder, { ...PLAIN, dInner: 4, dState: 4, hasZ: false, hasD: false, hasDtBias: false, dtSoftplus: false, isInset: false }),
    ranges: { A: [-2, -1.5], dt: [0.9, 1], x: [0, 0] }
  }
  const rig = await createRig(kind, spec)
  const { changed } = await rig.run([segment(0, 0, 64)])
  const state = changed.get('state of slot 0')?.subarray(5, 5 + 16) ?? new Float32Array(0)
  // exp(-1.35 · 64) of 1 is 3e-38, among the subnormals or just above.
  expect(state.length).toBe(16)
  for (const value of state) expect(value === 0 || Math.abs(value) >= 2 ** -126, `${value} is subnormal`).toBe(true)
  expect(state.some((value) => value === 0)).toBe(true)
})
