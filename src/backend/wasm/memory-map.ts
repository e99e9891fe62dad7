/**
 * Where everything lies in wasm memory, to the byte, from the program and the capacity alone. It never grows, so no view is ever detached.
 *
 *   0          heapBase
 *   ┌──────────┬─────────┬────────┬──────┬─────────┬─────────┬─────────────┬─────────────┐
 *   │ static   │ control │ tables │ ops  │ scratch │ weights │ state slots │ activations │
 *   └──────────┴─────────┴────────┴──────┴─────────┴─────────┴─────────────┴─────────────┘
 *                          tokens,         a block   packed    canonical,    rows padded to
 *                          segments,       for each  for the   then the      PANEL_ROWS
 *                          logit rows,     thread    kernels   keys and
 *                          rotary angles,                      values of
 *                          experts                             each layer
 */

import {
  CONTROL_WORDS, LANES, MAP_BLOCK, OP_WORDS, PANEL_ROWS, ROW_BLOCK, SCAN_BLOCK, SEGMENT_WORDS, SHARE_WORDS
} from '../../../assembly/abi.ts'
import type { ActivationBuffer, ExpertLinearOp, KeyValuePart, Op, OpOf, Parameter, Program, View } from '../../program/ops.ts'
import type { Capacity, MemoryBytes, SsdForm } from '../backend.ts'
import type { FurtherKind } from './encode.ts'
import type { KeyValueLayout } from './key-value.ts'
import { isDense, type Matrices, packedBytes, type PackedLayout, packedLayouts, type ParameterLayout, roundUp } from './packing.ts'
import { blockInputsOf } from './panel-blocks.ts'

export const PAGE_BYTES = 65536
/** What wasm can address. */
export const MAX_BYTES = 65536 * PAGE_BYTES
/** Every region starts on a cache line. */
export const ALIGN_BYTES = 64

export interface MemoryMap {
  readonly control: number
  readonly tokens: number
  readonly segments: number
  readonly logitRows: number
  readonly ops: number
  readonly scratch: number
  readonly scratchBytes: number
  readonly state: number
  readonly slotBytes: number
  /** The activations, of which there are none before the first forward: what is packed in wasm comes by here. */
  readonly staging: { readonly address: number; readonly bytes: number }
  readonly pages: number
  readonly ssd: SsdForm
  readonly bytes: MemoryBytes
  /** A table of angles for each way of turning that the program has. */
  readonly rotaries: FurtherTables['rotaries']
  layout(parameter: Parameter): PackedLayout
  keyValue(part: KeyValuePart): KeyValueLayout
  /** Address of the table of an op's experts. */
  experts(op: ExpertLinearOp): number
  /** Address of a packed parameter. */
  parameter(parameter: Parameter): number
  /** Address of row 0 of a view, and elements from row to row. */
  view(view: View): { readonly address: number; readonly stride: number }
}

/** How a parameter is packed. */
export type LayoutOf = (parameter: Parameter) => PackedLayout

/** What the ops of other models than Mamba-1's need of memory (further-sizes.ts). */
export interface FurtherSizes {
  /** How the op's parameters are packed. */
  layoutsOf(op: OpOf<FurtherKind>, matrices: Matrices): readonly ParameterLayout[]
  /** The tables beside the records, by the bytes of each. */
  tables(program: Program, maxRows: number, allocate: (bytes: number) => number): FurtherTables
  scratchBytes(op: OpOf<FurtherKind>, layoutOf: LayoutOf, ssd: SsdForm | undefined): number
  /** The keys and values of each attention layer in a slot, one after the other from byte `first` on. */
  keyValueLayouts(program: Program, contextLength: number, first: number): Map<KeyValuePart, KeyValueLayout>
}

export interface FurtherTables {
  /** A table of angles for each way of turning that the program has. */
  readonly rotaries: readonly RotaryTable[]
  readonly experts: ReadonlyMap<ExpertLinearOp, number>
}

/** (maxRows, rotaryDim): of each row of a batch what rotaryRow gives. */
export interface RotaryTable {
  readonly theta: number
  readonly rotaryDim: number
  readonly address: number
}

export interface MapOptions extends Matrices {
  readonly heapBase: number
  readonly nThreads: number
  /** 'recurrent' by default. */
  readonly ssd?: SsdForm | undefined
  /** Where `needsFurtherOps` says so. */
  readonly further?: FurtherSizes | undefined
}

