/**
 * Every op in float64, as the paper writes it. This is the documentation of the method and the oracle of the kernels:
 * plain loops, no blocking, no SIMD.
 */

import type { LinearOp, OpKind, RmsNormOp } from '../../program/ops.ts'
import { activations, silu } from './activations.ts'
import { attention, cacheKeyValue, rotary } from './attention-ops.ts'
import { type Context, rowsOf, type Runner } from './context.ts'
import { expertLinear, mixExperts, route } from './expert-ops.ts'
import { conv1d, selectiveScan, ssdScan } from './scan-ops.ts'

export const referenceOps: { readonly [K in OpKind]: Runner<K> } = {
  embed(op, { batch, memory }) {
    const W = memory.parameter(op.weight)
    batch.tokens.forEach((token, row) => {
      for (let i = 0; i < op.out.width; i++) memory.set(op.out, row, i, W[token * op.out.width + i])
    })
  },

  gatherRows(op, { logitRows, memory }) {
    logitRows.forEach((source, row) => {
      for (let i = 0; i < op.out.width; i++) memory.set(op.out, row, i, memory.get(op.x, source, i))
    })
  },

  rmsNorm(op, context) {
    for (let row = 0; row < rowsOf(op.x, context); row++) normalizeRow(op, context, row)
  },

  linear(op, context) {
    for (let row = 0; row < rowsOf(op.x, context); row++) linearRow(op, context, row)
  },

  activation({ x, by, function: f, out }, context) {
    const { memory } = context
    for (let row = 0; row < rowsOf(x, context); row++) {
      for (let i = 0; i < x.width; i++) memory.set(out, row, i, activations[f](memory.get(x, row, i)) * (by ? memory.get(by, row, i) : 1))
    }
  },

  scaledAdd({ x, factor, accumulate, out }, context) {
    const { memory } = context
    for (let row = 0; row < rowsOf(x, context); row++) {
      for (let i = 0; i < x.width; i++) memory.set(out, row, i, factor * memory.get(x, row, i) + (accumulate ? memory.get(out, row, i) : 0))
    }
  },

  conv1d,
  selectiveScan,
  ssdScan,
  rotary,
  cacheKeyValue,
  attention,
  route,
  expertLinear,
  mixExperts
}

function normalizeRow(op: RmsNormOp, { memory }: Context, row: number): void {
  const weight = op.weight && memory.parameter(op.weight)
  const { gate, groupWidth } = op
  for (let first = 0; first < op.x.width; first += groupWidth) {
    const values = Array.from({ length: groupWidth }, (_, i) => {
      const x = memory.get(op.x, row, first + i)
      return gate ? x * silu(memory.get(gate, row, first + i)) : x
    })
    const sum = values.reduce((total, value) => total + value ** 2, 0)
    const scale = 1 / Math.sqrt(sum / groupWidth + op.eps)
    values.forEach((value, i) => memory.set(op.out, row, first + i, value * scale * (weight ? weight[first + i] : 1)))
  }
}

function linearRow(op: LinearOp, { memory }: Context, row: number): void {
  const W = memory.parameter(op.weight)
  const bias = op.bias && memory.parameter(op.bias)
  const nIn = op.x.width
  for (let o = 0; o < op.out.width; o++) {
    let sum = bias ? bias[o] : 0
    for (let k = 0; k < nIn; k++) sum += W[o * nIn + k] * memory.get(op.x, row, k)
    memory.set(op.out, row, o, op.accumulate ? memory.get(op.out, row, o) + sum : sum)
  }
}
