/**
 * One op in a program of its own, on any backend, with everything around it filled: all rows and columns of all buffers, all slots.
 * In the wasm backends the places that no view reaches (padding, scratch) hold NaN before each run, and the whole of linear memory
 * is compared with what it was: only the op's output, its state and the scratch may change. On a GPU the same holds (gpu-rig.ts).
 */
import { instantiateSync } from '@assemblyscript/loader'
import { expect } from 'vitest'
import { type Batch, type Capacity, type QueuedBackend, type Segment, stateElements, type SteppingBackend } from '../../src/backend/backend.ts'
import { furtherSizes } from '../../src/backend/wasm/further-sizes.ts'
import type { KeyValueLayout } from '../../src/backend/wasm/key-value.ts'
import { createMemoryMap, type MemoryMap } from '../../src/backend/wasm/memory-map.ts'
import { type CoreExports, createWasmBackend } from '../../src/backend/wasm/wasm-backend.ts'
import { createLock } from '../../src/lock.ts'
import { platform } from '../../src/platform/node.ts'
import { ProgramBuilder } from '../../src/program/builder.ts'
import type { DeviceFacts } from '../../src/backend/webgpu/kernel.ts'
import type { WeightFormat } from '../../src/program/formats.ts'
import { type ActivationBuffer, elementsOf, type Op, type Parameter, type Program, type View } from '../../src/program/ops.ts'
import { createBackend, type KINDS } from './backends.ts'
import { firstDifference } from './compare.ts'
import { createGpuCore } from './gpu-rig.ts'
import { createNumbers, type Numbers } from './numbers.ts'
import { randomWeights } from './weights.ts'

export interface OpSpec {
  /** Adds one op and gives it back. */
  readonly build: (builder: ProgramBuilder) => Op
  /** Adds ops that do not run, but decide how something lies in memory. */
  readonly addReaders?: (builder: ProgramBuilder, op: Op) => void
  /** Where values of a buffer, parameter or state lie; [-1, 1) by default. */
  readonly ranges?: Readonly<Record<string, readonly [number, number]>>
  /** Values of buffers that are to be more special than that. */
  readonly fills?: Readonly<Record<string, (numbers: Numbers, row: number, column: number) => number>>
  /** Of the parameters named 'weight', 'weight0', …; the others are f32. */
  readonly format?: WeightFormat
  /** Ids are below it. */
  readonly vocabSize?: number
  readonly capacity: Capacity
  /** For a GPU's kernels to be those of another device. */
  readonly facts?: Partial<DeviceFacts>
  readonly seed: number
}

/** Everything that can be read after a run. */
export interface Snapshot {
  /** Values that the op may change. */
  readonly changed: ReadonlyMap<string, Float32Array>
  /** All others. */
  readonly kept: ReadonlyMap<string, Float32Array>
}

/** One thread alone: what another writes meanwhile could not be told from what the op does. */
export type RigKind = (typeof KINDS)[number] | 'simd-dot' | 'chunked' | 'webgpu' | 'webgpu chunked' | 'webgpu least' | 'webgpu least chunked'

export interface Rig {
  readonly program: Program
  run(segments: readonly Segment[]): Promise<Snapshot>
}

