/** Where threads have to meet between the ops of hybrids, and where they need not. That no barrier is missing anywhere, the tests of threads show. */
import { expect, test } from 'vitest'
import { planBarriers } from '../../src/program/barriers.ts'
import { columns, ProgramBuilder } from '../../src/program/builder.ts'
import type { Op, View } from '../../src/program/ops.ts'

const linear = (builder: ProgramBuilder, x: View, out: View): Op => ({
  kind: 'linear', x, out, bias: null, accumulate: false, weight: builder.parameter(`${x.buffer.name} to ${out.buffer.name} ${out.offset}`, [out.width, x.width])
})

test('an activation goes on with the columns that its thread has made', () => {
  const builder = new ProgramBuilder()
  const [x, gate, up, y] = ['x', 'gate', 'up', 'y'].map((name) => builder.buffer(name, 16))
  const activation: Op = { kind: 'activation', function: 'silu', x: gate, by: up, out: gate }
  expect(planBarriers([linear(builder, x, gate), linear(builder, x, up), activation, linear(builder, gate, y)])).toEqual([false, false, true, false])
})

test('of both halves of one product the columns are others', () => {
  const builder = new ProgramBuilder()
  const [x, both, y] = [builder.buffer('x', 16), builder.buffer('both', 32), builder.buffer('y', 16)]
  const gate = columns(both, 0, 16)
  const activation: Op = { kind: 'activation', function: 'silu', x: gate, by: columns(both, 16, 16), out: gate }
  expect(planBarriers([linear(builder, x, both), activation, linear(builder, gate, y)])).toEqual([true, true, false])
})

test('keys and values are stored, all meet, then attention looks at them', () => {
  const builder = new ProgramBuilder()
  const [q, key, value, out] = ['q', 'key', 'value', 'out'].map((name) => builder.buffer(name, 16))
  const [cache, other] = ['layer', 'other layer'].map((name) => builder.keyValue(name, 16))
  const rotary = (x: View): Op => ({ kind: 'rotary', x, headDim: 8, rotaryDim: 8, theta: 1e4, out: x })
  const store: Op = { kind: 'cacheKeyValue', key, value, cache, out: key }
  const attend: Op = { kind: 'attention', q, headDim: 8, scale: 1, cache, out }
  // A row's queries and keys are turned and stored by one thread.
  expect(planBarriers([rotary(q), rotary(key), store, attend])).toEqual([false, false, true, false])
  // Another layer's cache is another place.
  expect(planBarriers([store, { ...attend, cache: other }])).toEqual([false, false])
  // What attention reads may not be overwritten before all have read it.
  expect(planBarriers([attend, store])).toEqual([true, false])
})
