/** Runs a program in WebAssembly: encodes it once into records, then a batch is a few calls of `run`. */

import { instantiateSync } from '@assemblyscript/loader'
import * as abi from '../../../assembly/abi.ts'
import { coreImports } from '../../core-imports.ts'
import type { WasmBuild } from '../../platform/platform.ts'
import { messageOf } from '../../errors.ts'
import { isBlockFormat } from '../../ggml-blocks.ts'
import { FORMATS } from '../../program/formats.ts'
import { opCost, type Program, type View } from '../../program/ops.ts'
import { type Batch, type Best, type Capacity, forwardInTurns, logitRows, ssdOf, type SsdForm, stateElements, type SteppingBackend } from '../backend.ts'
import { createPace } from '../../pace.ts'
import { encodeProgram, needsFurtherOps } from './encode.ts'
import { createMemoryMap, type MapOptions, MAX_BYTES, type MemoryMap, PAGE_BYTES } from './memory-map.ts'
import { formatOfLayout, type FormatOf, pack, packedBytes, type PanelsLayout } from './packing.ts'
import type { ThreadTeam } from './thread-team.ts'

/** assembly/index.ts */
export interface CoreExports extends Record<string, unknown> {
  heapBase(): number
  multipliesBytes(): number
  run(control: number, first: number, end: number): number
  evaluate(f: number, x: number, out: number, count: number, scratch: number): void
  indexOfBest(values: number, count: number): number
  /** Six numbers are the call's own cost: it takes thousands of blocks. */
  packQ80(source: number, nBlocks: number, panels: number, nOut: number, nIn: number, block: number): void
}

/** Work in one call into wasm, in the units of opCost: about 10 ms on a core of 20 GFLOP/s, so that the event loop gets its turn. */
const SLICE_COST = 2e8

export interface Core {
  readonly module: WebAssembly.Module
  readonly build: WasmBuild
  /** Above 1 with the threaded builds alone. */
  readonly nThreads: number
  readonly reason: string
  /** The format of each matrix; f32 by default. */
  readonly formatOf?: FormatOf | undefined
  /** 'recurrent' by default; 'chunked' with SIMD alone. */
  readonly ssd?: SsdForm | undefined
}

/** Backends that nobody holds any more end their threads. */
const abandoned = new FinalizationRegistry<ThreadTeam>((team) => void team.stop())

