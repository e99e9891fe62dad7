/** Convolution and the state spaces in float64, token by token. */

import { type Conv1dOp, isParameter, scanGroups, type ScanInput, type SelectiveScanOp, type SsdScanOp } from '../../program/ops.ts'
import { silu, softplus } from './activations.ts'
import type { Context, Runner } from './context.ts'

export const conv1d: Runner<'conv1d'> = (op, context) => {
  for (const { slot, firstRow, nRows } of context.batch.segments) {
    for (let t = 0; t < nRows; t++) convolveRow(op, context, slot, firstRow + t)
  }
}

export const selectiveScan: Runner<'selectiveScan'> = (op, context) => {
  for (const { slot, firstRow, nRows } of context.batch.segments) {
    for (let t = 0; t < nRows; t++) scanRow(op, context, slot, firstRow + t)
  }
}

export const ssdScan: Runner<'ssdScan'> = (op, context) => {
  for (const { slot, firstRow, nRows } of context.batch.segments) {
    for (let t = 0; t < nRows; t++) scanHeads(op, context, slot, firstRow + t)
  }
}

/** out_t = silu(bias + Σ_j w_j · x_{t − (dConv − 1) + j}); the state holds the dConv − 1 inputs before x_t. */
function convolveRow(op: Conv1dOp, { memory }: Context, slot: number, row: number): void {
  const dConv = op.weight.shape[2]
  const weight = memory.parameter(op.weight)
  const bias = op.bias && memory.parameter(op.bias)
  const state = memory.state(slot, op.state)
  for (let d = 0; d < op.x.width; d++) {
    const past = state.subarray(d * (dConv - 1), (d + 1) * (dConv - 1))
    const x = memory.get(op.x, row, d)
    let sum = bias ? bias[d] : 0
    for (let j = 0; j < dConv - 1; j++) sum += weight[d * dConv + j] * past[j]
    sum += weight[d * dConv + dConv - 1] * x
    if (dConv > 1) {
      past.copyWithin(0, 1)
      past[dConv - 2] = x
    }
    memory.set(op.out, row, d, op.activation === 'silu' ? silu(sum) : sum)
  }
}

/** Algorithm 2 of the paper for one token: dt, B and C depend on the input, so the state h keeps or forgets by content. */
function scanRow(op: SelectiveScanOp, { memory }: Context, slot: number, row: number): void {
  const { dState } = op
  const A = memory.parameter(op.A)
  const D = op.D && memory.parameter(op.D)
  const dtBias = op.dtBias && memory.parameter(op.dtBias)
  const h = memory.state(slot, op.state)
  const valueOf = (input: ScanInput, d: number, n: number): number => {
    if (isParameter(input)) return memory.parameter(input)[d * dState + n]
    const group = Math.floor(d / (op.x.width / scanGroups(op, input)))
    return memory.get(input, row, group * dState + n)
  }
  for (let d = 0; d < op.x.width; d++) {
    const x = memory.get(op.x, row, d)
    let dt = memory.get(op.dt, row, d) + (dtBias ? dtBias[d] : 0)
    if (op.dtSoftplus) dt = softplus(dt)
    let y = 0
    for (let n = 0; n < dState; n++) {
      const i = d * dState + n
      const ABar = Math.exp(dt * A[i])
      const BBarX = dt * valueOf(op.B, d, n) * x
      h[i] = ABar * h[i] + BBarX
      y += valueOf(op.C, d, n) * h[i]
    }
    if (D) y += D[d] * x
    memory.set(op.out, row, d, op.z ? y * silu(memory.get(op.z, row, d)) : y)
  }
}

/** Mamba-2 for one token: a head's whole state (headDim, dState) decays by one number, and what comes in is the outer product of x and B. */
function scanHeads(op: SsdScanOp, { memory }: Context, slot: number, row: number): void {
  const { dState, dtLimit: [dtMin, dtMax] } = op
  const nHeads = op.dt.width
  const headDim = op.x.width / nHeads
  const nGroups = op.B.width / dState
  const A = memory.parameter(op.A)
  const D = op.D && memory.parameter(op.D)
  const dtBias = op.dtBias && memory.parameter(op.dtBias)
  const h = memory.state(slot, op.state)
  for (let head = 0; head < nHeads; head++) {
    const group = Math.floor((head * nGroups) / nHeads)
    const dt = Math.min(Math.max(softplus(memory.get(op.dt, row, head) + (dtBias ? dtBias[head] : 0)), dtMin), dtMax)
    const decay = Math.exp(dt * A[head])
    for (let p = head * headDim; p < (head + 1) * headDim; p++) {
      const x = memory.get(op.x, row, p)
      let y = D ? D[head] * x : 0
      for (let n = 0; n < dState; n++) {
        const i = p * dState + n
        h[i] = decay * h[i] + dt * x * memory.get(op.B, row, group * dState + n)
        y += memory.get(op.C, row, group * dState + n) * h[i]
      }
      memory.set(op.out, row, p, y)
    }
  }
}
