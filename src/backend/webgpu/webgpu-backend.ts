/** Runs a program on a GPU: records pipelines and bind groups once, then a token is one submission. */

import { createPace } from '../../pace.ts'
import type { WeightFormat } from '../../program/formats.ts'
import { elementsOf, type Op, opCost, type OpKind, type OpOf, type Parameter, type Program, type View } from '../../program/ops.ts'
import { type Batch, type Capacity, logitRows, type QueuedBackend, ssdOf, type SsdForm, stateElements } from '../backend.ts'
import { countsOf, createBatchWords, writeAngles } from './batch.ts'
import { adapterName, factsOf, isSoftware } from './device.ts'
import { watch } from './health.ts'
import { type BatchCounts, type DeviceFacts, type Kernel, type KernelContext, prelude } from './kernel.ts'
import { bestKernels } from './kernels/best.ts'
import { OP_KERNELS } from './kernels/index.ts'
import { createMemory, type GpuMemory, layOutViews } from './memory.ts'
import { createReadback, type Piece } from './readback.ts'
import { type Dispatch, record } from './recording.ts'
import { createSteps, type Rows } from './steps.ts'
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
  const context: KernelContext = { device: options.facts ?? factsOf(device), capacity, ssd, view: placeOf, formatOf }
  /** Of every op, and behind them those that find the best token. */
  const kernels = [...program.ops.map((op) => kernelsOf(op, context)), ...(program.logits ? [bestKernels(program.logits, context)] : [])]
  const memory = await createMemory(device, { program, capacity, kernels: kernels.flat(), activationBytes, layoutOf, maxBindingBytes: context.device.maxBindingBytes })
  const recording = record(device, { kernels, prelude: prelude(capacity), memory })
  const health = watch(device, ownsDevice)
  const readback = createReadback(device)
  const submissions = createSubmissions(device, { isSoftware: isSoftware(device) })
  const steps = createSteps(device)
  const costs = [...program.ops.map(opCost), 0]
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
    const op = program.ops.at(i)
    if (op?.kind === 'attention') return 4 * op.q.width * current.nScores
    return costs[i] * (i < program.headStart ? current.nTokens : current.nLogitRows)
  }
  const wholeCost = (): number => costs.reduce((sum, _, i) => sum + costOf(i), 0)
  const rowsOf = ({ buffer }: View): number => (buffer.rows === 'token' ? current.nTokens : current.nLogitRows)
  const placesOf = (view: View): Rows => {
    const { offset, stride } = placeOf(view)
    return { buffer: memory.activations, first: offset, count: rowsOf(view), stride, width: view.width }
  }
  const placesOfBest = (): Rows => {
    const count = current.nLogitRows
    return { buffer: memory.bufferOf({ kind: 'scratch', bytes: 8 * count }), first: 0, count, stride: 2, width: 2 }
  }
  const readRows = async ({ buffer, first, count, stride, width }: Rows, into: Float32Array): Promise<Float32Array> => {
    const encoder = submissions.take()
    const pieces: Piece[] = stride === width
      ? [{ buffer, first, count: count * stride }]
      : Array.from({ length: count }, (_, row) => ({ buffer, first: first + row * stride, count: width }))
    await health.guard(() => readback.read(pieces, into.subarray(0, count * width), encoder))
    return into
  }
  const dispatchesOf = async (i: number): Promise<readonly Dispatch[]> => {
    const dispatches = recording.dispatches(i, current)
    if (dispatches !== undefined) return dispatches
    await health.guard(() => recording.compile(current))
    return recording.dispatches(i, current) ?? []
  }
  /** The last step's, and the counts by which they go; positions decide of attention alone. */
  let step: { readonly counts: string; readonly dispatches: readonly Dispatch[] } | undefined
  const allDispatches = async (end: number): Promise<readonly Dispatch[]> => {
    const { nTokens, nLogitRows, nSegments, maxSegmentRows, maxPositions } = current
    const counts = [end, nTokens, nLogitRows, nSegments, maxSegmentRows, program.keyValues.length > 0 ? maxPositions : 0].join()
    if (step?.counts === counts) return step.dispatches
    const dispatches: Dispatch[] = []
    for (let i = 0; i < end; i++) dispatches.push(...(recording.dispatches(i, current) ?? (await dispatchesOf(i))))
    step = { counts, dispatches }
    return dispatches
  }
  const addOp = async (i: number): Promise<void> => submissions.add(await dispatchesOf(i), costOf(i))
  const runOps = async (firstOp: number, endOp: number): Promise<void> => {
    for (let i = firstOp; i < endOp; i++) {
      await addOp(i)
      if (!submissions.isFull) continue
      submissions.submit()
      await health.guard(() => submissions.settle(1))
      await pace.pause()
    }
  }
  /** Runs a batch and reads what is wanted of each row of logits: all of them, or the best one's (id, logit). */
  const forward = async (batch: Batch, into: Float32Array, wanted: 'logits' | 'best'): Promise<void> => {
    begin(batch)
    const nRows = logitRows(batch).length
    if (program.logits === null || nRows === 0) {
      await runOps(0, program.headStart)
      submissions.submit()
      await health.guard(() => submissions.settle(1))
      return pace.pause()
    }
    const { logits } = program
    const [end, rowsWanted] = wanted === 'logits' ? [program.ops.length, () => placesOf(logits)] : [kernels.length, placesOfBest]
    if (nRows <= capacity.maxLogitRows && submissions.fits(wholeCost())) {
      const dispatches = await allDispatches(end)
      return health.guard(() => steps.run(dispatches, rowsWanted(), into))
    }
    await runOps(0, program.headStart)
    for (let first = 0; first < nRows; first += capacity.maxLogitRows) {
      if (first > 0) begin(batch, first)
      await runOps(program.headStart, end)
      const rows = rowsWanted()
      await readRows(rows, into.subarray(first * rows.width))
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
    prepare: (...what) => health.guard(() => recording.compile(...what.map((name) => usualCounts(name === 'token' ? 1 : capacity.maxRows)))),
    begin,
    async run(firstOp, endOp) {
      for (let i = firstOp; i < endOp; i++) await addOp(i)
      submissions.submit()
    },
    readView: (view, into = new Float32Array(rowsOf(view) * view.width)) => readRows(placesOf(view), into),
    writeView(view, values) {
      submissions.submit()
      const { offset, stride } = placeOf(view)
      for (let row = 0; row < rowsOf(view); row++) {
        device.queue.writeBuffer(memory.activations, 4 * (offset + row * stride), values.slice(row * view.width, (row + 1) * view.width))
      }
    },
    forward: (batch, logits) => forward(batch, logits, 'logits'),
    async forwardBest(batch) {
      const found = new Float32Array(2 * logitRows(batch).length)
      await forward(batch, found, 'best')
      const ids = new Uint32Array(found.buffer)
      return Array.from({ length: found.length / 2 }, (_, row) => ({ id: ids[2 * row], logit: found[2 * row + 1] }))
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
