/** Runs a program on a GPU: records pipelines and bind groups once, then a token is one submission. */

import { EngineError } from '../../errors.ts'
import { createPace } from '../../pace.ts'
import type { WeightFormat } from '../../program/formats.ts'
import { elementsOf, type Op, opCost, type OpKind, type OpOf, type Parameter, type Program, type View } from '../../program/ops.ts'
import { rotaryRow } from '../../program/rotary.ts'
import { type Batch, type Capacity, logitRows, type QueuedBackend, ssdOf, type SsdForm, stateElements } from '../backend.ts'
import { adapterName, factsOf, isSoftware } from './device.ts'
import { BATCH_HEADER_WORDS, type BatchCounts, type Kernel, type KernelContext, prelude, SEGMENT_WORDS } from './kernel.ts'
import { OP_KERNELS } from './kernels/index.ts'
import { createMemory, type GpuMemory, layOutViews } from './memory.ts'
import { createReadback, type Piece } from './readback.ts'
import { makeReady } from './recording.ts'
import { createSubmissions } from './submissions.ts'
import { createWeightWriter, formatOfLayout, weightLayouts, type WeightLayout } from './weights.ts'

export interface GpuOptions {
  readonly device: GPUDevice
  /** The device goes with the backend; otherwise it is its giver's. */
  readonly ownsDevice: boolean
  readonly reason: string
  /** The format of each matrix; f32 by default. */
  readonly formatOf?: ((parameter: Parameter) => WeightFormat) | undefined
  readonly ssd?: SsdForm | undefined
}

export interface WebGpuBackend extends QueuedBackend {
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
  const writers = new Map(program.parameters.map((parameter) => [parameter, createWeightWriter(layoutOf(parameter))]))
  const context: KernelContext = { device: factsOf(device), capacity, ssd, view: placeOf, formatOf }
  const kernels = program.ops.map((op) => kernelsOf(op, context))
  const memory = await createMemory(device, { program, capacity, kernels: kernels.flat(), activationBytes, layoutOf })
  const ready = await makeReady(device, { kernels, prelude: prelude(capacity), memory })
  const health = watch(device)
  const readback = createReadback(device)
  const submissions = createSubmissions(device, { isSoftware: isSoftware(device) })
  const costs = program.ops.map(opCost)
  const pace = createPace()
  const layout = createBatchLayout(capacity)
  let current: BatchCounts & { readonly nScores: number } = { nTokens: 0, nLogitRows: 0, nSegments: 0, maxSegmentRows: 0, maxPositions: 0, nScores: 0 }

  const begin = (batch: Batch, firstLogitRow = 0): void => {
    health.check()
    submissions.submit()
    const wanted = logitRows(batch).slice(firstLogitRow, firstLogitRow + capacity.maxLogitRows)
    current = countsOf(batch, wanted.length)
    device.queue.writeBuffer(memory.batch, 0, layout.write(batch, wanted))
    // Of the layers alone: later turns of the head find them done.
    if (firstLogitRow === 0) writeAngles(device, memory, batch)
  }
  const costOf = (i: number): number => {
    const op = program.ops[i]
    if (op.kind === 'attention') return 4 * op.q.width * current.nScores
    return costs[i] * (i < program.headStart ? current.nTokens : current.nLogitRows)
  }
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
  const runOps = async (firstOp: number, endOp: number): Promise<void> => {
    for (let i = firstOp; i < endOp; i++) {
      submissions.add(ready[i], current, costOf(i))
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
      const writer = writers.get(parameter)
      if (writer === undefined) throw new TypeError(`${parameter.name}: no parameter of this program`)
      const { offset, bytes } = writer(values, first)
      for (const { buffer, firstByte, start, end } of memory.placesOf(parameter)) {
        const piece = bytes.subarray(Math.max(0, start - offset), Math.max(0, end - offset))
        if (piece.length > 0) device.queue.writeBuffer(buffer, firstByte + Math.max(start, offset), piece)
      }
    },
    begin,
    run(firstOp, endOp) {
      for (let i = firstOp; i < endOp; i++) submissions.add(ready[i], current, costOf(i))
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
      memory.destroy()
      if (ownsDevice) device.destroy()
    }
  }
}

