/** What a forward tells the kernels: the words of the batch buffer, as kernel.ts draws them, and the angles of its rows. */

import { rotaryRow } from '../../program/rotary.ts'
import type { Batch, Capacity } from '../backend.ts'
import { BATCH_HEADER_WORDS, type BatchCounts, SEGMENT_WORDS, tokensAt } from './kernel.ts'
import type { GpuMemory } from './memory.ts'

/** `nScores`: pairs of a row and a position that it looks at. */
export function countsOf({ tokens, segments }: Batch, nLogitRows: number): BatchCounts & { readonly nScores: number } {
  return {
    nTokens: tokens.length,
    nLogitRows,
    nSegments: segments.length,
    maxSegmentRows: segments.reduce((most, { nRows }) => Math.max(most, nRows), 0),
    maxPositions: segments.reduce((most, { position, nRows }) => Math.max(most, position + nRows), 0),
    nScores: segments.reduce((sum, { position, nRows }) => sum + nRows * position + (nRows * (nRows + 1)) / 2, 0)
  }
}

/** Where a slot's states are read and written. */
export interface StatePlaces {
  readonly from: number
  readonly to: number
}

/** Writes the words; the same array every time. */
export function createBatchWords(capacity: Capacity): (batch: Batch, logitRows: readonly number[], placesOf: (slot: number) => StatePlaces) => Uint32Array<ArrayBuffer> {
  const { maxRows, maxLogitRows } = capacity
  const words = new Uint32Array(tokensAt(capacity) + 2 * maxRows + maxLogitRows)
  const tokens = words.subarray(tokensAt(capacity))
  const segmentByRow = tokens.subarray(maxRows)
  const rows = segmentByRow.subarray(maxRows)
  return (batch, logitRows, placesOf) => {
    words.set([batch.tokens.length, logitRows.length, batch.segments.length])
    batch.segments.forEach(({ slot, position, firstRow, nRows }, i) => {
      const { from, to } = placesOf(slot)
      words.set([slot, position, firstRow, nRows, from, to], BATCH_HEADER_WORDS + SEGMENT_WORDS * i)
      segmentByRow.fill(i, firstRow, firstRow + nRows)
    })
    tokens.set(batch.tokens)
    rows.set(logitRows)
    return words
  }
}

/** The angles by which each row's queries and keys are turned. */
export function writeAngles(device: GPUDevice, { rotaries }: GpuMemory, { tokens, segments }: Batch): void {
  for (const { theta, rotaryDim, buffer } of rotaries) {
    const angles = new Float32Array(tokens.length * rotaryDim)
    for (const { position, firstRow, nRows } of segments) {
      for (let t = 0; t < nRows; t++) angles.set(rotaryRow(theta, rotaryDim, position + t), (firstRow + t) * rotaryDim)
    }
    device.queue.writeBuffer(buffer, 0, angles)
  }
}