/** Throws a RangeError for a program beyond 4 GiB, and for one beyond what the host gives, with the bytes that it needs. */
export async function createWasmBackend(program: Program, capacity: Capacity, core: Core): Promise<SteppingBackend> {
  const isShared = core.build.startsWith('simd-threads')
  const further = needsFurtherOps(program) ? await import('./further-ops.ts') : undefined
  const options: MapOptions = {
    ...factsOf(core.module, isShared), nThreads: core.nThreads, formatOf: core.formatOf ?? (() => 'f32'), ssd: core.ssd, further: further?.furtherSizes
  }
  const map = createMemoryMap(program, capacity, options)
  if (map.bytes.total > MAX_BYTES) throw (await import('./memory-advice.ts')).tooLarge(program, capacity, options)
  const { weights, state, activations } = map.bytes
  const memory = allocateMemory(map.pages, { shared: isShared, what: `weights ${weights}, state ${state}, activations ${activations}` })
  const { exports } = instantiateSync<CoreExports>(core.module, coreImports(memory))
  writeControl(map, memory.buffer, core.nThreads)
  const formats = new Set(program.parameters.map((parameter) => formatOfLayout(map.layout(parameter))))
  const blocks = [...formats].some((format) => isBlockFormat(format) && format !== 'q8_0') ? await import('./pack-blocks.ts') : undefined
  encodeProgram(program, { map, memory: memory.buffer, further: further?.furtherEncoders })

  const control = new Int32Array(memory.buffer, map.control, abi.CONTROL_WORDS)
  const tokens = new Int32Array(memory.buffer, map.tokens, capacity.maxRows)
  const segments = new Int32Array(memory.buffer, map.segments, abi.SEGMENT_WORDS * capacity.nSlots)
  const rows = new Int32Array(memory.buffer, map.logitRows, capacity.maxLogitRows)
  const costs = sumsOf(program.ops.map((op) => (op.kind === 'attention' ? 0 : opCost(op))))
  const scoreCosts = sumsOf(program.ops.map((op) => (op.kind === 'attention' ? 4 * op.q.width : 0)))
  const pace = createPace()

  const begin = (batch: Batch, firstLogitRow = 0): void => {
    const wanted = logitRows(batch).slice(firstLogitRow, firstLogitRow + capacity.maxLogitRows)
    tokens.set(batch.tokens)
    rows.set(wanted)
    batch.segments.forEach(({ slot, position, firstRow, nRows }, i) => {
      segments.set([slot, position, firstRow, nRows], abi.SEGMENT_WORDS * i)
    })
    control[abi.CONTROL_N_TOKENS] = batch.tokens.length
    control[abi.CONTROL_N_LOGIT_ROWS] = wanted.length
    control[abi.CONTROL_N_SEGMENTS] = batch.segments.length
    control[abi.CONTROL_ATTENTION_FIRST] = 0
    control[abi.CONTROL_ATTENTION_END] = batch.tokens.length
    // Of the layers alone: later turns of the head find them done.
    if (firstLogitRow === 0) further?.writeAngles(map, memory.buffer, batch)
  }
  const team = core.nThreads > 1 ? await (await import('./thread-team.ts')).startThreads(program, { map, memory, module: core.module }) : undefined
  const run = (firstOp: number, endOp: number): void => {
    team?.check()
    if (exports.run(map.control, firstOp, endOp) !== 0) team?.fail()
  }
  const nRows = (view: View): number => control[view.buffer.rows === 'token' ? abi.CONTROL_N_TOKENS : abi.CONTROL_N_LOGIT_ROWS]
  /** All rows of a view, `stride` elements apart. */
  const rowsOf = (view: View): { readonly rows: Float32Array; readonly stride: number } => {
    const { address, stride } = map.view(view)
    return { rows: new Float32Array(memory.buffer, address, Math.max(0, (nRows(view) - 1) * stride + (nRows(view) && view.width))), stride }
  }
  const readView = (view: View, into: Float32Array = new Float32Array(nRows(view) * view.width)): Float32Array => {
    const { rows, stride } = rowsOf(view)
    if (stride === view.width) into.set(rows)
    else for (let row = 0; row < nRows(view); row++) into.set(rows.subarray(row * stride, row * stride + view.width), row * view.width)
    return into
  }
  const bestOf = (view: View): Best[] => {
    const { address, stride } = map.view(view)
    return Array.from({ length: nRows(view) }, (_, row) => {
      const id = exports.indexOfBest(address + 4 * row * stride, view.width)
      return { id, logit: new Float32Array(memory.buffer, address + 4 * (row * stride + id), 1)[0] }
    })
  }
  const writeView = (view: View, values: Float32Array): void => {
    const { rows, stride } = rowsOf(view)
    if (stride === view.width) rows.set(values.subarray(0, rows.length))
    else for (let row = 0; row < nRows(view); row++) rows.set(values.subarray(row * view.width, (row + 1) * view.width), row * stride)
  }
  const writeQ80 = ({ nOut, nIn }: PanelsLayout, address: number, bytes: Uint8Array, first: number): void => {
    const { blockBytes, blockElements } = FORMATS.q8_0
    const staged = Math.floor(map.staging.bytes / blockBytes)
    const nBlocks = bytes.length / blockBytes
    for (let from = 0; from < nBlocks; from += staged) {
      const count = Math.min(staged, nBlocks - from)
      new Uint8Array(memory.buffer).set(bytes.subarray(from * blockBytes, (from + count) * blockBytes), map.staging.address)
      exports.packQ80(map.staging.address, count, address, nOut, nIn, first / blockElements + from)
    }
  }
  const slotState = (slot: number): Float32Array => new Float32Array(memory.buffer, map.state + slot * map.slotBytes, program.stateSize)
  const copyKeyValues = (way: 'read' | 'write', { slot, ...copy }: { slot: number; position: number; state: Float32Array }): Promise<void> | undefined =>
    further?.copyKeyValues(way, program, { ...copy, memory: memory.buffer, slot: map.state + slot * map.slotBytes, map, pace })

  /** Runs ops of a batch, all of the layers or all of the head, in slices of SLICE_COST. */
  const slicesOf = (batch: Batch) => {
    const nScores = further?.scoresOf(batch) ?? 0
    const costOf = (first: number, end: number): number => {
      const rows = control[first < program.headStart ? abi.CONTROL_N_TOKENS : abi.CONTROL_N_LOGIT_ROWS]
      return (costs[end] - costs[first]) * rows + (scoreCosts[end] - scoreCosts[first]) * nScores
    }
    const runSlice = async (first: number, end: number): Promise<void> => {
      run(first, end)
      await pace.pause()
    }
    return async (firstOp: number, endOp: number): Promise<void> => {
      for (let first = firstOp; first < endOp; ) {
        const end = sliceEnd(costOf, { first, end: endOp })
        const nParts = costOf(first, first + 1) / SLICE_COST
        if (further && nParts > 1 && program.ops[first].kind === 'attention') await further.attendInParts(control, nParts, () => runSlice(first, end))
        else await runSlice(first, end)
        first = end
      }
    }
  }

  const backend: SteppingBackend = {
    program,
    capacity,
    info: { name: 'wasm', build: core.build, threads: core.nThreads, ssd: ssdOf(program, map.ssd), reason: core.reason, memoryBytes: map.bytes },
    formatOf: (parameter) => formatOfLayout(map.layout(parameter)),
    write(parameter, values, first) {
      const layout = map.layout(parameter)
      const address = map.parameter(parameter)
      const target = new Uint8Array(memory.buffer, address, packedBytes(layout))
      if (layout.kind !== 'panels' || !isBlockFormat(layout.format)) {
        pack(layout, target, values, first)
        return
      }
      const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
      if (layout.format === 'q8_0') writeQ80(layout, address, bytes, first)
      else blocks?.packBlocks(layout, target, bytes, first)
    },
    async ready() {
      await team?.ready
    },
    begin,
    run,
    readView,
    writeView,
    forward: (batch, logits) => forwardInTurns(backend, batch, (view, first) => void readView(view, logits.subarray(first * view.width)), slicesOf(batch)),
    async forwardBest(batch) {
      const found: Best[] = []
      await forwardInTurns(backend, batch, (view) => found.push(...bestOf(view)), slicesOf(batch))
      return found
    },
    async readState(slot, position, into = new Float32Array(stateElements(program, position))) {
      into.set(slotState(slot))
      await copyKeyValues('read', { slot, position, state: into })
      return into
    },
    async writeState(slot, position, state) {
      slotState(slot).set(state.subarray(0, program.stateSize))
      await copyKeyValues('write', { slot, position, state })
    },
    async clearState(slot) {
      slotState(slot).fill(0)
    },
    async dispose() {
      abandoned.unregister(backend)
      await team?.stop()
    }
  }
  if (team) abandoned.register(backend, team, backend)
  return backend
}

