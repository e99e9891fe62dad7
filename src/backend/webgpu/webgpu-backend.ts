/** Runs a program on a GPU: records pipelines and bind groups once, then a token is one submission. */

import { createPace } from '../../pace.ts'
import type { WeightFormat } from '../../program/formats.ts'
import { elementsOf, type Op, opCost, type OpKind, type OpOf, type Parameter, type Program, type View } from '../../program/ops.ts'
import { type Batch, type Capacity, logitRows, type QueuedBackend, type Segment, ssdOf, type SsdForm, stateElements, type TimingBackend } from '../backend.ts'
import { countsOf, createBatchWords, writeAngles } from './batch.ts'
import { adapterName, factsOf, isSoftware } from './device.ts'
import { entriesFor, findFusions } from './fusions.ts'
import { probeHalves } from './halves.ts'
import { watch } from './health.ts'
import { type BatchCounts, type DeviceFacts, type Kernel, type KernelContext, prelude, tokensAt } from './kernel.ts'
import { BEST, BEST_WORDS, bestKernels, bestOf } from './kernels/best.ts'
import { OP_KERNELS } from './kernels/index.ts'
import { createMemory, type GpuMemory, layOutViews } from './memory.ts'
import { checkClock, timeOps } from './op-times.ts'
import { createReadback, type Piece } from './readback.ts'
import { type Dispatch, record } from './recording.ts'
import { createSlotStates } from './slot-states.ts'
import { createSteps, type Rows, type WordCopy } from './steps.ts'
import { createSubmissions } from './submissions.ts'
import { createUpload } from './upload.ts'
import { formatOfLayout, weightLayouts, type WeightLayout } from './weights.ts'

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

export interface WebGpuBackend extends QueuedBackend, TimingBackend {
  /** Compiles what a token, and a whole chunk, need; without it the first of each waits. */
  prepare(...what: readonly ('token' | 'chunk')[]): Promise<void>
  /** All ops of the batch that was begun in one submission, as `forward` has a step: by fewer kernels than `run`, which leave out what only they would read. */
  runAll(): Promise<void>
  readonly forwardBest: NonNullable<QueuedBackend['forwardBest']>
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
  /** Entries of the recording: ops, fusions of them, and last what finds the best token. */
  const kernels = [
    ...program.ops.map((op) => kernelsOf(op, context)), ...fusions.map((fusion) => fusion.kernels), ...(program.logits ? [bestKernels(program.logits, context)] : [])
  ]
  const memory = await createMemory(device, { program, capacity, kernels: kernels.flat(), activationBytes, layoutOf, maxBindingBytes: context.device.maxBindingBytes })
  const recording = record(device, { kernels, prelude: prelude(capacity), memory })
  const health = watch(device, ownsDevice)
  const readback = createReadback(device)
  const submissions = createSubmissions(device, { isSoftware: isSoftware(device) })
  /** Of the step that is waited for and the one ahead of it, in turns. */
  const lanes = [createSteps(device), createSteps(device)]
  const states = createSlotStates(program, capacity, memory)
  let ahead: Ahead | undefined
  const costs = program.ops.map(opCost)
  const pace = createPace()
  const words = createBatchWords(capacity)
  let current = countsOf({ tokens: new Int32Array(0), segments: [] }, 0)
  const upload = createUpload(device.queue, layoutOf, memory)

