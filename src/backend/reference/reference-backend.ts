/** Interprets a program in float64. Slow, readable, and what the other backends are tested against. */

import { elementsOf, type Op, type OpKind, type OpOf, type Program, type View } from '../../program/ops.ts'
import { type Batch, type Capacity, forwardInTurns, logitRows, ssdOf, stateElements, type SteppingBackend } from '../backend.ts'
import { createPace } from '../../pace.ts'
import type { Context } from './context.ts'
import { createReferenceMemory } from './memory.ts'
import { referenceOps } from './ops.ts'

export function createReferenceBackend(program: Program, capacity: Capacity, reason: string): SteppingBackend {
  const memory = createReferenceMemory(program, capacity)
  let context: Context = { batch: { tokens: new Int32Array(0), segments: [] }, logitRows: [], memory }

  const rowsOf = (view: View): number => (view.buffer.rows === 'token' ? context.batch.tokens.length : context.logitRows.length)
  const begin = (batch: Batch, firstLogitRow = 0): void => {
    context = { batch, logitRows: logitRows(batch).slice(firstLogitRow, firstLogitRow + capacity.maxLogitRows), memory }
  }
  const run = (firstOp: number, endOp: number): void => {
    for (const op of program.ops.slice(firstOp, endOp)) runOp(op, context)
  }
  const pace = createPace()
  const readView = (view: View, into: Float32Array = new Float32Array(rowsOf(view) * view.width)): Float32Array => {
    for (let row = 0; row < rowsOf(view); row++) {
      for (let i = 0; i < view.width; i++) into[row * view.width + i] = memory.get(view, row, i)
    }
    return into
  }

  /** The canonical state's parts and where each starts. */
  const stateParts = (slot: number, position: number): { part: Float64Array; first: number }[] => {
    let first = 0
    const parts = [memory.slot(slot), ...program.keyValues.flatMap((part) => [memory.keys(slot, part), memory.values(slot, part)].map((all) => all.subarray(0, position * part.width)))]
    return parts.map((part) => {
      first += part.length
      return { part, first: first - part.length }
    })
  }

  const backend: SteppingBackend = {
    program,
    capacity,
    info: { name: 'reference', build: 'float64', threads: 1, ssd: ssdOf(program, 'recurrent'), reason, memoryBytes: memory.bytes },
    formatOf: () => 'f32',
    write(parameter, values, first) {
      const target = memory.parameter(parameter)
      if (first + values.length > elementsOf(parameter.shape)) throw new RangeError(`${parameter.name}: write beyond its end`)
      target.set(values, first)
    },
    begin,
    run,
    readView,
    writeView(view, values) {
      values.forEach((value, i) => memory.set(view, Math.floor(i / view.width), i % view.width, value))
    },
    forward: (batch, logits) =>
      forwardInTurns(backend, batch, (view, first) => void backend.readView(view, logits.subarray(first * view.width)), async (first, end) => {
        for (let i = first; i < end; i++) {
          run(i, i + 1)
          await pace.pause()
        }
      }),
    async readState(slot, position, into = new Float32Array(stateElements(program, position))) {
      for (const { part, first } of stateParts(slot, position)) into.set(part, first)
      return into
    },
    async writeState(slot, position, state) {
      for (const { part, first } of stateParts(slot, position)) part.set(state.subarray(first, first + part.length))
    },
    async clearState(slot) {
      memory.slot(slot).fill(0)
    },
    async dispose() {}
  }
  return backend
}

function runOp<K extends OpKind>(op: OpOf<K>, context: Context): void
function runOp(op: Op, context: Context): void {
  const run = referenceOps[op.kind] as (op: Op, context: Context) => void
  run(op, context)
}
