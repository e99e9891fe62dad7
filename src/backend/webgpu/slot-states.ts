/**
 * Where the states of sequences lie in the buffers of the program's parts: each slot's at a place of its own, and one place more. A step that may not count
 * writes to that one; where it counts the two change roles, and where not nothing has happened, and no state was copied.
 */

import { elementsOf, type Program } from '../../program/ops.ts'
import type { Capacity } from '../backend.ts'
import type { StatePlaces } from './batch.ts'
import type { GpuMemory } from './memory.ts'
import type { Piece } from './readback.ts'

export interface SlotStates {
  readonly inPlace: (slot: number) => StatePlaces
  /** Read where the slot's are, written to the spare place. */
  readonly ahead: (slot: number) => StatePlaces
  /** What is at the spare place is the slot's from here on. */
  adopt(slot: number): void
  /** What a slot's canonical state consists of, in its order. */
  pieces(slot: number, position: number): Piece[]
}

export function createSlotStates({ states, keyValues }: Program, { nSlots, contextLength }: Capacity, memory: GpuMemory): SlotStates {
  /** Of each slot, and the spare one behind them. */
  const places = Array.from({ length: nSlots + 1 }, (_, slot) => slot)
  return {
    inPlace: (slot) => ({ from: places[slot], to: places[slot] }),
    ahead: (slot) => ({ from: places[slot], to: places[nSlots] }),
    adopt(slot) {
      [places[slot], places[nSlots]] = [places[nSlots], places[slot]]
    },
    pieces: (slot, position) => [
      ...states.map((part) => {
        const count = elementsOf(part.shape)
        return { buffer: memory.stateOf(part), first: places[slot] * count, count }
      }),
      // What a step ahead adds is behind the position.
      ...keyValues.flatMap((part) => {
        const { keys, values } = memory.keyValueOf(part)
        const piece = { first: slot * contextLength * part.width, count: position * part.width }
        return [{ buffer: keys, ...piece }, { buffer: values, ...piece }]
      })
    ]
  }
}
