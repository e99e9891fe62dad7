/**
 * Where the time of a forward goes: a program run one op at a time on the clock, each op against the limits of the machine.
 * The limits are measured in WebAssembly too, by kernels that do nothing else: multiply and add, read memory (assembled below).
 */

import { logitRows, type Batch, type Segment, type SteppingBackend } from './backend/backend.ts'
import { messageOf } from './errors.ts'
import { createPace } from './pace.ts'
import { FORMATS, type WeightFormat } from './program/formats.ts'
import { elementsOf, type Op, type OpKind, type OpOf, type Parameter } from './program/ops.ts'

/** What one core does at most in a second. */
export interface Limits {
  /** f32 operations, each product and each sum counted: f32x4.mul and f32x4.add on independent sums. */
  readonly flop: number
  /** 16-bit operations, each product and each sum counted: i32x4.dot_i16x8_s and i32x4.add. */
  readonly intOp: number
  /** Bytes read from memory that no cache holds. */
  readonly byte: number
  /** Values of the core's exp2, the least that a scan does for each channel and state. */
  readonly exp2: number
}

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
export function worksOf({ program, ...backend }: Pick<SteppingBackend, 'program' | 'formatOf'>, batch: Batch): Work[] {
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
 * Runs a batch op by op, and in one go. The states of the batch's slots go on; with many threads each op ends with a barrier
 * that a whole run may do without. RangeError for a batch that asks for more logits than the backend makes at a time; throws the
 * signal's reason when aborted.
 */
export async function profile(backend: SteppingBackend, batch: Batch, { repeats = 5, limits = [], signal }: ProfileOptions = {}): Promise<Profile> {
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
    // What the limits drove out of the caches comes back.
    await backend.forward(batch, logits)
    const elapsedMs = await runByOp(backend, batch, { names, signal })
    const startMs = performance.now()
    await backend.forward(batch, logits)
    if (repeat === 0) continue
    wholeMs.push(performance.now() - startMs)
    for (const [name, ms] of elapsedMs) samplesMs.get(name)?.push(ms)
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

/** Milliseconds of each name's ops. */
async function runByOp(backend: SteppingBackend, batch: Batch, { names, signal }: { names: readonly string[]; signal: AbortSignal | undefined }): Promise<Map<string, number>> {
  const elapsedMs = new Map<string, number>()
  const pace = createPace()
  backend.begin(batch)
  for (let i = 0; i < names.length; i++) {
    const startMs = performance.now()
    backend.run(i, i + 1)
    elapsedMs.set(names[i], (elapsedMs.get(names[i]) ?? 0) + performance.now() - startMs)
    await pace.pause()
    signal?.throwIfAborted()
  }
  return elapsedMs
}

function nameOf(op: Op, formatOf: FormatOf): string {
  if (op.kind === 'linear') return `linear ${op.x.width} × ${op.out.width} ${formatOf(op.weight)}`
  return op.kind === 'expertLinear' ? `expertLinear ${op.nExperts} of ${op.isPerChoice ? op.x.width / op.topK : op.x.width} × ${op.out.width / op.topK} ${formatOf(op.weights[0])}` : op.kind
}

/** The upper one of two. */
function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]
}

/** A kernel that does one thing as often as it can. */
export interface LimitKernel {
  readonly limit: keyof Limits
  /** `read, 4 streams` */
  readonly name: string
  /** Done in one run. */
  readonly amount: number
  readonly run: () => void
}

/** Read in one run: at least more than the caches of a core hold, at most what no cache of a machine does. */
const READ_BYTES = { least: 96 * 2 ** 20, most: 512 * 2 ** 20 }
const STREAMS = [1, 2, 4]
/** Turns of the arithmetic loops in one run: some 0.1 ms. */
const TURNS = 2048
/** The bits of 0.5: sums that go to 1. */
const HALF = 0x3f000000
const PAGE_BYTES = 65536
const MEGABYTE = 2 ** 20
/** FUNCTION_EXP2 of assembly/abi.ts, which only the backend may import; a test compares them. */
export const EXP2_CODE = 3

export interface LimitOptions {
  readonly core: WebAssembly.Module
  readonly isShared: boolean
  /** Of what is held against the limits: caches shared by cores hold a part of it, so as much is read here. From 96 MB to 512 MB. */
  readonly workingBytes?: number | undefined
}

/** The kernels of the limits of one core; `core` is the module of a build with SIMD. */
export function createLimitKernels({ core, isShared, workingBytes = 0 }: LimitOptions): LimitKernel[] {
  const readBytes = Math.ceil(Math.min(READ_BYTES.most, Math.max(READ_BYTES.least, workingBytes)) / MEGABYTE) * MEGABYTE
  const memory = new WebAssembly.Memory({ initial: readBytes / PAGE_BYTES })
  // Pages that were never written are all one and the same.
  new Uint8Array(memory.buffer).fill(1)
  const call = new WebAssembly.Instance(new WebAssembly.Module(limitModule(readBytes)), { env: { memory } }).exports as Record<string, (a: number, b: number) => number>
  const coreMemory = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: isShared })
  const { evaluate } = new WebAssembly.Instance(core, { env: { memory: coreMemory } }).exports as { evaluate: (f: number, x: number, out: number, count: number) => void }
  // The second page is free: the core's static data takes a part of the first.
  const count = PAGE_BYTES / 8
  new Float32Array(coreMemory.buffer, PAGE_BYTES, count).fill(-1.7)
  return [
    { limit: 'flop', name: 'f32x4 mul, add', amount: TURNS * UNROLL * SUMS * 8, run: () => void call['multiplyAdd'](TURNS, HALF) },
    { limit: 'intOp', name: 'i32x4 dot_i16x8, add', amount: TURNS * UNROLL * SUMS * 16, run: () => void call['dot'](TURNS, 3) },
    ...STREAMS.map((n): LimitKernel => ({
      limit: 'byte', name: `read, ${n} ${n === 1 ? 'stream' : 'streams'}`, amount: readBytes, run: () => void call[`read${n}`](0, readBytes / n)
    })),
    { limit: 'exp2', name: 'exp2', amount: count, run: () => evaluate(EXP2_CODE, PAGE_BYTES, PAGE_BYTES + 4 * count, count) }
  ]
}

