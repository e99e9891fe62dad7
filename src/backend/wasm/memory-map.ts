/**
 * Where everything lies in wasm memory, to the byte, from the program and the capacity alone. It never grows, so no view is ever detached.
 *
 *   0          heapBase
 *   ┌──────────┬─────────┬────────┬──────┬─────────┬─────────┬─────────────┬─────────────┐
 *   │ static   │ control │ tables │ ops  │ scratch │ weights │ state slots │ activations │
 *   └──────────┴─────────┴────────┴──────┴─────────┴─────────┴─────────────┴─────────────┘
 *                          tokens,         a block   packed    canonical     rows padded to
 *                          segments,       for each  for the   layout        PANEL_ROWS
 *                          logit rows      thread    kernels
 */

import { CONTROL_WORDS, LANES, OP_WORDS, PANEL_ROWS, ROW_BLOCK, SCAN_BLOCK, SEGMENT_WORDS, SSD_BLOCK } from '../../../assembly/abi.ts'
import { messageOf } from '../../errors.ts'
import { isBlockFormat } from '../../ggml-blocks.ts'
import type { ActivationBuffer, Op, Parameter, Program, View } from '../../program/ops.ts'
import type { Capacity, MemoryBytes } from '../backend.ts'
import { formatOfLayout, type FormatOf, packedBytes, type PackedLayout, packedLayouts } from './packing.ts'
import { blockInputsOf } from './panel-blocks.ts'

const PAGE_BYTES = 65536
/** What wasm can address. */
const MAX_BYTES = 65536 * PAGE_BYTES
/** Every region starts on a cache line. */
const ALIGN_BYTES = 64

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
  readonly pages: number
  readonly bytes: MemoryBytes
  layout(parameter: Parameter): PackedLayout
  /** Address of a packed parameter. */
  parameter(parameter: Parameter): number
  /** Address of row 0 of a view, and elements from row to row. */
  view(view: View): { readonly address: number; readonly stride: number }
}

export interface MapOptions {
  readonly heapBase: number
  readonly nThreads: number
  readonly formatOf: FormatOf
}

/** Throws a RangeError when wasm's 4 GiB do not hold it, with the bytes needed and the format of weights that would fit. */
export function createMemoryMap(program: Program, capacity: Capacity, options: MapOptions): MemoryMap {
  const map = planMemory(program, capacity, options)
  if (map.bytes.total <= MAX_BYTES) return map
  const smaller = (['bf16', 'q8_0', 'q4_0'] as const).find((dtype) => {
    const formatOf: FormatOf = (parameter) => (parameter.isSensitive ? options.formatOf(parameter) : dtype)
    return planMemory(program, capacity, { ...options, formatOf }).bytes.total <= MAX_BYTES
  })
  const advice = smaller === undefined ? 'in no dtype it would fit' : `with dtype '${smaller}' it would fit`
  throw new RangeError(messageOf({ place: 'wasm memory', expected: `at most ${MAX_BYTES} bytes`, got: `a model that needs ${map.bytes.total}; ${advice}` }))
}

function planMemory(program: Program, capacity: Capacity, options: MapOptions): MemoryMap {
  const layouts = packedLayouts(program, options.formatOf)
  const layoutOf = (parameter: Parameter): PackedLayout => {
    const layout = layouts.get(parameter)
    if (layout === undefined) throw new TypeError(`${parameter.name}: no op uses it`)
    return layout
  }
  let next = options.heapBase
  const allocate = (bytes: number): number => {
    const address = Math.ceil(next / ALIGN_BYTES) * ALIGN_BYTES
    next = address + bytes
    return address
  }
  const control = allocate(4 * CONTROL_WORDS)
  const tokens = allocate(4 * capacity.maxRows)
  const segments = allocate(4 * SEGMENT_WORDS * capacity.nSlots)
  const logitRows = allocate(4 * capacity.maxLogitRows)
  const ops = allocate(4 * OP_WORDS * program.ops.length)
  const scratchBytes = Math.ceil(Math.max(...program.ops.map((op) => scratchBytesOf(op, layoutOf)), ALIGN_BYTES) / ALIGN_BYTES) * ALIGN_BYTES
  const scratch = allocate(scratchBytes * options.nThreads)

  const weightsStart = next
  const parameters = program.parameters.map((parameter) => allocate(packedBytes(layoutOf(parameter))))
  const stateStart = next
  const slotBytes = Math.ceil((4 * program.stateSize) / ALIGN_BYTES) * ALIGN_BYTES
  const state = allocate(slotBytes * capacity.nSlots)
  const activationsStart = next
  const rowsOf = (buffer: ActivationBuffer): number => (buffer.rows === 'token' ? capacity.maxRows : capacity.maxLogitRows)
  const buffers = program.buffers.map((buffer) => allocate(4 * strideOf(buffer) * rowsOf(buffer)))
  // A vector may be read that starts in the last columns of the last row.
  allocate(ALIGN_BYTES)
  return {
    control, tokens, segments, logitRows, ops, scratch, scratchBytes, state, slotBytes,
    pages: Math.ceil(next / PAGE_BYTES),
    bytes: {
      weights: stateStart - weightsStart,
      state: activationsStart - stateStart,
      activations: next - activationsStart,
      total: Math.ceil(next / PAGE_BYTES) * PAGE_BYTES
    },
    layout: layoutOf,
    parameter: ({ id }) => parameters[id],
    view: ({ buffer, offset }) => ({ address: buffers[buffer.id] + 4 * offset, stride: strideOf(buffer) })
  }
}

/** Rows are padded so that a panel's eight outputs may be stored whole. */
function strideOf({ width }: ActivationBuffer): number {
  return Math.ceil(width / PANEL_ROWS) * PANEL_ROWS
}

function scratchBytesOf(op: Op, layoutOf: (parameter: Parameter) => PackedLayout): number {
  switch (op.kind) {
    case 'conv1d': return 4 * (op.weight.shape[2] - 1) * Math.ceil(op.x.width / LANES) * LANES
    // Of short segments up to SCAN_BLOCK tiles at once.
    case 'selectiveScan': return 4 * LANES * SCAN_BLOCK * (3 + op.dState)
    case 'ssdScan': return 4 * (2 * SSD_BLOCK + LANES)
    case 'rmsNorm': return 4 * PANEL_ROWS
    case 'linear': {
      const format = formatOfLayout(layoutOf(op.weight))
      if (format === 'f32') return 0
      // A panel in f32, or a block of rows in 16 bits with a scale and a sum for each block of inputs, and then a panel in 16 bits.
      if (!isBlockFormat(format)) return 4 * PANEL_ROWS * op.x.width
      return op.x.width * (ROW_BLOCK * (2 + 8 / blockInputsOf(format)) + 2 * PANEL_ROWS) + ALIGN_BYTES
    }
    case 'embed':
    case 'gatherRows': return 0
  }
}