/** `what` the bytes are for. */
function allocateMemory(pages: number, { shared, what }: { shared: boolean; what: string }): WebAssembly.Memory {
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared })
  } catch (cause) {
    const got = `a host that does not give them: ${cause instanceof Error ? cause.message : String(cause)}`
    throw new RangeError(messageOf({ place: 'wasm memory', expected: `${pages * PAGE_BYTES} bytes (${what})`, got }), { cause })
  }
}

type CoreFacts = Pick<MapOptions, 'heapBase' | 'hasDot'>

const knownFacts = new WeakMap<WebAssembly.Module, CoreFacts>()

/** Where the static data ends and memory is ours, and what it multiplies; asked once of a throw-away instance, since the memory's size depends on it. */
function factsOf(module: WebAssembly.Module, shared: boolean): CoreFacts {
  const known = knownFacts.get(module)
  if (known !== undefined) return known
  const { exports } = instantiateSync<CoreExports>(module, coreImports(allocateMemory(1, { shared, what: 'the core by itself' })))
  const facts = { heapBase: exports.heapBase(), hasDot: exports.multipliesBytes() !== 0 }
  knownFacts.set(module, facts)
  return facts
}

function writeControl(map: MemoryMap, memory: ArrayBufferLike, nThreads: number): void {
  const control = new Uint32Array(memory, map.control, abi.CONTROL_WORDS)
  control[abi.CONTROL_PROGRAM] = map.ops
  control[abi.CONTROL_TOKENS] = map.tokens
  control[abi.CONTROL_SEGMENTS] = map.segments
  control[abi.CONTROL_LOGIT_ROWS] = map.logitRows
  control[abi.CONTROL_STATE] = map.state
  control[abi.CONTROL_SLOT_BYTES] = map.slotBytes
  control[abi.CONTROL_SCRATCH] = map.scratch
  control[abi.CONTROL_SCRATCH_BYTES] = map.scratchBytes
  control[abi.CONTROL_N_THREADS] = nThreads
}

/** Of `values` those before each, and all: what a range has is the difference of two. */
function sumsOf(values: readonly number[]): readonly number[] {
  let sum = 0
  return [0, ...values.map((value) => (sum += value))]
}

/** The end of the ops from `first` that fit one slice; at least one op. */
function sliceEnd(costOf: (first: number, end: number) => number, { first, end }: { first: number; end: number }): number {
  if (costOf(first, end) <= SLICE_COST) return end
  let next = first + 1
  while (costOf(first, next + 1) <= SLICE_COST) next++
  return next
}
