/** How threads share ops, where they have to meet between them, and where they need not. That no barrier is missing anywhere, the tests of threads show. */
import { expect, test } from 'vitest'
import { planSharing } from '../../src/backend/wasm/sharing.ts'
import { columns, ProgramBuilder } from '../../src/program/builder.ts'
import type { Op, View } from '../../src/program/ops.ts'

const linear = (builder: ProgramBuilder, x: View, out: View): Op => ({
  kind: 'linear', x, out, bias: null, accumulate: false, weight: builder.parameter(`${x.buffer.name} to ${out.buffer.name} ${out.offset}`, [out.width, x.width])
})

const meetings = (ops: readonly Op[], rows: 'one' | 'many' = 'many'): boolean[] => planSharing(ops).map(({ meets }) => meets[rows])

test('an activation goes on with the columns that its thread has made', () => {
  const builder = new ProgramBuilder()
  const [x, gate, up, y] = ['x', 'gate', 'up', 'y'].map((name) => builder.buffer(name, 16))
  const activation: Op = { kind: 'activation', function: 'silu', x: gate, by: up, out: gate }
  expect(meetings([linear(builder, x, gate), linear(builder, x, up), activation, linear(builder, gate, y)])).toEqual([false, false, true, false])
})

test('of both halves of one product a thread makes what it goes on with', () => {
  const builder = new ProgramBuilder()
  const [x, both, y] = [builder.buffer('x', 16), builder.buffer('both', 32), builder.buffer('y', 16)]
  const gate = columns(both, 0, 16)
  const activate = (by: View): Op => ({ kind: 'activation', function: 'silu', x: gate, by, out: gate })
  const ops = [linear(builder, x, both), activate(columns(both, 16, 16)), linear(builder, gate, y)]
  expect(meetings(ops)).toEqual([false, true, false])
  expect(planSharing(ops).map(({ nParts }) => nParts)).toEqual([2, 1, 1])
})

test('one product from barrier to barrier is helped with, if what its thread made of the last part is not read before the next', () => {
  const builder = new ProgramBuilder()
  const [x, both, y] = [builder.buffer('x', 16), builder.buffer('both', 32), builder.buffer('y', 16)]
  const [gate, up] = [columns(both, 0, 16), columns(both, 16, 16)]
  const helped = (by: View | null, ...more: Op[]): boolean[] => {
    const activation: Op = { kind: 'activation', function: 'silu', x: gate, by, out: gate }
    return planSharing([linear(builder, x, both), activation, linear(builder, gate, y), ...more]).map(({ isHelped }) => isHelped.many)
  }
  expect(helped(null)).toEqual([true, false, true])
  expect(helped(up)).toEqual([false, false, true])
  expect(helped(null, linear(builder, x, builder.buffer('z', 16)))).toEqual([true, false, true, false])
})

test('of several tokens a scan is helped with where it costs most, unless what follows goes on with its channels', () => {
  const builder = new ProgramBuilder()
  const [u, x, dt, BC, y, out] = ['u', 'x', 'dt', 'BC', 'y', 'out'].map((name) => builder.buffer(name, 16))
  const scan: Op = {
    kind: 'selectiveScan', x, dt, z: null, B: columns(BC, 0, 4), C: columns(BC, 4, 4), out: y, dState: 4, dtSoftplus: true, A: builder.parameter('A', [16, 4]), D: null,
    dtBias: null, state: builder.state('state', [16, 4])
  }
  const activate = (view: View): Op => ({ kind: 'activation', function: 'silu', x: view, by: null, out: view })
  const helped = (ops: readonly Op[]) => (['one', 'many'] as const).map((rows) => planSharing(ops).map(({ isHelped }) => isHelped[rows]))
  const ops = [linear(builder, u, dt), scan]
  expect(helped([...ops, linear(builder, y, out)])).toEqual([[false, false, true], [false, true, true]])
  // What it has written, and what it reads: not before all have met.
  for (const view of [y, x]) expect(helped([...ops, activate(view), linear(builder, y, out)])[1]).toEqual([false, false, false, true])
  expect(helped([...ops, activate(out)])[1]).toEqual([false, true, false])
})

test('outputs that are read as anything but their halves are shared in one', () => {
  const builder = new ProgramBuilder()
  const [x, both, y] = [builder.buffer('x', 16), builder.buffer('both', 48), builder.buffer('y', 16)]
  const activate = (offset: number): Op => ({ kind: 'activation', function: 'silu', x: columns(both, offset, 16), by: null, out: y })
  for (const offset of [0, 16, 32]) {
    expect(planSharing([linear(builder, x, both), activate(offset)]).map(({ meets, nParts }) => [meets.many, nParts])).toEqual([[true, 1], [false, 1]])
  }
  // Halves that are no whole panels.
  const [odd, z] = [builder.buffer('odd', 24), builder.buffer('z', 12)]
  const half: Op = { kind: 'activation', function: 'silu', x: columns(odd, 12, 12), by: null, out: z }
  expect(planSharing([linear(builder, x, odd), half]).map(({ meets, nParts }) => [meets.many, nParts])).toEqual([[true, 1], [false, 1]])
})

test('a single row each thread norms for itself, unless it would read what another has written', () => {
  const builder = new ProgramBuilder()
  const [x, normed, y, gate] = ['x', 'normed', 'y', 'gate'].map((name) => builder.buffer(name, 16))
  const norm = (options: { x: View; out: View; gate?: View }): Op => ({ kind: 'rmsNorm', gate: null, weight: null, eps: 1e-5, groupWidth: 16, ...options })
  const embed: Op = { kind: 'embed', weight: builder.parameter('embeddings', [24, 16]), out: x }
  const apart = [embed, norm({ x, out: normed }), linear(builder, normed, y), linear(builder, y, x), norm({ x, out: normed }), linear(builder, normed, y)]
  expect(meetings(apart, 'one')).toEqual([false, false, true, true, false, false])
  expect(meetings(apart)).toEqual([false, true, true, true, true, false])
  expect(planSharing(apart).map(({ each }) => each)).toEqual([true, true, false, false, true, false])
  for (const op of [norm({ x, out: x }), norm({ x, gate, out: normed })]) {
    const ops = [embed, op, linear(builder, op.out, y)]
    expect(planSharing(ops).map(({ each }) => each)).toEqual([true, false, false])
    expect(meetings(ops, 'one')).toEqual([op.out === x, true, false])
  }
})

test('keys and values are stored, all meet, then attention looks at them', () => {
  const builder = new ProgramBuilder()
  const [q, key, value, out] = ['q', 'key', 'value', 'out'].map((name) => builder.buffer(name, 16))
  const [cache, other] = ['layer', 'other layer'].map((name) => builder.keyValue(name, 16))
  const rotary = (x: View): Op => ({ kind: 'rotary', x, headDim: 8, rotaryDim: 8, theta: 1e4, out: x })
  const store: Op = { kind: 'cacheKeyValue', key, value, cache, out: key }
  const attend: Op = { kind: 'attention', q, headDim: 8, scale: 1, cache, out }
  // A row's queries and keys are turned and stored by one thread.
  expect(meetings([rotary(q), rotary(key), store, attend])).toEqual([false, false, true, false])
  // Another layer's cache is another place.
  expect(meetings([store, { ...attend, cache: other }])).toEqual([false, false])
  // What attention reads may not be overwritten before all have read it.
  expect(meetings([attend, store])).toEqual([true, false])
})
