/** Where an attention layer's keys and values lie in a state slot (drawn in assembly/ops/attention.ts), and their way to the canonical form and back. */

import { KEY_BLOCK, LANES } from '../../../assembly/abi.ts'
import type { KeyValuePart, Program } from '../../program/ops.ts'

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
    headDim, nHeads, keyHeadBytes, valueHeadBytes, keys: first, values: first + nHeads * keyHeadBytes, bytes: nHeads * (keyHeadBytes + valueHeadBytes)
  }
}

/** A key and a value of all heads. */
export function tokenBytes({ headDim, nHeads }: KeyValueLayout): number {
  return 4 * nHeads * (headDim + roundUp(headDim, LANES))
}

export interface KeyValueCopy {
  readonly memory: ArrayBufferLike
  /** Address of the slot. */
  readonly slot: number
  readonly head: number
  /** Tokens. */
  readonly position: number
  /** Of all heads: keys (position, width), then values (position, width). */
  readonly canonical: Float32Array
}

/** A head's keys and values of the first `position` tokens from a slot to their canonical form. */
export function readKeyValue(layout: KeyValueLayout, copy: KeyValueCopy): void {
  const { headDim, nHeads } = layout
  const { head, position, canonical } = copy
  const { keys, values } = viewsOf(layout, copy)
  for (let t = 0; t < position; t++) {
    const [key, row] = [keyIndex(t, headDim), (t * nHeads + head) * headDim]
    for (let i = 0; i < headDim; i++) canonical[row + i] = keys[key + i * KEY_BLOCK]
    const value = t * roundUp(headDim, LANES)
    canonical.set(values.subarray(value, value + headDim), position * nHeads * headDim + row)
  }
}

/** The other way. */
export function writeKeyValue(layout: KeyValueLayout, copy: KeyValueCopy): void {
  const { headDim, nHeads } = layout
  const { head, position, canonical } = copy
  const { keys, values } = viewsOf(layout, copy)
  for (let t = 0; t < position; t++) {
    const [key, row] = [keyIndex(t, headDim), (t * nHeads + head) * headDim]
    for (let i = 0; i < headDim; i++) keys[key + i * KEY_BLOCK] = canonical[row + i]
    const value = position * nHeads * headDim + row
    values.set(canonical.subarray(value, value + headDim), t * roundUp(headDim, LANES))
  }
}

/** What a head has in a slot. */
function viewsOf({ keys, values, keyHeadBytes, valueHeadBytes }: KeyValueLayout, { memory, slot, head }: KeyValueCopy): { readonly keys: Float32Array; readonly values: Float32Array } {
  return {
    keys: new Float32Array(memory, slot + keys + head * keyHeadBytes, keyHeadBytes / 4),
    values: new Float32Array(memory, slot + values + head * valueHeadBytes, valueHeadBytes / 4)
  }
}

/** Element of column 0 of a position; the next column's is KEY_BLOCK on. */
function keyIndex(position: number, headDim: number): number {
  const lane = position % KEY_BLOCK
  return (position - lane) * headDim + lane
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple
}