  /** It has read a state, or stands in a batch, that is another one by now. */
  const forgetAhead = (): void => {
    if (ahead !== undefined) ahead.token = UNKNOWN
  }
  const begin = (batch: Batch, firstLogitRow = 0, placesAt = states.inPlace): void => {
    health.check()
    submissions.submit()
    forgetAhead()
    const wanted = logitRows(batch).slice(firstLogitRow, firstLogitRow + capacity.maxLogitRows)
    current = countsOf(batch, wanted.length)
    device.queue.writeBuffer(memory.batch, 0, words(batch, wanted, placesAt))
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
  const rowsIn = (view: View): Rows => {
    const { offset, stride } = placeOf(view)
    return { buffer: memory.activations, first: offset, count: rowsOf(view), stride, width: view.width }
  }
  const readRows = async ({ buffer, first, count, stride, width }: Rows, into: Float32Array): Promise<Float32Array> => {
    const encoder = submissions.take()
    const pieces: Piece[] = stride === width
      ? [{ buffer, first, count: count * stride }]
      : Array.from({ length: count }, (_, row) => ({ buffer, first: first + row * stride, count: width }))
    await health.guard(() => readback.read(pieces, into.subarray(0, count * width), encoder))
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
  const allDispatches = async (extra: Wanted['extra']): Promise<readonly Dispatch[]> => {
    const { nTokens, nLogitRows, nSegments, maxSegmentRows, maxPositions } = current
    const counts = [...extra, nTokens, nLogitRows, nSegments, maxSegmentRows, program.keyValues.length > 0 ? maxPositions : 0].join()
    if (step?.counts === counts) return step.dispatches
    const dispatches = await dispatchesOf([...entriesFor(program.ops.length, fusions, current), ...extra])
    step = { counts, dispatches }
    return dispatches
  }
  const addOp = async (i: number): Promise<void> => {
    // The others' are likely to be needed, too.
    if (recording.dispatches(i, current) === undefined) await health.guard(() => recording.compile([...program.ops.keys()], current))
    submissions.add(recording.dispatches(i, current) ?? [], costOf(i))
  }
  /** The layers, or the head, by the kernels of whole forwards, in as many submissions as it takes: what an op costs decides of no bit. */
  const runPart = async (part: 'layers' | 'head'): Promise<void> => {
    const entries = entriesFor(program.ops.length, fusions, current).map((entry) => ({ entry, ...(fusions[entry - program.ops.length] ?? { first: entry, end: entry + 1 }) }))
    const own = entries.filter(({ first }) => first >= program.headStart === (part === 'head'))
    // All that is missing is compiled at once.
    await dispatchesOf(own.map(({ entry }) => entry))
    for (const { entry, first, end } of own) {
      const cost = Array.from({ length: end - first }, (_, i) => costOf(first + i)).reduce((sum, each) => sum + each, 0)
      submissions.add(await dispatchesOf([entry]), cost)
      if (!submissions.isFull) continue
      submissions.submit()
      await health.guard(() => submissions.settle(1))
      await pace.pause()
    }
  }
  const allLogits = (logits: View): Wanted => ({ extra: [], rows: () => rowsIn(logits) })
  const best: Wanted = { extra: program.logits ? [kernels.length - 1] : [], rows: () => ({ buffer: memory.bufferOf(BEST), first: 0, count: current.nLogitRows, stride: BEST_WORDS, width: BEST_WORDS }) }
  /** What was begun, in one submission. */
  const submitWhole = async ({ extra, rows }: Wanted, into: Float32Array, copy?: WordCopy): Promise<Started> => {
    const dispatches = await allDispatches(extra)
    lanes.reverse()
    const done = health.guard(() => lanes[0].run({ dispatches, rows: rows(), copy }, into))
    // Whoever waits for it hears of it, and nobody may.
    done.catch(() => {})
    return { done }
  }
  /** Begins a forward whose rows of logits, as they are wanted, go to `into`. */
  const start = async (batch: Batch, into: Float32Array, wantedOf: (logits: View) => Wanted): Promise<Started> => {
    begin(batch)
    const nRows = logitRows(batch).length
    if (program.logits === null || nRows === 0) {
      await runPart('layers')
      submissions.submit()
      await health.guard(() => submissions.settle(1))
      return { done: pace.pause() }
    }
    const wanted = wantedOf(program.logits)
    if (nRows <= capacity.maxLogitRows && submissions.fits(wholeCost())) return submitWhole(wanted, into)
    await runPart('layers')
    for (let first = 0; first < nRows; first += capacity.maxLogitRows) {
      if (first > 0) begin(batch, first)
      await runPart('head')
      submissions.add(await dispatchesOf(wanted.extra), 0)
      const rows = wanted.rows()
      await readRows(rows, into.subarray(first * rows.width))
    }
    return { done: Promise.resolve() }
  }
  const bestToToken: WordCopy = { source: memory.bufferOf(BEST), from: 0, target: memory.batch, to: tokensAt(capacity) }
  /** Begins the step that reads the best token behind a segment, where it is one submission. Its states go to the spare place: it counts when it is asked for. */
  const startAhead = async ({ slot, position, nRows }: Segment): Promise<Ahead | undefined> => {
    const next = { slot, position: position + nRows }
    if (program.keyValues.length > 0 && next.position >= capacity.contextLength) return undefined
    const batch: Batch = { tokens: Int32Array.of(0), segments: [{ ...next, firstRow: 0, nRows: 1, logits: 'last' }] }
    begin(batch, 0, states.ahead)
    if (!submissions.fits(wholeCost())) return undefined
    const into = new Float32Array(BEST_WORDS)
    return { ...next, ...(await submitWhole(best, into, bestToToken)), token: UNKNOWN, into }
  }
  /** The step ahead if `batch` asks for it; otherwise it is as if it had not run. */
  const takeAhead = async (batch: Batch): Promise<Ahead | undefined> => {
    const taken = ahead
    ahead = undefined
    if (taken === undefined || isStepOf(taken, batch)) return taken
    await taken.done
    return undefined
  }

  return {
    program,
    capacity,
    device,
    memory,
    info: { name: 'webgpu', build: adapterName(device), threads: 1, ssd: ssdOf(program, ssd), reason, memoryBytes: memory.bytes },
    formatOf,
    write(parameter, values, first) {
      health.check()
      return upload(parameter, values, first) ? health.guard(() => device.queue.onSubmittedWorkDone()) : undefined
    },
    prepare: (...what) => health.guard(() => Promise.all(what.map((name) => {
      const counts = usualCounts(name === 'token' ? 1 : capacity.maxRows)
      return recording.compile([...entriesFor(program.ops.length, fusions, counts), ...(name === 'token' ? best.extra : [])], counts)
    })).then(() => {})),
    begin,
    async run(firstOp, endOp) {
      for (let i = firstOp; i < endOp; i++) await addOp(i)
      submissions.submit()
    },
    async timeOps(batch) {
      checkClock(device)
      begin(batch)
      const ops: (readonly Dispatch[])[] = []
      for (let i = 0; i < program.ops.length; i++) ops.push(await dispatchesOf([i]))
      return health.guard(() => timeOps(device, readback, ops))
    },
    async runAll() {
      submissions.add(await allDispatches([]), wholeCost())
      submissions.submit()
    },
    readView: (view, into = new Float32Array(rowsOf(view) * view.width)) => readRows(rowsIn(view), into),
    writeView(view, values) {
      submissions.submit()
      const { offset, stride } = placeOf(view)
      for (let row = 0; row < rowsOf(view); row++) {
        device.queue.writeBuffer(memory.activations, 4 * (offset + row * stride), values.slice(row * view.width, (row + 1) * view.width))
      }
    },
    async forward(batch, logits) {
      await ahead?.done
      ahead = undefined
      await (await start(batch, logits, allLogits)).done
    },
    async forwardBest(batch, goesOn = false) {
      const [segment] = batch.segments
      const taken = await takeAhead(batch)
      if (taken !== undefined) states.adopt(segment.slot)
      const into = taken?.into ?? new Float32Array(BEST_WORDS * logitRows(batch).length)
      const { done } = taken ?? (await start(batch, into, () => best))
      ahead = goesOn ? await startAhead(segment) : undefined
      await done
      const found = bestOf(into)
      if (ahead !== undefined) ahead.token = found[0].id
      return found
    },
    async readState(slot, position, into = new Float32Array(stateElements(program, position))) {
      health.check()
      const encoder = submissions.take()
      await health.guard(() => readback.read(states.pieces(slot, position), into.subarray(0, stateElements(program, position)), encoder))
      return into
    },
    async writeState(slot, position, state) {
      health.check()
      forgetAhead()
      submissions.submit()
      let end = 0
      for (const { buffer, first, count } of states.pieces(slot, position)) {
        device.queue.writeBuffer(buffer, 4 * first, state.buffer, state.byteOffset + 4 * end, 4 * count)
        end += count
        await pace.pause()
      }
    },
    async clearState(slot) {
      health.check()
      forgetAhead()
      const encoder = submissions.take()
      for (const { buffer, first, count } of states.pieces(slot, 0)) if (count > 0) encoder.clearBuffer(buffer, 4 * first, 4 * count)
      device.queue.submit([encoder.finish()])
    },
    async dispose() {
      health.stop()
      readback.destroy()
      for (const lane of lanes) lane.destroy()
      memory.destroy()
      if (ownsDevice) device.destroy()
    }
  }
}

/** What may be wanted of rows of logits: what runs for it behind the ops, of the recording, and where it then is. */
interface Wanted {
  readonly extra: readonly number[]
  readonly rows: () => Rows
}

interface Started {
  /** Resolves when what is wanted is there. */
  readonly done: Promise<void>
}

/** A step that was begun before anybody asked for it, by the best token of the one before, so that the GPU need not wait for the host. */
interface Ahead extends Started {
  readonly slot: number
  readonly position: number
  /** What it has read; UNKNOWN until the host knows it, and where the step is of no use any more. */
  token: number
  readonly into: Float32Array
}

const UNKNOWN = -1

function isStepOf({ slot, position, token }: Ahead, { tokens, segments }: Batch): boolean {
  const [segment] = segments
  return segments.length === 1 && tokens.length === 1 && tokens[0] === token && segment.slot === slot && segment.position === position
}

function kernelsOf<K extends OpKind>(op: OpOf<K>, context: KernelContext): readonly Kernel[]
function kernelsOf(op: Op, context: KernelContext): readonly Kernel[] {
  const make = OP_KERNELS[op.kind] as (op: Op, context: KernelContext) => readonly Kernel[]
  return make(op, context)
}

/** Tokens of a lone sequence, of which the last has logits. */
function usualCounts(nTokens: number): BatchCounts {
  return { nTokens, nLogitRows: 1, nSegments: 1, maxSegmentRows: nTokens, maxPositions: nTokens }
}