export async function createRig(kind: RigKind, spec: OpSpec): Promise<Rig> {
  const builder = new ProgramBuilder()
  const op = spec.build(builder)
  builder.add(op)
  spec.addReaders?.(builder, op)
  const program = builder.build(null, spec.vocabSize ?? 0)
  const core = await createCore(kind, program, spec)
  const { backend } = core
  const range = (name: string): readonly [number, number] => spec.ranges?.[name] ?? [-1, 1]
  const parameterNumbers = createNumbers(spec.seed)
  for (const parameter of program.parameters) {
    const count = elementsOf(parameter.shape)
    if (spec.format === undefined || !isWeight(parameter)) {
      await backend.write(parameter, parameterNumbers.floats(count, ...range(parameter.name)), 0)
      continue
    }
    const { data, values } = randomWeights(parameterNumbers, spec.format, count)
    // A backend may want the numbers where it does not have the format.
    await backend.write(parameter, backend.formatOf(parameter) === spec.format ? data : values, 0)
  }

  const { maxRows, maxLogitRows, nSlots } = spec.capacity
  const everything: Batch = { tokens: new Int32Array(maxRows), segments: [segment(0, 0, maxRows, 'all')] }
  const numbers = createNumbers(spec.seed + 1)
  const contents = program.buffers.map((buffer) => {
    const count = (buffer.rows === 'token' ? maxRows : maxLogitRows) * buffer.width
    const special = spec.fills?.[buffer.name]
    return special
      ? Float32Array.from({ length: count }, (_, i) => special(numbers, Math.floor(i / buffer.width), i % buffer.width))
      : numbers.floats(count, ...range(buffer.name))
  })
  const states = Array.from({ length: nSlots }, () => numbers.floats(program.stateSize))
  /** A canonical state of a slot; of keys and values only what the sequence has, the first ones the same however many they are: NaN beyond. */
  const stateOf = (slot: number, position: number): Float32Array => {
    const state = new Float32Array(stateElements(program, position))
    state.set(states[slot])
    let first = program.stateSize
    for (const { width, offset } of program.keyValues) {
      for (const kind of [1, 2]) {
        state.set(createNumbers(1000 * spec.seed + 10 * slot + 100 * offset + kind).floats(position * width, ...range('cache')), first)
        first += position * width
      }
    }
    return state
  }
  const isCached = (slot: number, segments: readonly Segment[]): boolean => 'cache' in op && segments.some((used) => used.slot === slot)
  /** Tokens of a slot whose keys and values are filled and looked at: attention finds the rows' own there, and other layers' stay as they are. */
  const tokensOf = (slot: number, segments: readonly Segment[]): number => {
    const { position, nRows } = segments.find((used) => used.slot === slot) ?? segment(slot, 0, 0)
    return isCached(slot, segments) ? position + nRows : 0
  }
  const fill = async (segments: readonly Segment[]): Promise<void> => {
    core.spoil()
    backend.begin(everything)
    for (const buffer of program.buffers) backend.writeView(wholeOf(buffer), contents[buffer.id])
    for (let slot = 0; slot < nSlots; slot++) {
      const position = tokensOf(slot, segments)
      await backend.writeState(slot, position, stateOf(slot, position))
    }
  }
  const snapshot = async (segments: readonly Segment[]): Promise<Snapshot> => {
    const changed = new Map<string, Float32Array>()
    const kept = new Map<string, Float32Array>()
    const nChanged = rowsOf(op.out, segments)
    backend.begin(everything)
    for (const buffer of program.buffers) {
      const values = await backend.readView(wholeOf(buffer))
      const isOut = (_: unknown, i: number): boolean => {
        const column = (i % buffer.width) - op.out.offset
        return buffer === op.out.buffer && column >= 0 && column < op.out.width && i < nChanged * buffer.width
      }
      if (buffer === op.out.buffer) changed.set(buffer.name, values.filter(isOut))
      kept.set(buffer.name, values.filter((value, i) => !isOut(value, i)))
    }
    for (let slot = 0; slot < nSlots; slot++) {
      const isUsed = ('state' in op && segments.some((used) => used.slot === slot)) || (op.kind === 'cacheKeyValue' && isCached(slot, segments))
      const values = await backend.readState(slot, tokensOf(slot, segments))
      ;(isUsed ? changed : kept).set(`state of slot ${slot}`, values)
    }
    return { changed, kept }
  }

  return {
    program,
    async run(segments) {
      const numbers = createNumbers(spec.seed + 2)
      const nTokens = segments.reduce((sum, { nRows }) => sum + nRows, 0)
      await fill(segments)
      const tokens = Int32Array.from({ length: nTokens }, () => numbers.integer(0, Math.max(0, program.vocabSize - 1)))
      backend.begin({ tokens, segments })
      await core.guard(op, segments, () => backend.run(0, 1))
      return snapshot(segments)
    }
  }
}

