/**
 * Where the time of a forward goes: a program run one op at a time on the clock, each op against the limits of the machine.
 * The limits are measured in WebAssembly too, by kernels that do nothing else: multiply and add, read memory (assembled below).
 */

import { logitRows, type Backend, type Batch, type Segment, type SteppingBackend, type TimingBackend } from './backend/backend.ts'
import { messageOf } from './errors.ts'
import { bestOf, type LimitKernel, type Limits, rateOf } from './limits.ts'
import { createPace } from './pace.ts'
import { FORMATS, type WeightFormat } from './program/formats.ts'
import { elementsOf, type Op, type OpKind, type OpOf, type Parameter } from './program/ops.ts'


export type Work = Readonly<Partial<Record<keyof Limits, number>>>

/** The least seconds that work may take: those of the limit that it meets first. */
export function leastSeconds(work: Work, limits: Limits): number {
  const { flop = 0, intOp = 0, byte = 0, exp2 = 0 } = work
  return Math.max(flop / limits.flop, intOp / limits.intOp, byte / limits.byte, exp2 / limits.exp2)
}

/** The same of many cores; an upper bound, since cores share the way to memory. */
export function limitsOfThreads({ flop, intOp, byte, exp2 }: Limits, nThreads: number): Limits {
  return { flop: flop * nThreads, intOp: intOp * nThreads, byte: byte * nThreads, exp2: exp2 * nThreads }
}

type FormatOf = (parameter: Parameter) => WeightFormat

/** Positions that attention looks at. */
export interface Reach {
  /** Sum over the rows. */
  readonly nScores: number
  /** Sum over the sequences: each is read once at least. */
  readonly nKeys: number
}

/** Of rows at the start of one sequence each: they see themselves alone. */
const NO_PAST = (nRows: number): Reach => ({ nScores: nRows, nKeys: nRows })

const works: { readonly [K in OpKind]: (op: OpOf<K>, nRows: number, formatOf: FormatOf, reach: Reach) => Work } = {
  embed: ({ weight, out }, nRows, formatOf) => ({ byte: nRows * bytesOf(formatOf(weight), out.width) }),
  gatherRows: ({ out }, nRows) => ({ byte: 4 * nRows * out.width }),
  // An exp in the gate's silu.
  rmsNorm: ({ out, gate }, nRows) => ({ flop: 4 * nRows * out.width, ...(gate && { exp2: nRows * out.width }) }),
  linear({ weight, x, out }, nRows, formatOf) {
    const format = formatOf(weight)
    const operations = 2 * nRows * x.width * out.width
    return { [FORMATS[format].blockElements === 1 ? 'flop' : 'intOp']: operations, byte: bytesOf(format, elementsOf(weight.shape)) }
  },
  // The sum, and an exp in the silu.
  conv1d: ({ weight, out, activation }, nRows) => ({
    flop: 2 * weight.shape[2] * nRows * out.width, exp2: activation === 'silu' ? nRows * out.width : 0
  }),
  selectiveScan: ({ x, dState }, nRows) => ({ exp2: nRows * x.width * dState }),
  // The decay, what comes in, and the product with C.
  ssdScan: ({ x, dt, dState }, nRows) => ({ flop: 5 * nRows * x.width * dState, exp2: nRows * dt.width }),
  rotary: ({ x, headDim, rotaryDim }, nRows) => ({ flop: (3 * nRows * x.width * rotaryDim) / headDim }),
  cacheKeyValue: ({ cache }, nRows) => ({ byte: 8 * nRows * cache.width }),
  // Two products for each column of each position, and an exp for each head.
  attention: ({ q, headDim, cache }, _nRows, _formatOf, { nScores, nKeys }) => ({
    flop: 4 * nScores * q.width, exp2: (nScores * q.width) / headDim, byte: 8 * nKeys * cache.width
  }),
  activation: ({ out, function: f }, nRows) => ({ flop: 2 * nRows * out.width, exp2: f === 'relu2' ? 0 : nRows * out.width }),
  scaledAdd: ({ out }, nRows) => ({ flop: 2 * nRows * out.width }),
  route: ({ x }, nRows) => ({ flop: nRows * x.width }),
  // A matrix that nobody chose is not read: for one row those of its choices, for many rows all that there are.
  expertLinear({ x, isPerChoice, topK, nExperts, weights, out }, nRows, formatOf) {
    const format = formatOf(weights[0])
    const matrix = ((isPerChoice ? x.width / topK : x.width) * out.width) / topK
    const operations = 2 * nRows * topK * matrix
    return { [FORMATS[format].blockElements === 1 ? 'flop' : 'intOp']: operations, byte: Math.min(nExperts, topK * nRows) * bytesOf(format, matrix) }
  },
  mixExperts: ({ out, topK }, nRows) => ({ flop: 2 * nRows * topK * out.width })
}

/** The least that an op does for a number of rows. */
export function workOf(op: Op, nRows: number, formatOf: FormatOf, reach: Reach = NO_PAST(nRows)): Work {
  const work = works[op.kind] as (op: Op, nRows: number, formatOf: FormatOf, reach: Reach) => Work
  return work(op, nRows, formatOf, reach)
}

/** Of the rows of a batch. */
export function reachOf({ segments }: Batch): Reach {
  const of = (value: (segment: Segment) => number): number => segments.reduce((sum, segment) => sum + value(segment), 0)
  return {
    nScores: of(({ position, nRows }) => nRows * position + (nRows * (nRows + 1)) / 2),
    nKeys: of(({ position, nRows }) => (nRows === 0 ? 0 : position + nRows))
  }
}

