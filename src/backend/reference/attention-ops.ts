/** Positions, the cache of keys and values, and attention, in float64. */

import type { AttentionOp } from '../../program/ops.ts'
import { rotaryRow } from '../../program/rotary.ts'
import type { Context, Runner } from './context.ts'

export const rotary: Runner<'rotary'> = ({ x, headDim, rotaryDim, theta, out }, { batch, memory }) => {
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
}

export const cacheKeyValue: Runner<'cacheKeyValue'> = ({ key, value, cache }, { batch, memory }) => {
  for (const { slot, position, firstRow, nRows } of batch.segments) {
    const [keys, values] = [memory.keys(slot, cache), memory.values(slot, cache)]
    for (let t = 0; t < nRows; t++) {
      for (let i = 0; i < cache.width; i++) {
        keys[(position + t) * cache.width + i] = memory.get(key, firstRow + t, i)
        values[(position + t) * cache.width + i] = memory.get(value, firstRow + t, i)
      }
    }
  }
}

export const attention: Runner<'attention'> = (op, context) => {
  for (const { slot, position, firstRow, nRows } of context.batch.segments) {
    for (let t = 0; t < nRows; t++) attendRow(op, context, { slot, row: firstRow + t, nKeys: position + t + 1 })
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
