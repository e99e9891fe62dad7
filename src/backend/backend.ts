/** What runs a program. Three implementations: reference (float64, readable), wasm (fast), webgpu. */

import type { WeightData, WeightFormat } from '../program/formats.ts'
import type { Parameter, Program, View } from '../program/ops.ts'

/** A run of tokens of one sequence within a batch. */
export interface Segment {
  /** State slot of the sequence. */
  readonly slot: number
  /** Tokens that the sequence had before. */
  readonly position: number
  /** Where its tokens start in the batch. */
  readonly firstRow: number
  readonly nRows: number
  /** Which of its tokens get logits. */
  readonly logits: 'none' | 'last' | 'all'
}

/** One forward: a prompt, a token, a chunk, a batch of sequences of different lengths. */
export interface Batch {
  /** Ids, checked by the caller. */
  readonly tokens: Int32Array
  readonly segments: readonly Segment[]
}

/** How Mamba-2's state space is computed: token by token, or by matrix products over chunks of tokens, which rounds otherwise. */
export type SsdForm = 'recurrent' | 'chunked'

/** What runs, and why; a property of every loaded model. */
export interface BackendInfo {
  readonly name: 'reference' | 'wasm' | 'webgpu'
  /** Build of the compute core: 'simd', 'scalar', or 'float64' for the reference; on a GPU the adapter's name. */
  readonly build: string
  readonly threads: number
  /** Of the Mamba-2 layers; null without any. */
  readonly ssd: SsdForm | null
  /** Why this one. */
  readonly reason: string
  readonly memoryBytes: MemoryBytes
}

/** Taken when the model is loaded; it does not grow. */
export interface MemoryBytes {
  readonly weights: number
  /** Of all resident sequences, keys and values of the whole context included. */
  readonly state: number
  /** What each token of contextLength takes of it, the keys and values of all resident sequences; 0 without attention. */
  readonly statePerToken: number
  readonly activations: number
  readonly total: number
}

export interface Capacity {
  /** Rows of a batch. */
  readonly maxRows: number
  /** Rows whose logits are made at a time; a forward takes as many turns as it needs. */
  readonly maxLogitRows: number
  /** Sequences whose state is resident. */
  readonly nSlots: number
  /** Tokens that a sequence may have where the program has keys and values; 0 in one without. */
  readonly contextLength: number
}

/** The likeliest token of a row of logits, at a tie the one of the lowest id; in a row with NaN or ∞ the first of those. */
export interface Best {
  readonly id: number
  readonly logit: number
}

export interface Backend {
  readonly program: Program
  readonly info: BackendInfo
  readonly capacity: Capacity
  /** The format in which `write` takes a parameter. */
  formatOf(parameter: Parameter): WeightFormat
  /**
   * Values of a parameter, row-major from element `first` (a block's first), already transformed; read before this returns, be it a promise.
   * All of them come before the first forward.
   */
  write(parameter: Parameter, values: WeightData, first: number): void | Promise<void>
  /** Resolves when the first forward may come: threads start while weights are written. Throws an EngineError. */
  ready?(): Promise<void>
  /** Runs a batch and writes its logits (logit rows, vocabSize), in the order of the segments, to the start of `logits`. */
  forward(batch: Batch, logits: Float32Array): Promise<void>
  /**
   * `forward` that gives no more than the best token of each row of logits, where that saves their way to the host. `goesOn`: the batch is of one
   * sequence, whose next token is likely to be the best one, so that the backend may begin with it.
   */
  forwardBest?(batch: Batch, goesOn?: boolean): Promise<readonly Best[]>
  /**
   * The canonical state of a slot whose sequence has read `position` tokens: program.stateSize elements, then of each of
   * program.keyValues the keys (position, width) and the values (position, width). Written to `into`, by default the caller's own.
   */
  readState(slot: number, position: number, into?: Float32Array): Promise<Float32Array>
  writeState(slot: number, position: number, state: Float32Array): Promise<void>
  clearState(slot: number): Promise<void>
  dispose(): Promise<void>
}

/** A backend whose program can be run one op at a time: for tests, profiles and the bare scan. */
export interface SteppingBackend extends Backend {
  write(parameter: Parameter, values: WeightData, first: number): void
  /** Of the logit rows, those from `firstLogitRow` on, maxLogitRows at most. */
  begin(batch: Batch, firstLogitRow?: number): void
  run(firstOp: number, endOp: number): void
  /** (rows of the batch, view.width): written to the start of `into`, by default the caller's own. */
  readView(view: View, into?: Float32Array): Float32Array
  writeView(view: View, values: Float32Array): void
}

/** The same where results have to be waited for: a GPU's. */
export interface QueuedBackend extends Omit<SteppingBackend, 'run' | 'readView' | 'write'>, Pick<Backend, 'write'> {
  run(firstOp: number, endOp: number): void | Promise<void>
  readView(view: View, into?: Float32Array): Float32Array | Promise<Float32Array>
}

/** One that tells what its ops take: of a GPU's the host's clock sees the queueing alone. */
export interface TimingBackend extends Backend {
  /** Runs a batch, of whose logits there are maxLogitRows rows at most; milliseconds of each op. UnsupportedError where the device has no clock. */
  timeOps(batch: Batch): Promise<Float64Array>
}

/** What BackendInfo tells of a program that would be computed by `form`. */
export function ssdOf({ ops }: Program, form: SsdForm): SsdForm | null {
  return ops.some(({ kind }) => kind === 'ssdScan') ? form : null
}

/** Elements of the canonical state of a sequence that has read `position` tokens. */
export function stateElements({ stateSize, keyValueWidth }: Program, position: number): number {
  return stateSize + position * keyValueWidth
}

/** The token rows whose logits a batch asks for. */
export function logitRows(batch: Batch): number[] {
  return batch.segments.flatMap(({ firstRow, nRows, logits }) => {
    if (logits === 'none' || nRows === 0) return []
    return logits === 'last' ? [firstRow + nRows - 1] : Array.from({ length: nRows }, (_, i) => firstRow + i)
  })
}

/** Runs a batch on a stepping backend: the layers once, then the head for a few logit rows at a time. `runOps` may pause within. */
export async function forwardInTurns(backend: SteppingBackend, batch: Batch, take: (logits: View, first: number) => void, runOps: (first: number, end: number) => Promise<void>): Promise<void> {
  const { program, capacity } = backend
  const nRows = logitRows(batch).length
  backend.begin(batch)
  await runOps(0, program.headStart)
  if (program.logits === null) return
  for (let first = 0; first < nRows; first += capacity.maxLogitRows) {
    if (first > 0) backend.begin(batch, first)
    await runOps(program.headStart, program.ops.length)
    take(program.logits, first)
  }
}