/** Amount in a second, over some 3 ms. */
function rateOf({ amount, run }: LimitKernel): number {
  const startMs = performance.now()
  let nRuns = 0
  for (; performance.now() - startMs < 3; nRuns++) run()
  return (1000 * nRuns * amount) / (performance.now() - startMs)
}

/** Of each limit the best kernel's rate; no bound where there is no kernel. */
export function bestOf(kernels: readonly LimitKernel[], rates: readonly number[]): Limits {
  const best = (limit: keyof Limits): number => Math.max(0, ...kernels.map((kernel, i) => (kernel.limit === limit ? rates[i] : 0))) || Infinity
  return { flop: best('flop'), intOp: best('intOp'), byte: best('byte'), exp2: best('exp2') }
}

// A small assembler: the kernels are (a: i32, b: i32) → i32 of one loop, whose result depends on all that it did.
/** Independent sums: with two operands they fill the 15 registers that V8 gives to vectors, and hide the latency of a product and a sum. */
const SUMS = 12
const UNROLL = 8
const [A, B, SUM] = [0, 1, 2]
const OPERAND = SUM + SUMS

const unsigned = (value: number): number[] => (value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)])
const signed = (value: number): number[] => (value >= -64 && value < 64 ? [value & 0x7f] : [(value & 0x7f) | 0x80, ...signed(value >> 7)])
const sized = (bytes: readonly number[]): number[] => [...unsigned(bytes.length), ...bytes]
const text = (value: string): number[] => sized([...new TextEncoder().encode(value)])
const section = (id: number, items: readonly (readonly number[])[]): number[] => [id, ...sized([...unsigned(items.length), ...items.flat()])]
const get = (local: number): number[] => [0x20, local]
const set = (local: number): number[] => [0x21, local]
const constant = (value: number): number[] => [0x41, ...signed(value)]
const simd = (code: number): number[] => [0xfd, ...unsigned(code)]
const [LOAD, I16_SPLAT, I32_SPLAT, F32_SPLAT, EXTRACT, XOR, I32_ADD, DOT, F32_ADD, F32_MUL] = [0x00, 0x10, 0x11, 0x13, 0x1b, 0x51, 0xae, 0xba, 0xe4, 0xe6]
const sums = (count: number, code: (sum: number) => number[]): number[] => Array.from({ length: count }, (_, i) => code(SUM + i)).flat()

function arithmetic(splat: readonly number[], step: (sum: number) => number[]): number[] {
  return [
    ...get(B), ...splat, ...set(OPERAND),
    ...sums(SUMS, (sum) => [...constant(sum), ...simd(I32_SPLAT), ...set(sum)]),
    ...loop([...Array.from({ length: UNROLL }, () => sums(SUMS, step)).flat(), ...get(A), ...constant(1), 0x6b, 0x22, A])
  ]
}

/** Addresses A to B in each of `nStreams` streams. */
function read(nStreams: number, readBytes: number): number[] {
  const lineLoads = 16 / nStreams
  const loads = Array.from({ length: 16 }, (_, i) => {
    const sum = SUM + (i % SUMS)
    const offset = Math.floor(i / lineLoads) * (readBytes / nStreams) + 16 * (i % lineLoads)
    return [...get(sum), ...get(A), ...simd(LOAD), 4, ...unsigned(offset), ...simd(XOR), ...set(sum)]
  })
  return loop([...loads.flat(), ...get(A), ...constant(16 * lineLoads), 0x6a, 0x22, A, ...get(B), 0x47])
}

/** Until the body leaves 0; then the sums in one number. */
function loop(body: readonly number[]): number[] {
  return [0x03, 0x40, ...body, 0x0d, 0, 0x0b, ...get(SUM), ...sums(SUMS - 1, (sum) => [...get(sum + 1), ...simd(XOR)]), ...simd(EXTRACT), 0]
}

function limitModule(readBytes: number): Uint8Array<ArrayBuffer> {
  const kernels = {
    multiplyAdd: arithmetic([0xbe, ...simd(F32_SPLAT)], (sum) => [...get(sum), ...get(OPERAND), ...simd(F32_MUL), ...get(OPERAND), ...simd(F32_ADD), ...set(sum)]),
    dot: arithmetic(simd(I16_SPLAT), (sum) => [...get(sum), ...get(sum), ...get(OPERAND), ...simd(DOT), ...simd(I32_ADD), ...set(sum)]),
    ...Object.fromEntries(STREAMS.map((n) => [`read${n}`, read(n, readBytes)]))
  }
  const bodies = Object.values(kernels).map((code) => sized([1, SUMS + 1, 0x7b, ...code, 0x0b]))
  return Uint8Array.from([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [[0x60, 2, 0x7f, 0x7f, 1, 0x7f]]),
    ...section(2, [[...text('env'), ...text('memory'), 2, 0, 1]]),
    ...section(3, bodies.map(() => [0])),
    ...section(7, Object.keys(kernels).map((name, i) => [...text(name), 0, i])),
    ...section(10, bodies)
  ])
}
