/** Mixtures of experts in float64: the choice, the products of the chosen ones, their sum. */

import { rowsOf, type Runner } from './context.ts'

export const route: Runner<'route'> = ({ x, topK, softmaxOver, out }, context) => {
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
}

export const expertLinear: Runner<'expertLinear'> = (op, context) => {
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
}

export const mixExperts: Runner<'mixExperts'> = ({ x, choices, topK, accumulate, out }, context) => {
  const { memory } = context
  for (let row = 0; row < rowsOf(x, context); row++) {
    for (let i = 0; i < out.width; i++) {
      let sum = 0
      for (let j = 0; j < topK; j++) sum += memory.get(choices, row, topK + j) * memory.get(x, row, j * out.width + i)
      memory.set(out, row, i, accumulate ? memory.get(out, row, i) + sum : sum)
    }
  }
}