/** The work of each op of a batch. */
export function worksOf({ program, ...backend }: Pick<Backend, 'program' | 'formatOf'>, batch: Batch): Work[] {
  const nLogitRows = logitRows(batch).length
  const reach = reachOf(batch)
  return program.ops.map((op) => workOf(op, op.out.buffer.rows === 'token' ? batch.tokens.length : nLogitRows, backend.formatOf, reach))
}

function bytesOf(format: WeightFormat, elements: number): number {
  return (elements / FORMATS[format].blockElements) * FORMATS[format].blockBytes
}

export interface ProfileLine {
  /** The op's kind; of a linear op also its inputs, outputs and format: `linear 768 × 3072 q8_0`, `expertLinear 16 of 768 × 3072 q8_0`. */
  readonly name: string
  readonly kind: OpKind
  readonly nOps: number
  /** Of all its ops in one batch: the median over the repeats. */
  readonly elapsedMs: number
  /** Part of the total. */
  readonly share: number
  readonly works: readonly Work[]
}

export interface Profile {
  readonly nTokens: number
  readonly threads: number
  /** The longest first. */
  readonly lines: readonly ProfileLine[]
  /** The lines' sum. */
  readonly totalMs: number
  /** Median of the batch in one go, without a stop after each op. */
  readonly wholeMs: number
  /** Of one core, in a second; null where none were asked for. */
  readonly limits: Limits | null
}

export interface ProfileOptions {
  /** Times that all is measured, after one that does not count. Default 5. */
  readonly repeats?: number | undefined
  /** Measured between the repeats, so that they meet the same moments of a machine that others use too. */
  readonly limits?: readonly LimitKernel[] | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * Runs a batch op by op, and in one go. The states of the batch's slots go on; with many threads each op ends with a barrier, and on a GPU with a pass,
 * that a whole run may do without. RangeError for a batch that asks for more logits than the backend makes at a time; throws the
 * signal's reason when aborted.
 */
export async function profile(backend: SteppingBackend | TimingBackend, batch: Batch, { repeats = 5, limits = [], signal }: ProfileOptions = {}): Promise<Profile> {
  const { ops } = backend.program
  const formatOf: FormatOf = (parameter) => backend.formatOf(parameter)
  const names = ops.map((op) => nameOf(op, formatOf))
  const works = worksOf({ program: backend.program, formatOf }, batch)
  const samplesMs = new Map(names.map((name) => [name, [] as number[]]))
  const wholeMs: number[] = []
  const rates = limits.map((): number[] => [])
  const nLogitRows = logitRows(batch).length
  if (nLogitRows > backend.capacity.maxLogitRows) {
    throw new RangeError(messageOf({ place: 'profile', expected: `a batch with logits of ${backend.capacity.maxLogitRows} rows at most`, got: `${nLogitRows}` }))
  }
  const logits = new Float32Array(nLogitRows * (backend.program.logits?.width ?? 0))
  for (let repeat = 0; repeat <= repeats; repeat++) {
    for (const [i, kernel] of limits.entries()) rates[i].push(rateOf(kernel))
    signal?.throwIfAborted()
    // What the limits drove out of the caches comes back.
    await backend.forward(batch, logits)
    const timesMs = 'timeOps' in backend ? await backend.timeOps(batch) : await runByOp(backend, batch, signal)
    const startMs = performance.now()
    await backend.forward(batch, logits)
    if (repeat === 0) continue
    wholeMs.push(performance.now() - startMs)
    for (const [name, samples] of samplesMs) samples.push(timesMs.reduce((sum, ms, i) => sum + (names[i] === name ? ms : 0), 0))
  }
  const medians = [...samplesMs].map(([name, samples]) => [name, median(samples)] as const)
  const totalMs = medians.reduce((sum, [, ms]) => sum + ms, 0)
  const lines = medians.map(([name, elapsedMs]) => {
    const isOwn = (_: unknown, i: number): boolean => names[i] === name
    const own = ops.filter(isOwn)
    return { name, kind: own[0].kind, nOps: own.length, elapsedMs, share: elapsedMs / totalMs, works: works.filter(isOwn) }
  })
  lines.sort((a, b) => b.elapsedMs - a.elapsedMs)
  return {
    nTokens: batch.tokens.length, threads: backend.info.threads, lines, totalMs, wholeMs: median(wholeMs),
    limits: limits.length === 0 ? null : bestOf(limits, rates.map((samples) => median(samples.slice(1))))
  }
}

/** Milliseconds of each op. */
async function runByOp(backend: SteppingBackend, batch: Batch, signal: AbortSignal | undefined): Promise<Float64Array> {
  const timesMs = new Float64Array(backend.program.ops.length)
  const pace = createPace()
  backend.begin(batch)
  for (let i = 0; i < timesMs.length; i++) {
    const startMs = performance.now()
    backend.run(i, i + 1)
    timesMs[i] = performance.now() - startMs
    await pace.pause()
    signal?.throwIfAborted()
  }
  return timesMs
}

function nameOf(op: Op, formatOf: FormatOf): string {
  if (op.kind === 'linear') return `linear ${op.x.width} × ${op.out.width} ${formatOf(op.weight)}`
  return op.kind === 'expertLinear' ? `expertLinear ${op.nExperts} of ${op.isPerChoice ? op.x.width / op.topK : op.x.width} × ${op.out.width / op.topK} ${formatOf(op.weights[0])}` : op.kind
}

/** The upper one of two. */
function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]
}
