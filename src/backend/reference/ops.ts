/**
 * Every op in float64, as the paper writes it. This is the documentation of the method and the oracle of the kernels:
 * plain loops, no blocking, no SIMD.
 */

import { type ActivationFunction, type AttentionOp, type Conv1dOp, isParameter, type LinearOp, type OpKind, type OpOf, type RmsNormOp, scanGroups, type ScanInput, type SelectiveScanOp, type SsdScanOp, type View } from '../../program/ops.ts'
import { rotaryRow } from '../../program/rotary.ts'
import type { Batch } from '../backend.ts'
import type { ReferenceMemory } from './memory.ts'

/** What an op sees of a forward. */
export interface Context {
  readonly batch: Batch
  readonly logitRows: readonly number[]
  readonly memory: ReferenceMemory
}

type Runner<K extends OpKind> = (op: OpOf<K>, context: Context) => void

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

  conv1d(op, context) {
    for (const { slot, firstRow, nRows } of context.batch.segments) {
      for (let t = 0; t < nRows; t++) convolveRow(op, context, slot, firstRow + t)
    }
  },

  selectiveScan(op, context) {
    for (const { slot, firstRow, nRows } of context.batch.segments) {
      for (let t = 0; t < nRows; t++) scanRow(op, context, slot, firstRow + t)
    }
  },

  ssdScan(op, context) {
    for (const { slot, firstRow, nRows } of context.batch.segments) {
      for (let t = 0; t < nRows; t++) scanHeads(op, context, slot, firstRow + t)
    }
  },

  rotary({ x, headDim, rotaryDim, theta, out }, { batch, memory }) {
    const half = rotaryDim / 2
    for (const { position, firstRow, nRows } of batch.segments) {
      for (let t = 0; t < nRows; t++) {
        const angles = rotaryRow(theta, rotaryDim, position + t)
        for (let head = 0; head < x.width; head += headDim) {
          for (let i = head; i < head + half; i++) {
            const [a, b] = [memory.get(x, firstRow + t, i), memory.get(x, firstRow + t, i + half)]
            const [cos, sin] = [angles[i - head], angles[half + i - head]]
            memory.set(out, firstRow + t, i, a * cos - b * sin)
            memory.set(out, firstRow + t, i + half, b * cos + a * sin)
          }
        }
      }
    }
  },

  cacheKeyValue({ key, value, cache }, { batch, memory }) {
    for (const { slot, position, firstRow, nRows } of batch.segments) {
      const [keys, values] = [memory.keys(slot, cache), memory.values(slot, cache)]
      for (let t = 0; t < nRows; t++) {
        for (let i = 0; i < cache.width; i++) {
          keys[(position + t) * cache.width + i] = memory.get(key, firstRow + t, i)
          values[(position + t) * cache.width + i] = memory.get(value, firstRow + t, i)
        }
      }
    }
  },

  attention(op, context) {
    for (const { slot, position, firstRow, nRows } of context.batch.segments) {
      for (let t = 0; t < nRows; t++) attendRow(op, context, { slot, row: firstRow + t, nKeys: position + t + 1 })
    }
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

  route({ x, topK, softmaxOver, out }, context) {
    const { memory } = context
    for (let row = 0; row < rowsOf(x, context); row++) {
      const logits = Array.from({ length: x.width }, (_, i) => memory.get(x, row, i))
      const byLogit = logits.map((_, i) => i).sort((a, b) => logits[b] - logits[a] || a - b)
      const chosen = byLogit.slice(0, topK).sort((a, b) => a - b)
      const sum = (softmaxOver === 'all' ? byLogit : chosen).reduce((total, i) => total + Math.exp(logits[i] - logits[byLogit[0]]), 0)
      chosen.forEach((expert, j) => {
        memory.set(out, row, j, expert)
        memory.set(out, row, topK + j, Math.exp(logits[expert] - logits[byLogit[0]]) / sum)
      })
    }
  },

  expertLinear(op, context) {
    const { memory } = context
    const { topK } = op
    const nIn = op.isPerChoice ? op.x.width / topK : op.x.width
    const nOut = op.out.width / topK
    for (let row = 0; row < rowsOf(op.x, context); row++) {
      for (let j = 0; j < topK; j++) {
        const expert = memory.get(op.choices, row, j)
        const [weight] = op.weights
        const W = op.weights.length === 1 ? memory.parameter(weight).subarray(expert * nOut * nIn) : memory.parameter(op.weights[expert])
        for (let o = 0; o < nOut; o++) {
          let sum = 0
          for (let k = 0; k < nIn; k++) sum += W[o * nIn + k] * memory.get(op.x, row, (op.isPerChoice ? j * nIn : 0) + k)
          memory.set(op.out, row, j * nOut + o, sum)
        }
      }
    }
  },

  mixExperts({ x, choices, topK, accumulate, out }, context) {
    const { memory } = context
    for (let row = 0; row < rowsOf(x, context); row++) {
      for (let i = 0; i < out.width; i++) {
        let sum = 0
        for (let j = 0; j < topK; j++) sum += memory.get(choices, row, topK + j) * memory.get(x, row, j * out.width + i)
        memory.set(out, row, i, accumulate ? memory.get(out, row, i) + sum : sum)
      }
    }
  }
}

function rowsOf(view: View, { batch, logitRows }: Context): number {
  return view.buffer.rows === 'token' ? batch.tokens.length : logitRows.length
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

/** softmax(scale · q · keysᵀ) · values of one token over the `nKeys` tokens up to itself. */
function attendRow({ q, headDim, scale, cache, out }: AttentionOp, { memory }: Context, { slot, row, nKeys }: { readonly slot: number; readonly row: number; readonly nKeys: number }): void {
  const [keys, values] = [memory.keys(slot, cache), memory.values(slot, cache)]
  const nHeads = q.width / headDim
  for (let head = 0; head < nHeads; head++) {
    const kvColumn = Math.floor((head * (cache.width / headDim)) / nHeads) * headDim
    const scores = Array.from({ length: nKeys }, (_, t) => {
      let dot = 0
      for (let i = 0; i < headDim; i++) dot += memory.get(q, row, head * headDim + i) * keys[t * cache.width + kvColumn + i]
      return scale * dot
    })
    const largest = scores.reduce((a, b) => Math.max(a, b))
    const weights = scores.map((score) => Math.exp(score - largest))
    const sum = weights.reduce((a, b) => a + b)
    for (let i = 0; i < headDim; i++) {
      let mean = 0
      for (let t = 0; t < nKeys; t++) mean += weights[t] * values[t * cache.width + kvColumn + i]
      memory.set(out, row, head * headDim + i, mean / sum)
    }
  }
}

const activations: { readonly [F in ActivationFunction]: (x: number) => number } = {
  silu,
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  relu2: (x) => Math.max(x, 0) ** 2
}

/** 2/√π · exp(−x²) · Σ 2ⁿ x^(2n + 1) / (2n + 1)!!: all terms have one sign. ±1 to the last digit from 6 on. */
function erf(x: number): number {
  if (Math.abs(x) >= 6) return Math.sign(x)
  let sum = 0
  for (let n = 0, term = x; sum + term !== sum; n++, term *= (2 * x * x) / (2 * n + 1)) sum += term
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum
}

/** PyTorch's: the identity above 20. */
function softplus(x: number): number {
  return x > 20 ? x : Math.log1p(Math.exp(x))
}

function silu(x: number): number {
  return x / (1 + Math.exp(-x))
}
