/** Runs a program on a GPU: records pipelines and bind groups once, then a token is one submission. */

import { createPace } from '../../pace.ts'
import type { WeightFormat } from '../../program/formats.ts'
import { elementsOf, type Op, opCost, type OpKind, type OpOf, type Parameter, type Program, type View } from '../../program/ops.ts'
import { type Batch, type Capacity, logitRows, type QueuedBackend, ssdOf, type SsdForm, stateElements } from '../backend.ts'
import { countsOf, createBatchWords, writeAngles } from './batch.ts'
import { adapterName, factsOf, isSoftware } from './device.ts'
import { entriesFor, findFusions } from './fusions.ts'
import { probeHalves } from './halves.ts'
import { watch } from './health.ts'
import { type BatchCounts, type DeviceFacts, type Kernel, type KernelContext, prelude } from './kernel.ts'
import { OP_KERNELS } from './kernels/index.ts'
import { createMemory, type GpuMemory, layOutViews } from './memory.ts'
import { createReadback, type Piece } from './readback.ts'
import { type Dispatch, record } from './recording.ts'
import { createSteps } from './steps.ts'
import { createSubmissions } from './submissions.ts'
import { createWeightWriter, formatOfLayout, weightLayouts, type WeightLayout, type WeightWriter } from './weights.ts'

export interface GpuOptions {
  readonly device: GPUDevice
  /** The device goes with the backend; otherwise it is its giver's. */
  readonly ownsDevice: boolean
  readonly reason: string
  /** The format of each matrix; f32 by default. */
  readonly formatOf?: ((parameter: Parameter) => WeightFormat) | undefined
  readonly ssd?: SsdForm | undefined
  /** For tests: kernels as for another device, whose limits and features this one has. */
  readonly facts?: DeviceFacts | undefined
}

export interface WebGpuBackend extends QueuedBackend {
  /** Compiles what a token, and a whole chunk, need; without it the first of each waits. */
  prepare(...what: readonly ('token' | 'chunk')[]): Promise<void>
  /** All ops of the batch that was begun in one submission, as `forward` has a step: by fewer kernels than `run`, which leave out what only they would read. */
  runAll(): Promise<void>
  readonly device: GPUDevice
  readonly memory: GpuMemory
}

/**
 * Throws an UnsupportedError for an op that has no kernel, and a RangeError for a program that is larger than the device's limits or memory.
 * A device that is lost later makes every call that waits, and every later one, reject with an EngineError.
 */
