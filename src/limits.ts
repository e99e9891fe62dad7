/** What a core can do at most, measured by kernels made for it: the bounds that profiles and benchmarks compare with. */

import { coreImports } from './core-imports.ts'
import { hostHasRelaxedSimd } from './host.ts'
import { A, arithmetic, assemble, B, constant, dotBytes, dotHalves, get, type Kernel, load, loop, set, simd, SUM, XOR } from './wasm-assembler.ts'

/** What one core does at most in a second. */
export interface Limits {
  /** f32 operations, each product and each sum counted: f32x4.mul and f32x4.add on independent sums. */
  readonly flop: number
  /**
   * Operations on integers, each product and each sum counted: i32x4.dot_i16x8_s and i32x4.add, or relaxed SIMD's dot products of bytes, two for a product, since
   * activations are two bytes.
   */
  readonly intOp: number
  /** Bytes read from memory that no cache holds. */
  readonly byte: number
  /** Values of the core's exp2, the least that a scan does for each channel and state. */
  readonly exp2: number
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
  const { evaluate } = new WebAssembly.Instance(core, coreImports(coreMemory)).exports as { evaluate: (f: number, x: number, out: number, count: number, scratch: number) => void }
  // The second page is free: the core's static data takes a part of the first.
  const count = PAGE_BYTES / 16
  new Float32Array(coreMemory.buffer, PAGE_BYTES, count).fill(-1.7)
  return [
    { limit: 'flop', name: 'f32x4 mul, add', amount: TURNS * UNROLL * SUMS * 8, run: () => void call['multiplyAdd'](TURNS, HALF) },
    { limit: 'intOp', name: 'i32x4 dot_i16x8, add', amount: TURNS * UNROLL * SUMS * 16, run: () => void call['dot'](TURNS, 3) },
    ...(hostHasRelaxedSimd() ? [{ limit: 'intOp', name: 'i32x4 relaxed_dot_i8x16, twice', amount: TURNS * UNROLL * SUMS * 16, run: () => void call['dotBytes'](TURNS, 3) } as const] : []),
    ...STREAMS.map((n): LimitKernel => ({
      limit: 'byte', name: `read, ${n} ${n === 1 ? 'stream' : 'streams'}`, amount: readBytes, run: () => void call[`read${n}`](0, readBytes / n)
    })),
    { limit: 'exp2', name: 'exp2', amount: count, run: () => evaluate(EXP2_CODE, PAGE_BYTES, PAGE_BYTES + 4 * count, count, PAGE_BYTES + 8 * count) }
  ]
}

/** Amount in a second, over some 3 ms. */
export function rateOf({ amount, run }: LimitKernel): number {
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

/** Independent sums: with two operands they fill the 15 registers that V8 gives to vectors, and hide the latency of a product and a sum. */
const SUMS = 12
const UNROLL = 8
const [F32_SPLAT, F32_ADD, F32_MUL] = [0x13, 0xe4, 0xe6]

/** Addresses A to B in each of `nStreams` streams. */
function read(nStreams: number, readBytes: number): Kernel {
  const lineLoads = 16 / nStreams
  const loads = Array.from({ length: 16 }, (_, i) => {
    const sum = SUM + (i % SUMS)
    const offset = Math.floor(i / lineLoads) * (readBytes / nStreams) + 16 * (i % lineLoads)
    return [...get(sum), ...load(A, offset), ...simd(XOR), ...set(sum)]
  })
  return loop(SUMS, [...loads.flat(), ...get(A), ...constant(16 * lineLoads), 0x6a, 0x22, A, ...get(B), 0x47])
}

function limitModule(readBytes: number): Uint8Array<ArrayBuffer> {
  const size = { nSums: SUMS, unroll: UNROLL }
  const kernels = {
    multiplyAdd: arithmetic({
      ...size, splat: [0xbe, ...simd(F32_SPLAT)], step: (sum, operand) => [...get(sum), ...get(operand), ...simd(F32_MUL), ...get(operand), ...simd(F32_ADD), ...set(sum)]
    }),
    dot: dotHalves(size),
    ...(hostHasRelaxedSimd() && { dotBytes: dotBytes(size) }),
    ...Object.fromEntries(STREAMS.map((n) => [`read${n}`, read(n, readBytes)]))
  }
  return assemble(kernels, { hasMemory: true })
}