/** What it takes may be more than MAX_BYTES: memory-advice.ts has the error for that. */
export function createMemoryMap(program: Program, capacity: Capacity, options: MapOptions): MemoryMap {
  const layouts = packedLayouts(program, options)
  const layoutOf: LayoutOf = (parameter) => known(layouts.get(parameter), parameter.name)
  const { ssd = 'recurrent', further } = options
  let next = options.heapBase
  const allocate = (bytes: number): number => {
    const address = roundUp(next, ALIGN_BYTES)
    next = address + bytes
    return address
  }
  const control = allocate(4 * (CONTROL_WORDS + SHARE_WORDS * options.nThreads))
  const tokens = allocate(4 * capacity.maxRows)
  const segments = allocate(4 * SEGMENT_WORDS * capacity.nSlots)
  const logitRows = allocate(4 * capacity.maxLogitRows)
  const tables = further?.tables(program, capacity.maxRows, allocate)
  const ops = allocate(4 * OP_WORDS * program.ops.length)
  const scratchBytes = roundUp(Math.max(...program.ops.map((op) => scratchBytesOf(op, layoutOf, options)), ALIGN_BYTES), ALIGN_BYTES)
  const scratch = allocate(scratchBytes * options.nThreads)

  const weightsStart = next
  const parameters = program.parameters.map((parameter) => allocate(packedBytes(layoutOf(parameter))))
  const stateStart = next
  const stateBytes = roundUp(4 * program.stateSize, ALIGN_BYTES)
  const keyValues = further?.keyValueLayouts(program, capacity.contextLength, stateBytes) ?? new Map<KeyValuePart, KeyValueLayout>()
  const sumOfKeyValues = (part: 'bytes' | 'tokenBytes'): number => [...keyValues.values()].reduce((sum, layout) => sum + layout[part], 0)
  const slotBytes = roundUp(stateBytes + sumOfKeyValues('bytes'), ALIGN_BYTES)
  const state = allocate(slotBytes * capacity.nSlots)
  const activationsStart = next
  const rowsOf = (buffer: ActivationBuffer): number => (buffer.rows === 'token' ? capacity.maxRows : capacity.maxLogitRows)
  const buffers = program.buffers.map((buffer) => allocate(4 * strideOf(buffer) * rowsOf(buffer)))
  // A vector may be read that starts in the last columns of the last row.
  allocate(ALIGN_BYTES)
  return {
    control, tokens, segments, logitRows, ops, scratch, scratchBytes, state, slotBytes,
    staging: { address: activationsStart, bytes: next - activationsStart },
    ssd,
    pages: Math.ceil(next / PAGE_BYTES),
    bytes: {
      weights: stateStart - weightsStart,
      state: activationsStart - stateStart,
      statePerToken: capacity.nSlots * sumOfKeyValues('tokenBytes'),
      activations: next - activationsStart,
      total: Math.ceil(next / PAGE_BYTES) * PAGE_BYTES
    },
    layout: layoutOf,
    keyValue: (part) => known(keyValues.get(part), part.name),
    rotaries: tables?.rotaries ?? [],
    experts: (op) => known(tables?.experts.get(op), op.kind),
    parameter: ({ id }) => parameters[id],
    view: ({ buffer, offset }) => ({ address: buffers[buffer.id] + 4 * offset, stride: strideOf(buffer) })
  }
}

function known<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw new TypeError(`${name}: no op of the program uses it`)
  return value
}

/** Rows are padded so that a panel's eight outputs may be stored whole. */
function strideOf({ width }: ActivationBuffer): number {
  return roundUp(width, PANEL_ROWS)
}

function scratchBytesOf(op: Op, layoutOf: LayoutOf, { ssd, further }: MapOptions): number {
  switch (op.kind) {
    case 'embed':
    case 'gatherRows': return 0
    case 'rmsNorm': return 4 * PANEL_ROWS
    case 'linear': return linearScratchBytes(layoutOf(op.weight), op.x.width)
    // What silu keeps between its passes; the past.
    case 'conv1d': return 4 * 2 * LANES * MAP_BLOCK + 4 * (op.weight.shape[2] - 1) * roundUp(op.x.width, LANES)
    // dt, dt · x, y; exp(dt · A) of four states and what leads to it; the states. Of short segments up to SCAN_BLOCK whole tiles at once.
    case 'selectiveScan': return 4 * LANES * SCAN_BLOCK * (3 + 2 * 4 + op.dState)
    default: return further?.scratchBytes(op, layoutOf, ssd) ?? 0
  }
}

export function linearScratchBytes(layout: PackedLayout, nIn: number): number {
  if (layout.kind !== 'panels' || layout.form === 'f32') return 0
  // A panel in f32, or a block of rows in 16 bits with a scale and a sum for each block of inputs, and then a panel in 16 bits, or totals, which take less.
  if (isDense(layout.form)) return 4 * PANEL_ROWS * nIn
  return nIn * (ROW_BLOCK * (2 + 8 / blockInputsOf(layout.form)) + 2 * PANEL_ROWS) + ALIGN_BYTES
}
