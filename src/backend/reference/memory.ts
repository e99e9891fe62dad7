/** The reference backend's memory: float64 arrays by buffer, parameter and slot. */

import { type ActivationBuffer, elementsOf, type KeyValuePart, type Parameter, type Program, type StatePart, type View } from '../../program/ops.ts'
import type { Capacity, MemoryBytes } from '../backend.ts'

export interface ReferenceMemory {
  get(view: View, row: number, column: number): number
  set(view: View, row: number, column: number, value: number): void
  parameter(parameter: Parameter): Float64Array
  /** A part of a slot's state, in place. */
  state(slot: number, part: StatePart): Float64Array
  /** The whole state of a slot, in place, keys and values apart. */
  slot(slot: number): Float64Array
  /** Keys (contextLength, width) of a slot, in place. */
  keys(slot: number, part: KeyValuePart): Float64Array
  values(slot: number, part: KeyValuePart): Float64Array
  readonly bytes: MemoryBytes
}

export function createReferenceMemory(program: Program, { maxRows, maxLogitRows, nSlots, contextLength }: Capacity): ReferenceMemory {
  const rowsOf = (buffer: ActivationBuffer): number => (buffer.rows === 'token' ? maxRows : maxLogitRows)
  const buffers = program.buffers.map((buffer) => new Float64Array(rowsOf(buffer) * buffer.width))
  const parameters = program.parameters.map(({ shape }) => new Float64Array(elementsOf(shape)))
  const slots = Array.from({ length: nSlots }, () => new Float64Array(program.stateSize))
  const caches = slots.map(() => new Float64Array(contextLength * program.keyValueWidth))
  const cachePart = (slot: number, first: number, width: number): Float64Array => caches[slot].subarray(contextLength * first, contextLength * (first + width))
  const bytesOf = (arrays: readonly Float64Array[]): number => arrays.reduce((sum, array) => sum + array.byteLength, 0)
  const bytes = { weights: bytesOf(parameters), state: bytesOf(slots) + bytesOf(caches), statePerToken: 8 * nSlots * program.keyValueWidth, activations: bytesOf(buffers) }
  return {
    get: ({ buffer, offset }, row, column) => buffers[buffer.id][row * buffer.width + offset + column],
    set({ buffer, offset }, row, column, value) {
      buffers[buffer.id][row * buffer.width + offset + column] = value
    },
    parameter: ({ id }) => parameters[id],
    state: (slot, { offset, shape }) => slots[slot].subarray(offset, offset + elementsOf(shape)),
    slot: (slot) => slots[slot],
    keys: (slot, { offset, width }) => cachePart(slot, offset, width),
    values: (slot, { offset, width }) => cachePart(slot, offset + width, width),
    bytes: { ...bytes, total: bytes.weights + bytes.state + bytes.activations }
  }
}
