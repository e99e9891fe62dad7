/** What an op of the reference backend sees of a forward. */

import type { OpKind, OpOf, View } from '../../program/ops.ts'
import type { Batch } from '../backend.ts'
import type { ReferenceMemory } from './memory.ts'

export interface Context {
  readonly batch: Batch
  readonly logitRows: readonly number[]
  readonly memory: ReferenceMemory
}

export type Runner<K extends OpKind> = (op: OpOf<K>, context: Context) => void

/** Rows of this forward in a view's buffer. */
export function rowsOf(view: View, { batch, logitRows }: Context): number {
  return view.buffer.rows === 'token' ? batch.tokens.length : logitRows.length
}
