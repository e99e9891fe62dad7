/** What the ops of other models than Mamba-1's need of wasm memory. */

import { EXPERT_ENTRY_WORDS, EXPERT_PANELS, EXPERT_ROWS, KEY_BLOCK, LANES, OP_WORDS, PANEL_ROWS, QUERY_TILE, SSD_BLOCK, SSD_CHUNK } from '../../../assembly/abi.ts'
import type { ExpertLinearOp, RotaryOp, SsdScanOp } from '../../program/ops.ts'
import { keyValueLayouts } from './key-value.ts'
import { ALIGN_BYTES, type FurtherSizes, type LayoutOf, linearScratchBytes, type RotaryTable } from './memory-map.ts'
import { panels, plain, roundUp } from './packing.ts'

export const furtherSizes: FurtherSizes = {
  keyValueLayouts,
  layoutsOf(op, matrices) {
    switch (op.kind) {
      case 'ssdScan': return [op.A, op.D, op.dtBias].map((parameter) => [parameter, plain(parameter)])
      case 'expertLinear': return op.weights.map((weight) => [weight, panels(weight, matrices)])
      case 'rotary':
      case 'cacheKeyValue':
      case 'attention':
      case 'activation':
      case 'scaledAdd':
      case 'route':
      case 'mixExperts': return []
    }
  },
  tables({ ops }, maxRows, allocate) {
    const rotaries: RotaryTable[] = []
    const experts = new Map<ExpertLinearOp, number>()
    for (const op of ops) {
      if (op.kind === 'rotary' && rotaryOf(rotaries, op) === undefined) {
        rotaries.push({ theta: op.theta, rotaryDim: op.rotaryDim, address: allocate(4 * op.rotaryDim * maxRows) })
      }
      if (op.kind === 'expertLinear') experts.set(op, allocate(4 * EXPERT_ENTRY_WORDS * op.nExperts))
    }
    return { rotaries, experts }
  },
  scratchBytes(op, layoutOf, ssd) {
    switch (op.kind) {
      case 'ssdScan': return Math.max(4 * (2 * SSD_BLOCK + LANES), ssd === 'chunked' ? ssdChunkBytes(op) : 0)
      case 'expertLinear': {
        const { nIn, nOut } = expertSizes(op)
        return expertScratchStart(op, layoutOf) + 4 * (OP_WORDS + EXPERT_ROWS * (1 + nIn + Math.min(roundUp(nOut, PANEL_ROWS), EXPERT_PANELS * PANEL_ROWS)))
      }
      case 'attention': {
        const nQueries = Math.max(QUERY_TILE, Math.ceil(op.q.width / op.cache.width))
        return 4 * nQueries * (KEY_BLOCK + 3 + roundUp(op.headDim, LANES))
      }
      case 'rotary':
      case 'cacheKeyValue':
      case 'activation':
      case 'scaledAdd':
      case 'route':
      case 'mixExperts': return 0
    }
  }
}

export function rotaryOf(rotaries: readonly RotaryTable[], { theta, rotaryDim }: Pick<RotaryOp, 'theta' | 'rotaryDim'>): RotaryTable | undefined {
  return rotaries.find((table) => table.theta === theta && table.rotaryDim === rotaryDim)
}

/** As assembly/ops/ssd-chunks.ts lays it out: five numbers a token, decay and two tiles, scores and mix, x, B and C of a head. */
function ssdChunkBytes({ x, dt, dState }: SsdScanOp): number {
  const headDim = x.width / dt.width
  return 4 * (SSD_CHUNK * (5 + 2 * SSD_CHUNK + headDim + 2 * roundUp(dState, PANEL_ROWS)) + 9 * PANEL_ROWS)
}

/** Of one choice. */
export function expertSizes({ x, isPerChoice, topK, out }: ExpertLinearOp): { readonly nIn: number; readonly nOut: number } {
  return { nIn: isPerChoice ? x.width / topK : x.width, nOut: out.width / topK }
}

/** Where a thread's scratch of an expertLinear goes on behind that of the products. */
export function expertScratchStart(op: ExpertLinearOp, layoutOf: LayoutOf): number {
  const { nIn } = expertSizes(op)
  return roundUp(Math.max(...op.weights.map((weight) => linearScratchBytes(layoutOf(weight), nIn))), ALIGN_BYTES)
}