/**
 * Values against the oracle's: what may change within `tolerance` of the largest value (or of `size`, that of the summands, where sums
 * may cancel), all else the same bits. Gives the error.
 */
export function compareSnapshots(got: Snapshot, want: Snapshot, { tolerance, size = 1e-30, place }: { tolerance: number, size?: number, place: string }): number {
  let largestError = 0
  for (const [name, values] of want.changed) {
    const gotValues = got.changed.get(name) ?? new Float32Array(0)
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), size)
    values.forEach((value, i) => {
      const error = Math.abs(gotValues[i] - value) / largest
      largestError = Math.max(largestError, error)
      if (!(error <= tolerance)) expect.fail(`${place}: ${name}, element ${i} is ${gotValues[i]}, not ${value}: ${error} of the largest value`)
    })
  }
  expectKept(got, want, place)
  return largestError
}

export function expectSameSnapshot(got: Snapshot, want: Snapshot, place: string): void {
  for (const [name, values] of want.changed) {
    const index = firstDifference(got.changed.get(name) ?? new Float32Array(0), values)
    if (index >= 0) expect.fail(`${place}: ${name}, element ${index} is ${got.changed.get(name)?.[index]}, not ${values[index]}`)
  }
  expectKept(got, want, place)
}

function expectKept(got: Snapshot, want: Snapshot, place: string): void {
  for (const [name, values] of want.kept) {
    const index = firstDifference(got.kept.get(name) ?? new Float32Array(0), values)
    if (index >= 0) expect.fail(`${place}: ${name}, element ${index} of those beside the output was overwritten`)
  }
}

export function segment(slot: number, firstRow: number, nRows: number, logits: Segment['logits'] = 'none', position = 0): Segment {
  return { slot, position, firstRow, nRows, logits }
}

/** Rows in segments of these lengths, in slots of a changing order. */
export function segmentsOf(lengths: readonly number[], logits: Segment['logits'] = 'none'): Segment[] {
  let firstRow = 0
  return lengths.map((nRows, i) => {
    const next = segment((i + 1) % lengths.length, firstRow, nRows, logits)
    firstRow += nRows
    return next
  })
}

function wholeOf(buffer: ActivationBuffer): View {
  return { buffer, offset: 0, width: buffer.width }
}

export function rowsOf({ buffer }: View, segments: readonly Segment[]): number {
  if (buffer.rows === 'token') return segments.reduce((sum, { nRows }) => sum + nRows, 0)
  return segments.reduce((sum, { nRows, logits }) => sum + (logits === 'all' ? nRows : logits === 'last' ? Math.min(1, nRows) : 0), 0)
}

export function isWeight({ name }: Parameter): boolean {
  return /^weight\d*$/.test(name)
}

export interface Core {
  readonly backend: QueuedBackend
  /** Fills scratch, states and activations with NaN, padding included. */
  spoil(): void
  /** Runs a task and fails where memory changed that the op does not own. */
  guard(op: Op, segments: readonly Segment[], task: () => void | Promise<void>): void | Promise<void>
}

