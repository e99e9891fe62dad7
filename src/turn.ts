/** What one forward holds: where the tokens of each request stand in the batch. */

import type { Batch, Segment } from './backend/backend.ts'

/** A sequence's part of a turn. */
export interface Part {
  readonly slot: number
  readonly position: number
  readonly tokens: Int32Array
  readonly logits: Segment['logits']
}

/** The parts one after the other, and how many rows of logits each of them gets, in the same order. */
export function joinParts(parts: readonly Part[]): { batch: Batch; nLogits: readonly number[]; nAllLogits: number } {
  // A lone one needs no copy.
  const tokens = parts.length === 1 ? parts[0].tokens : new Int32Array(parts.reduce((sum, part) => sum + part.tokens.length, 0))
  let firstRow = 0
  const segments = parts.map(({ slot, position, tokens: own, logits }): Segment => {
    if (parts.length > 1) tokens.set(own, firstRow)
    firstRow += own.length
    return { slot, position, firstRow: firstRow - own.length, nRows: own.length, logits }
  })
  const nLogits = segments.map(({ nRows, logits }) => (logits === 'all' ? nRows : Number(logits === 'last')))
  return { batch: { tokens, segments }, nLogits, nAllLogits: nLogits.reduce((sum, count) => sum + count, 0) }
}
