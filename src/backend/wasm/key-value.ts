/** Where an attention layer's keys and values lie in a state slot (drawn in assembly/ops/attention.ts). */

import { KEY_BLOCK, LANES } from '../../../assembly/abi.ts'
import type { KeyValuePart, Program } from '../../program/ops.ts'
import { roundUp } from './packing.ts'

export interface KeyValueLayout {
  readonly headDim: number
  readonly nHeads: number
  /** Byte offset in a slot. */
  readonly keys: number
  readonly values: number
  /** From head to head. */
  readonly keyHeadBytes: number
  readonly valueHeadBytes: number
  /** Of both. */
  readonly bytes: number
  /** A key and a value of all heads. */
  readonly tokenBytes: number
}

/** The layouts of a program's caches, one after the other from byte `first` of a slot on. */
export function keyValueLayouts(program: Program, contextLength: number, first: number): Map<KeyValuePart, KeyValueLayout> {
  const layouts = new Map<KeyValuePart, KeyValueLayout>()
  let next = first
  for (const part of program.keyValues) {
    const layout = layoutOf(headDimOf(program, part), part.width, { contextLength, first: next })
    layouts.set(part, layout)
    next += layout.bytes
  }
  return layouts
}

/** That of the attention which reads the part; one head where none does. */
function headDimOf(program: Program, part: KeyValuePart): number {
  const dims = program.ops.flatMap((op) => (op.kind === 'attention' && op.cache === part ? [op.headDim] : []))
  const headDim = dims[0] ?? part.width
  if (dims.some((other) => other !== headDim)) throw new TypeError(`${part.name}: needed in heads of ${dims.join(' and of ')}`)
  return headDim
}

function layoutOf(headDim: number, width: number, { contextLength, first }: { contextLength: number; first: number }): KeyValueLayout {
  const nHeads = width / headDim
  const keyHeadBytes = 4 * roundUp(contextLength, KEY_BLOCK) * headDim
  const valueHeadBytes = 4 * contextLength * roundUp(headDim, LANES)
  return {
    headDim, nHeads, keyHeadBytes, valueHeadBytes, keys: first, values: first + nHeads * keyHeadBytes, bytes: nHeads * (keyHeadBytes + valueHeadBytes),
    tokenBytes: 4 * nHeads * (headDim + roundUp(headDim, LANES))
  }
}
