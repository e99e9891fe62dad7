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

export interface KeyValueCopy {
  readonly memory: ArrayBufferLike
  /** Address of the slot. */
  readonly slot: number
  /** Tokens. */
  readonly position: number
  /** Keys (position, width), then values (position, width). */
  readonly canonical: Float32Array
}

/** A slot's keys and values of the first `position` tokens to their canonical form. */
export function readKeyValue(layout: KeyValueLayout, { memory, slot, position, canonical }: KeyValueCopy): void {
  const { headDim, nHeads } = layout
  const width = nHeads * headDim
  for (let head = 0; head < nHeads; head++) {
    const { keys, values } = headViews(layout, { memory, slot, head })
    const column = head * headDim
    for (let t = 0; t < position; t++) {
      const [key, row] = [keyIndex(t, headDim), t * width + column]
      for (let i = 0; i < headDim; i++) canonical[row + i] = keys[key + i * KEY_BLOCK]
      const value = t * roundUp(headDim, LANES)
      canonical.set(values.subarray(value, value + headDim), position * width + row)
    }
  }
}

/** The other way. */
export function writeKeyValue(layout: KeyValueLayout, { memory, slot, position, canonical }: KeyValueCopy): void {
  const { headDim, nHeads } = layout
  const width = nHeads * headDim
  for (let head = 0; head < nHeads; head++) {
    const { keys, values } = headViews(layout, { memory, slot, head })
    const column = head * headDim
    for (let t = 0; t < position; t++) {
      const [key, row] = [keyIndex(t, headDim), t * width + column]
      for (let i = 0; i < headDim; i++) keys[key + i * KEY_BLOCK] = canonical[row + i]
      const valueRow = position * width + row
      values.set(canonical.subarray(valueRow, valueRow + headDim), t * roundUp(headDim, LANES))
    }
  }
}

function headViews(layout: KeyValueLayout, { memory, slot, head }: { memory: ArrayBufferLike; slot: number; head: number }): { readonly keys: Float32Array; readonly values: Float32Array } {
  const { keyHeadBytes, valueHeadBytes } = layout
  return {
    keys: new Float32Array(memory, slot + layout.keys + head * keyHeadBytes, keyHeadBytes / 4),
    values: new Float32Array(memory, slot + layout.values + head * valueHeadBytes, valueHeadBytes / 4)
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