export async function createWebGpuBackend(program: Program, capacity: Capacity, { device, ownsDevice, reason, ssd = 'recurrent', ...options }: GpuOptions): Promise<WebGpuBackend> {
  const { view: placeOf, bytes: activationBytes } = layOutViews(program, capacity)
  const layouts = weightLayouts(program, options.formatOf ?? (() => 'f32'))
  const layoutOf = (parameter: Parameter): WeightLayout => layouts.get(parameter) ?? { kind: 'plain', size: elementsOf(parameter.shape) }
  const formatOf = (parameter: Parameter): WeightFormat => formatOfLayout(layoutOf(parameter))
  // A CPU unpacks them bit by bit as fast.
  if (!isSoftware(device)) await probeHalves(device)
  const context: KernelContext = { device: options.facts ?? factsOf(device), capacity, ssd, view: placeOf, formatOf }
  const fusions = findFusions(program, context)
  /** Entries of the recording: ops, then fusions of them. */
  const kernels = [...program.ops.map((op) => kernelsOf(op, context)), ...fusions.map((fusion) => fusion.kernels)]
  const memory = await createMemory(device, { program, capacity, kernels: kernels.flat(), activationBytes, layoutOf, maxBindingBytes: context.device.maxBindingBytes })
  const recording = record(device, { kernels, prelude: prelude(capacity), memory })
  const health = watch(device, ownsDevice)
  const readback = createReadback(device)
  const submissions = createSubmissions(device, { isSoftware: isSoftware(device) })
  const steps = createSteps(device, memory.activations)
  const costs = program.ops.map(opCost)
  const pace = createPace()
  const words = createBatchWords(capacity)
  let current = countsOf({ tokens: new Int32Array(0), segments: [] }, 0)
  const writers = new Map<Parameter, WeightWriter>()
  let nUnsentBytes = 0

  const begin = (batch: Batch, firstLogitRow = 0): void => {
    health.check()
    submissions.submit()
    const wanted = logitRows(batch).slice(firstLogitRow, firstLogitRow + capacity.maxLogitRows)
    current = countsOf(batch, wanted.length)
    device.queue.writeBuffer(memory.batch, 0, words(batch, wanted))
    // Of the layers alone: later turns of the head find them done.
    if (firstLogitRow === 0) writeAngles(device, memory, batch)
  }
  const costOf = (i: number): number => {
    const op = program.ops[i]
    if (op.kind === 'attention') return 4 * op.q.width * current.nScores
    return costs[i] * (i < program.headStart ? current.nTokens : current.nLogitRows)
  }
  const wholeCost = (): number => costs.reduce((sum, _, i) => sum + costOf(i), 0)
  const rowsOf = ({ buffer }: View): number => (buffer.rows === 'token' ? current.nTokens : current.nLogitRows)
  const readView = async (view: View, into: Float32Array = new Float32Array(rowsOf(view) * view.width)): Promise<Float32Array> => {
    const { offset, stride } = placeOf(view)
    const nRows = rowsOf(view)
    const encoder = submissions.take()
    const isDense = stride === view.width
    const pieces: Piece[] = isDense
      ? [{ buffer: memory.activations, first: offset, count: nRows * stride }]
      : Array.from({ length: nRows }, (_, row) => ({ buffer: memory.activations, first: offset + row * stride, count: view.width }))
    await health.guard(() => readback.read(pieces, into.subarray(0, nRows * view.width), encoder))
    return into
  }
  /** Compiles what is missing for such a batch, all at once. */
  const dispatchesOf = async (entries: readonly number[]): Promise<readonly Dispatch[]> => {
    const all = (): (readonly Dispatch[] | undefined)[] => entries.map((entry) => recording.dispatches(entry, current))
    let dispatches = all()
    if (dispatches.includes(undefined)) {
      await health.guard(() => recording.compile(entries, current))
      dispatches = all()
    }
    return dispatches.flatMap((some) => some ?? [])
  }
  /** The last step's, and the counts by which they go; positions decide of attention alone. */
  let step: { readonly counts: string; readonly dispatches: readonly Dispatch[] } | undefined
  const allDispatches = async (): Promise<readonly Dispatch[]> => {
    const { nTokens, nLogitRows, nSegments, maxSegmentRows, maxPositions } = current
    const counts = [nTokens, nLogitRows, nSegments, maxSegmentRows, program.keyValues.length > 0 ? maxPositions : 0].join()
    if (step?.counts === counts) return step.dispatches
    const dispatches = await dispatchesOf(entriesFor(program.ops.length, fusions, current))
    step = { counts, dispatches }
    return dispatches
  }
  const addOp = async (i: number): Promise<void> => {
    // The others' are likely to be needed, too.
    if (recording.dispatches(i, current) === undefined) await health.guard(() => recording.compile([...program.ops.keys()], current))
    submissions.add(recording.dispatches(i, current) ?? [], costOf(i))
  }
  const runOps = async (firstOp: number, endOp: number): Promise<void> => {
    for (let i = firstOp; i < endOp; i++) {
      await addOp(i)
      if (!submissions.isFull) continue
      submissions.submit()
      await health.guard(() => submissions.settle(1))
      await pace.pause()
    }
  }
  /** What a slot's canonical state consists of, in its order. */
  const statePieces = (slot: number, position: number): Piece[] => [
    ...program.states.map((part) => {
      const count = elementsOf(part.shape)
      return { buffer: memory.stateOf(part), first: slot * count, count }
    }),
    ...program.keyValues.flatMap((part) => {
      const { keys, values } = memory.keyValueOf(part)
      const piece = { first: slot * capacity.contextLength * part.width, count: position * part.width }
      return [{ buffer: keys, ...piece }, { buffer: values, ...piece }]
    })
  ]

  return {
    program,
    capacity,
    device,
    memory,
    info: { name: 'webgpu', build: adapterName(device), threads: 1, ssd: ssdOf(program, ssd), reason, memoryBytes: memory.bytes },
    formatOf,
    write(parameter, values, first) {
      health.check()
      const writer = writers.get(parameter) ?? createWeightWriter(layoutOf(parameter))
      writers.set(parameter, writer)
      const { offset, bytes } = writer(values, first)
      for (const { buffer, firstByte, start, end } of memory.placesOf(parameter)) {
        const piece = bytes.subarray(Math.max(0, start - offset), Math.max(0, end - offset))
        if (piece.length > 0) device.queue.writeBuffer(buffer, firstByte + Math.max(start, offset), piece)
      }
      nUnsentBytes += bytes.byteLength
      if (nUnsentBytes < MOST_UNSENT_BYTES) return
      nUnsentBytes = 0
      return health.guard(() => device.queue.onSubmittedWorkDone())
    },
    prepare: (...what) => health.guard(() => Promise.all(what.map((name) => {
      const counts = usualCounts(name === 'token' ? 1 : capacity.maxRows)
      const entries = entriesFor(program.ops.length, fusions, counts)
      // What is more than one submission goes op by op.
      return recording.compile(name === 'token' ? entries : [...entries, ...program.ops.keys()], counts)
    })).then(() => {})),
    begin,
    async run(firstOp, endOp) {
      for (let i = firstOp; i < endOp; i++) await addOp(i)
      submissions.submit()
    },
    async runAll() {
      submissions.add(await allDispatches(), wholeCost())
      submissions.submit()
    },
    readView,
    writeView(view, values) {
      submissions.submit()
      const { offset, stride } = placeOf(view)
      for (let row = 0; row < rowsOf(view); row++) {
        device.queue.writeBuffer(memory.activations, 4 * (offset + row * stride), values.slice(row * view.width, (row + 1) * view.width))
      }
    },
    async forward(batch, logits) {
      begin(batch)
      const nRows = logitRows(batch).length
      if (program.logits !== null && nRows > 0 && nRows <= capacity.maxLogitRows && submissions.fits(wholeCost())) {
        const dispatches = await allDispatches()
        const { offset, stride } = placeOf(program.logits)
        const rows = { first: offset, count: nRows, stride, width: program.logits.width }
        return health.guard(() => steps.run(dispatches, rows, logits))
      }
      await runOps(0, program.headStart)
      if (program.logits === null || nRows === 0) {
        submissions.submit()
        await health.guard(() => submissions.settle(1))
        return pace.pause()
      }
      for (let first = 0; first < nRows; first += capacity.maxLogitRows) {
        if (first > 0) begin(batch, first)
        await runOps(program.headStart, program.ops.length)
        await readView(program.logits, logits.subarray(first * program.logits.width))
      }
    },
    async readState(slot, position, into = new Float32Array(stateElements(program, position))) {
      health.check()
      const encoder = submissions.take()
      await health.guard(() => readback.read(statePieces(slot, position), into.subarray(0, stateElements(program, position)), encoder))
      return into
    },
    async writeState(slot, position, state) {
      health.check()
      submissions.submit()
      let end = 0
      for (const { buffer, first, count } of statePieces(slot, position)) {
        device.queue.writeBuffer(buffer, 4 * first, state.buffer, state.byteOffset + 4 * end, 4 * count)
        end += count
        await pace.pause()
      }
    },
    async clearState(slot) {
      health.check()
      const encoder = submissions.take()
      for (const { buffer, first, count } of statePieces(slot, 0)) if (count > 0) encoder.clearBuffer(buffer, 4 * first, 4 * count)
      device.queue.submit([encoder.finish()])
    },
    async dispose() {
      health.stop()
      readback.destroy()
      steps.destroy()
      memory.destroy()
      if (ownsDevice) device.destroy()
    }
  }
}

/** Weights on their way to the GPU: the driver keeps a copy of what it has not sent. */
const MOST_UNSENT_BYTES = 2 ** 26

function kernelsOf<K extends OpKind>(op: OpOf<K>, context: KernelContext): readonly Kernel[]
function kernelsOf(op: Op, context: KernelContext): readonly Kernel[] {
  const make = OP_KERNELS[op.kind] as (op: Op, context: KernelContext) => readonly Kernel[]
  return make(op, context)
}

/** Tokens of a lone sequence, of which the last has logits. */
function usualCounts(nTokens: number): BatchCounts {
  return { nTokens, nLogitRows: 1, nSegments: 1, maxSegmentRows: nTokens, maxPositions: nTokens }
}