function kernelsOf<K extends OpKind>(op: OpOf<K>, context: KernelContext): readonly Kernel[]
function kernelsOf(op: Op, context: KernelContext): readonly Kernel[] {
  const make = OP_KERNELS[op.kind] as (op: Op, context: KernelContext) => readonly Kernel[]
  return make(op, context)
}

interface Health {
  /** Throws when the device is gone. */
  check(): void
  /** What waits for the device: an EngineError when it is lost meanwhile. */
  guard<T>(task: () => Promise<T>): Promise<T>
  stop(): void
}

/** A device is of no more use when it is lost, and not to be trusted after an error that nobody asked for: that is one of this package. */
function watch(device: GPUDevice): Health {
  let failure: EngineError | undefined
  const fail = (got: string, cause?: unknown): EngineError => (failure ??= new EngineError({ place: 'backend webgpu', expected: 'a device that works', got }, { cause }))
  const onError = ({ error }: GPUUncapturedErrorEvent): void => void fail(`an error of it: ${error.message}`)
  void device.lost.then(({ reason, message }) => fail(`one that was lost (${reason}): ${message}`))
  device.addEventListener('uncapturederror', onError)
  const check = (): void => {
    if (failure !== undefined) throw failure
  }
  return {
    check,
    async guard(task) {
      check()
      let result
      try {
        result = await task()
      } catch (cause) {
        // The device's own word on it, where it comes, is the better one.
        await Promise.resolve()
        throw failure ?? fail(`one that failed: ${cause instanceof Error ? cause.message : String(cause)}`, cause)
      }
      check()
      return result
    },
    stop() {
      device.removeEventListener('uncapturederror', onError)
    }
  }
}

function countsOf({ tokens, segments }: Batch, nLogitRows: number): BatchCounts & { readonly nScores: number } {
  return {
    nTokens: tokens.length,
    nLogitRows,
    nSegments: segments.length,
    maxSegmentRows: segments.reduce((most, { nRows }) => Math.max(most, nRows), 0),
    maxPositions: segments.reduce((most, { position, nRows }) => Math.max(most, position + nRows), 0),
    nScores: segments.reduce((sum, { position, nRows }) => sum + nRows * position + (nRows * (nRows + 1)) / 2, 0)
  }
}

/** The words of the batch buffer, as kernel.ts draws them; the same array every time. */
function createBatchLayout({ maxRows, maxLogitRows, nSlots }: Capacity): { write(batch: Batch, logitRows: readonly number[]): Uint32Array<ArrayBuffer> } {
  const words = new Uint32Array(BATCH_HEADER_WORDS + SEGMENT_WORDS * nSlots + 2 * maxRows + maxLogitRows)
  const tokens = words.subarray(BATCH_HEADER_WORDS + SEGMENT_WORDS * nSlots)
  const segmentByRow = tokens.subarray(maxRows)
  const rows = segmentByRow.subarray(maxRows)
  return {
    write(batch, logitRows) {
      words.set([batch.tokens.length, logitRows.length, batch.segments.length])
      batch.segments.forEach(({ slot, position, firstRow, nRows }, i) => {
        words.set([slot, position, firstRow, nRows], BATCH_HEADER_WORDS + SEGMENT_WORDS * i)
        segmentByRow.fill(i, firstRow, firstRow + nRows)
      })
      tokens.set(batch.tokens)
      rows.set(logitRows)
      return words
    }
  }
}

/** The angles by which each row's queries and keys are turned. */
function writeAngles(device: GPUDevice, { rotaries }: GpuMemory, { tokens, segments }: Batch): void {
  for (const { theta, rotaryDim, buffer } of rotaries) {
    const angles = new Float32Array(tokens.length * rotaryDim)
    for (const { position, firstRow, nRows } of segments) {
      for (let t = 0; t < nRows; t++) angles.set(rotaryRow(theta, rotaryDim, position + t), (firstRow + t) * rotaryDim)
    }
    device.queue.writeBuffer(buffer, 0, angles)
  }
}