async function createCore(kind: RigKind, program: Program, spec: OpSpec): Promise<Core> {
  const { capacity, format = 'f32' } = spec
  if (kind === 'webgpu' || kind === 'webgpu chunked' || kind === 'webgpu least' || kind === 'webgpu least chunked') return createGpuCore(kind, program, spec)
  if (kind === 'reference') {
    const backend = await createBackend(kind, program, capacity)
    return { backend, spoil() {}, guard: (_op, _segments, task) => task() }
  }
  const [build, ssd] = kind === 'chunked' ? ['simd', 'chunked'] as const : [kind, 'recurrent'] as const
  const module = await platform.wasmModule(build)
  const formatOf = (parameter: Parameter): WeightFormat => (isWeight(parameter) ? format : 'f32')
  const core = { module, build, nThreads: 1, reason: 'test', formatOf, ssd }
  const { backend, memory, exports } = await memoryLock.run(async () => ({
    ...(await withMemory(() => createWasmBackend(program, capacity, core))),
    ...instantiateSync<CoreExports>(module, { env: { memory: new WebAssembly.Memory({ initial: 1 }) } })
  }))
  const map = createMemoryMap(program, capacity, { heapBase: exports.heapBase(), hasDot: exports.multipliesBytes() !== 0, nThreads: 1, formatOf, ssd, further: furtherSizes })
  return {
    backend,
    spoil() {
      new Float32Array(memory.buffer, map.scratch, map.scratchBytes / 4).fill(NaN)
      new Float32Array(memory.buffer, map.state).fill(NaN)
    },
    guard(op, segments, task) {
      const before = new Uint8Array(memory.buffer).slice()
      void task()
      const after = new Uint8Array(memory.buffer)
      for (const [start, end] of ownedRanges(map, op, segments)) after.subarray(start, end).forEach((byte, i) => (before[start + i] = byte))
      const index = Buffer.compare(before, after) === 0 ? -1 : after.findIndex((byte, i) => byte !== before[i])
      if (index >= 0) expect.fail(`${kind}: byte ${index} of linear memory changed, which is not the op's`)
    }
  }
}

export type Ranges = (readonly [first: number, end: number])[]

/** What the op may write, in bytes: scratch, its rows of the output with their padding, and its part of the slots. */
function ownedRanges(map: MemoryMap, op: Op, segments: readonly Segment[]): Ranges {
  const scratch = [map.scratch, map.scratch + map.scratchBytes] as const
  if (op.kind === 'cacheKeyValue') return [scratch, ...segments.flatMap((segment) => cachedRanges(map.keyValue(op.cache), map.state + segment.slot * map.slotBytes, segment))]
  const { address, stride } = map.view(op.out)
  const padded = Math.ceil(op.out.width / 8) * 8
  const rows = Array.from({ length: rowsOf(op.out, segments) }, (_, row) => [address + 4 * stride * row, address + 4 * (stride * row + padded)] as const)
  const states = 'state' in op ? segments.map(({ slot }) => {
    const start = map.state + slot * map.slotBytes + 4 * op.state.offset
    return [start, start + 4 * elementsOf(op.state.shape)] as const
  }) : []
  return [scratch, ...rows, ...states]
}

/** The places of a segment's keys and values: a key's columns are 32 elements apart, a value's stand together, padded to four. */
function cachedRanges(layout: KeyValueLayout, slot: number, { position, nRows }: Segment): Ranges {
  const ranges: Ranges = []
  for (let head = 0; head < layout.nHeads; head++) {
    for (let t = position; t < position + nRows; t++) {
      const key = slot + layout.keys + head * layout.keyHeadBytes + 4 * (Math.floor(t / 32) * 32 * layout.headDim + (t % 32))
      for (let i = 0; i < layout.headDim; i++) ranges.push([key + 128 * i, key + 128 * i + 4])
      const padded = Math.ceil(layout.headDim / 4) * 4
      const value = slot + layout.values + head * layout.valueHeadBytes + 4 * t * padded
      ranges.push([value, value + 4 * padded])
    }
  }
  return ranges
}

/** Rigs are made at once, and each must see its own memory. */
const memoryLock = createLock()

/** The largest memory that `create` makes, which the backend keeps to itself. */
async function withMemory(create: () => Promise<SteppingBackend>): Promise<{ backend: SteppingBackend, memory: WebAssembly.Memory }> {
  const Original = WebAssembly.Memory
  const memories: WebAssembly.Memory[] = []
  WebAssembly.Memory = class extends Original {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      super(descriptor)
      memories.push(this)
    }
  }
  try {
    const backend = await create()
    // The first is the probe for heapBase, the last the backend's own.
    return { backend, memory: memories[memories.length - 1] }
  } finally {
    WebAssembly.Memory = Original
  }
}
