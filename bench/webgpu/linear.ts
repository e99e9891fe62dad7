/**
 * The kernels of linear ops on a GPU, shape by shape: microseconds, bytes and multiplications of a second. Each is dispatched over and over in one
 * submission, with other weights each time (more than any cache has), and waits for the one before, as in a model.
 *
 *   node --conditions=source bench/webgpu/linear.ts [--formats f32,f16] [--plans] [--tiles] [--fused] [--shapes 2560x10240,4096x160] [--teams 16,32] [--threads 128,256] [--outputs 1,2,4] [--rows 16,32] [--floats] [--seconds 50] [--small]
 *
 * --plans tries plans other than those of kernels/plans.ts (with --tiles those for so many --rows alone, with --teams, --threads and --outputs those of teams of so many threads, in workgroups of so many, with so many outputs each), --fused each with a norm before and a convolution after it
 * (of zeros, so that the outputs tell nothing); --floats is without products of bytes; --small is a smoke run. The last column is how far the outputs are from those of a kernel of the other kind, of their largest.
 */

import { parseArgs } from 'node:util'
import { BUFFER_USAGE, adapterName, factsOf, MAP_READ, openDevice } from '../../src/backend/webgpu/device.ts'
import { probeHalves } from '../../src/backend/webgpu/halves.ts'
import { type BatchCounts, type Kernel, type KernelContext, prelude } from '../../src/backend/webgpu/kernel.ts'
import type { TilePlan } from '../../src/backend/webgpu/kernels/linear-tiles.ts'
import type { VectorPlan } from '../../src/backend/webgpu/kernels/linear-vector.ts'
import { type Company, linear, linearTiles, linearVector } from '../../src/backend/webgpu/kernels/linear.ts'
import { fittingPlan, vectorPlan } from '../../src/backend/webgpu/kernels/plans.ts'
import type { Dispatch } from '../../src/backend/webgpu/recording.ts'
import { encodeDispatches } from '../../src/backend/webgpu/steps.ts'
import { rowForm, UNIT_BYTES } from '../../src/backend/webgpu/weights.ts'
import { nodeGpu } from '../../src/platform/node-gpu.ts'
import { columns, ProgramBuilder } from '../../src/program/builder.ts'
import type { WeightFormat } from '../../src/program/formats.ts'
import type { LinearOp } from '../../src/program/ops.ts'
import { createRandom } from '../../src/random.ts'
import { createGpuClock, medianMs } from './gpu-clock.ts'
import { measureGpuLimits } from './gpu-limits.ts'

const { values: options } = parseArgs({ options: {
  formats: { type: 'string', default: 'f32,f16,q8_0,q4_0,q4_k' }, plans: { type: 'boolean', default: false }, tiles: { type: 'boolean', default: false }, fused: { type: 'boolean', default: false }, small: { type: 'boolean', default: false },
  seconds: { type: 'string', default: '50' }, shapes: { type: 'string' }, teams: { type: 'string', default: '32' }, threads: { type: 'string', default: '128,256' }, outputs: { type: 'string', default: '1,2,4' }, rows: { type: 'string', default: '16,32,64,512' }, floats: { type: 'boolean', default: false }
} })
const formats = options.formats.split(',') as WeightFormat[]
const endMs = performance.now() + 1000 * Number(options.seconds)

const numbersOf = (list: string): number[] => list.split(',').map(Number)
const GIVEN_SHAPES = options.shapes?.split(',').map((shape) => shape.split('x').map(Number))
/** mamba-1.4b's and mamba-130m's: in_proj, out_proj, x_proj, dt_proj, the head. */
const DECODE_SHAPES = GIVEN_SHAPES ?? (options.small ? [[512, 200]] : [[2048, 8192], [4096, 2048], [4096, 160], [128, 4096], [2048, 50_280], [768, 3072], [1536, 768], [1536, 80]])
const PROMPT_SHAPES = GIVEN_SHAPES ?? (options.small ? [[512, 200]] : [[2048, 8192], [4096, 2048], [4096, 160], [768, 3072]])
const PLAN_SHAPES = GIVEN_SHAPES ?? (options.fused ? [[2560, 10_240], [2048, 8192], [768, 3072]] : [[5120, 2560], [4096, 2048], [1536, 768], [2560, 50_280]])
const BATCHES = options.small ? [1, 4] : [1, 4, 8]
const PROMPTS = options.small ? [20] : [16, 32, 128, 512, 2048]
const WEIGHT_BYTES = options.small ? 2 ** 24 : 2 ** 30
const MAX_ROWS = 2048

const device = await openDevice(await nodeGpu())
device.addEventListener('uncapturederror', ({ error }) => console.log(`ERROR ${error.message}`))
await probeHalves(device)
const facts = { ...factsOf(device), ...(options.floats && { dotsBytes: false }) }
const weightBytes = Math.min(WEIGHT_BYTES, facts.maxBindingBytes)
const capacity = { maxRows: MAX_ROWS, maxLogitRows: 1, nSlots: 1, contextLength: 0 }
const storage = BUFFER_USAGE.storage | BUFFER_USAGE.copyTarget | BUFFER_USAGE.copySource
const X_FLOATS = MAX_ROWS * 4096
const activations = device.createBuffer({ size: 4 * (X_FLOATS + MAX_ROWS * (options.small ? 512 : 8192)), usage: storage })
const batch = device.createBuffer({ size: 4 * (8 + 2 * MAX_ROWS + 1), usage: storage })
const weights = device.createBuffer({ size: weightBytes, usage: storage })
/** Of small ones no more: they are 500 MB from 0.5 MB on. */
const MOST_MATRICES = 1024
/** Of a norm and a convolution: zeros. */
const others = Array.from({ length: 4 }, () => device.createBuffer({ size: 2 ** 20, usage: storage }))
fillBuffers()

function fillBuffers(): void {
  const random = createRandom(1)
  device.queue.writeBuffer(activations, 0, Float32Array.from({ length: X_FLOATS }, () => 2 * random.next() - 1))
  // Numbers of a harmless size in every format: halves of ±[1, 2).
  const words = Uint32Array.from({ length: 2 ** 20 }, () => (random.next() * 2 ** 32) & 0x83ff83ff | 0x3c003c00)
  for (let at = 0; at < weightBytes; at += words.byteLength) device.queue.writeBuffer(weights, at, words, 0, Math.min(words.length, (weightBytes - at) / 4))
}

interface Case {
  readonly format: WeightFormat
  readonly nIn: number
  readonly nOut: number
  readonly nRows: number
}

function opOf({ nIn, nOut }: Case): LinearOp {
  const builder = new ProgramBuilder()
  return { kind: 'linear', accumulate: false, bias: null, x: builder.buffer('x', nIn), weight: builder.parameter('weight', [nOut, nIn]), out: builder.buffer('out', nOut) }
}

/** As an in_proj has it: a norm before, a convolution of half of the outputs after. */
function companyOf({ nIn, nOut }: Case): Company {
  const builder = new ProgramBuilder()
  const x = builder.buffer('x', nIn)
  const { out } = opOf({ nIn, nOut, format: 'f32', nRows: 1 })
  const width = Math.floor(nOut / 2)
  return {
    inputs: { kind: 'rmsNorm', x, gate: null, weight: builder.parameter('norm', [nIn]), eps: 1e-5, groupWidth: nIn, out: x },
    conv: {
      kind: 'conv1d', x: columns(out, 0, width), out: columns(out, 0, width), activation: 'silu', weight: builder.parameter('taps', [width, 1, 4]), bias: builder.parameter('bias', [width]),
      state: builder.state('conv', [width, 3])
    }
  }
}

function contextOf({ format, nIn, nOut }: Case): KernelContext {
  const view: KernelContext['view'] = ({ buffer }) => (buffer.name === 'x' ? { offset: 0, stride: nIn } : { offset: X_FLOATS, stride: nOut })
  return { device: facts, capacity, ssd: 'recurrent', view, formatOf: () => format }
}

function countsOf(nRows: number): BatchCounts {
  return { nTokens: nRows, nLogitRows: 0, nSegments: 1, maxSegmentRows: nRows, maxPositions: nRows }
}

interface Result {
  readonly seconds: number
  readonly outputs: Float32Array
}

const WARM_UP_MS = options.small ? 0 : options.plans ? 30 : 100
const SAMPLE_MS = options.small ? 1 : 10
const clock = createGpuClock(device)

async function run(kernel: Kernel, one: Case, isTimed: boolean): Promise<Result> {
  const code = [...(kernel.enables ?? []).map((name) => `enable ${name};\n`), prelude(capacity), kernel.code].join('')
  const bindings = [...code.matchAll(/@binding\((\d+)\) var<storage, (\w+)>/g)].map(([, binding, access]) => ({ binding: Number(binding), type: access === 'read' ? 'read-only-storage' : 'storage' } as const))
  const layout = device.createBindGroupLayout({ entries: bindings.map(({ binding, type }) => ({ binding, visibility: 0x4, buffer: { type } })) })
  const pipeline = await device.createComputePipelineAsync({ layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }), compute: { module: device.createShaderModule({ code }), entryPoint: 'main' } })
  const matrixBytes = Math.ceil((one.nOut * rowForm(one.format, one.nIn).rowUnits * UNIT_BYTES) / 256) * 256
  const nMatrices = Math.max(1, Math.min(MOST_MATRICES, Math.floor(weightBytes / matrixBytes)))
  const groups = Array.from({ length: nMatrices }, (_, i) => device.createBindGroup({
    layout,
    entries: [{ buffer: activations }, { buffer: batch }, { buffer: weights, offset: i * matrixBytes, size: matrixBytes }, ...others.map((buffer) => ({ buffer }))]
      .slice(0, bindings.length).map((resource, binding) => ({ binding, resource }))
  }))
  const workgroups = kernel.workgroups(countsOf(one.nRows))
  if (workgroups === null) throw new Error('a kernel that is not for such a batch')
  device.queue.writeBuffer(batch, 0, Uint32Array.of(one.nRows, 0, 1, 0))
  const dispatches = (count: number): Dispatch[] => Array.from({ length: count }, (_, i) => ({ pipeline, bindGroup: groups[i % groups.length], workgroups }))
  const encoder = device.createCommandEncoder()
  const pass = encoder.beginComputePass()
  encodeDispatches(pass, dispatches(1))
  pass.end()
  device.queue.submit([encoder.finish()])
  const outputs = await readOutputs(one)
  if (!isTimed) return { seconds: Number.NaN, outputs }
  const few = dispatches(options.small ? 1 : 100)
  const once = (await clock(few, 1)) / few.length
  const many = dispatches(Math.max(1, Math.min(4000, Math.round(SAMPLE_MS / Math.max(once, 1e-3)))))
  return { seconds: (await medianMs(() => clock(many, 1), { warmUpMs: WARM_UP_MS, samples: 5 })) / many.length / 1000, outputs }
}

async function readOutputs({ nOut, nRows }: Case): Promise<Float32Array> {
  const size = 4 * Math.min(nRows * nOut, 2 ** 16)
  const target = device.createBuffer({ size, usage: BUFFER_USAGE.mapRead | BUFFER_USAGE.copyTarget })
  const encoder = device.createCommandEncoder()
  encoder.copyBufferToBuffer(activations, 4 * X_FLOATS, target, 0, size)
  device.queue.submit([encoder.finish()])
  await target.mapAsync(MAP_READ)
  const values = new Float32Array(target.getMappedRange().slice(0))
  target.destroy()
  return values
}

function differenceOf(a: Float32Array, b: Float32Array): number {
  let most = 0
  let largest = 0
  a.forEach((value, i) => {
    largest = Math.max(largest, Math.abs(value))
    const difference = Math.abs(value - b[i])
    if (!(difference <= most)) most = difference
  })
  return most / largest
}

const everything = { least: 1, most: Number.POSITIVE_INFINITY }
const partOf = ({ nOut }: Case) => ({ firstRow: 0, nRows: nOut, index: null })
const vector = (one: Case, plan: VectorPlan): Kernel => linearVector(opOf(one), contextOf(one), { part: partOf(one), plan, range: everything }, options.fused ? companyOf(one) : {})
const tiles = (one: Case, plan: TilePlan): Kernel => linearTiles(opOf(one), contextOf(one), { part: partOf(one), plan: fittingPlan(plan, one, facts), range: everything })

/** Of the other kind, for the outputs alone. */
function otherKernel(one: Case): Kernel {
  return one.nRows <= 8
    ? tiles(one, { rowThreads: 8, outputThreads: 16, rows: 4, outputs: 4, quads: 4, splits: 1 })
    : vector(one, { rows: 4, outputs: 1, teamThreads: 32, teams: 8, unroll: 1, ahead: false })
}

const expected = new Map<string, Float32Array>()

async function report(kernel: Kernel, one: Case, name: string): Promise<number> {
  const { format, nIn, nOut, nRows } = one
  const label = `${format.padEnd(5)} ${String(nIn).padStart(5)} → ${String(nOut).padEnd(6)} rows ${String(nRows).padEnd(5)}`
  if (performance.now() > endMs) return Number.NaN
  try {
    const key = label
    const want = expected.get(key) ?? (await run(otherKernel(one), one, false)).outputs
    expected.set(key, want)
    const { seconds, outputs } = await run(kernel, one, true)
    const bytes = nOut * rowForm(format, nIn).rowUnits * UNIT_BYTES
    console.log(`${label} ${(1e6 * seconds).toFixed(1).padStart(8)} µs ${(bytes / seconds / 1e9).toFixed(0).padStart(6)} GB/s ${((2 * nIn * nOut * nRows) / seconds / 1e12).toFixed(2).padStart(7)} TFLOP/s  ${name.padEnd(34)} off ${differenceOf(outputs, want).toExponential(1)}`)
    return seconds
  } catch (error) {
    console.log(`${label} ${name}: ${error instanceof Error ? error.message.split('\n').slice(0, 3).join(' ') : String(error)}`)
    return Number.NaN
  }
}

/** The kernel that the backend would take. */
async function reportChosen(one: Case): Promise<void> {
  for (const kernel of linear(opOf(one), contextOf(one))) {
    if (kernel.workgroups(countsOf(one.nRows)) !== null) await report(kernel, one, kernel.label.replace(/^linear \S+ \d+ → \d+ /, ''))
  }
}

async function reportPlans(): Promise<void> {
  for (const format of options.tiles ? [] : formats) {
    for (const [nIn, nOut] of options.small ? DECODE_SHAPES : PLAN_SHAPES) {
      for (const plan of vectorPlans(format, nIn)) {
        await report(vector({ format, nIn, nOut, nRows: 1 }, plan), { format, nIn, nOut, nRows: 1 }, `${plan.teams} teams of ${plan.teamThreads} × ${plan.outputs}, ${plan.unroll} units${plan.ahead ? ' ahead' : ''}`)
      }
    }
  }
  // Of tiles no form is fused.
  for (const format of options.fused ? [] : formats.slice(0, 3)) {
    for (const [nIn, nOut, nRows] of options.small ? [[512, 200, 20]] : numbersOf(options.rows).flatMap((nRows) => PLAN_SHAPES.map(([nIn, nOut]) => [nIn, nOut, nRows]))) {
      for (const rows of nRows > MOST_VECTOR_ROWS ? [] : [4, 8, 16]) {
        const one = { format, nIn, nOut, nRows }
        const plan = vectorPlan(one, rows, facts)
        await report(vector(one, plan), one, `vector of ${rows} rows, team ${plan.teamThreads} × ${plan.outputs}`)
      }
      for (const [rowThreads, outputThreads, rows, outputs, quads, splits] of nRows > MOST_VECTOR_ROWS ? TILE_PLANS : BATCH_PLANS) {
        await report(tiles({ format, nIn, nOut, nRows }, { rowThreads, outputThreads, rows, outputs, quads, splits }), { format, nIn, nOut, nRows },
          `${rowThreads * rows} × ${outputThreads * outputs} by ${rows} × ${outputs}, ${4 * quads} inputs, ${splits} groups`)
      }
    }
  }
}

/** More rows take longer by the kernels of few rows. */
const MOST_VECTOR_ROWS = 64
/** Teams whose threads have as many units each where the row allows it. */
function vectorPlans(format: WeightFormat, nIn: number): VectorPlan[] {
  const plansOf = (teamThreads: number, threads: number): VectorPlan[] => {
    const steps = Math.ceil(rowForm(format, nIn).nUnits / teamThreads)
    const unrolls = Array.from({ length: Math.min(steps, MOST_UNROLLED) }, (_, i) => i + 1).filter((unrolled) => steps % unrolled === 0)
    return numbersOf(options.outputs).flatMap((outputs) => unrolls.filter((unrolled) => outputs * unrolled <= MOST_LOADS).flatMap((unrolled) =>
      [false, true].filter((ahead) => !ahead || (unrolled < steps && outputs * unrolled <= MOST_LOADS / 2)).map((ahead) => (
        { rows: 1, teamThreads, outputs, teams: threads / teamThreads, unroll: unrolled, ahead }
      ))))
  }
  return numbersOf(options.teams).flatMap((teamThreads) => numbersOf(options.threads).filter((threads) => threads >= teamThreads).flatMap((threads) => plansOf(teamThreads, threads)))
}

const MOST_UNROLLED = 10
/** Of a thread at a time. */
const MOST_LOADS = 20
const TILE_PLANS: readonly (readonly number[])[] = [
  [16, 16, 4, 4, 4, 1], [16, 16, 8, 8, 2, 1], [16, 16, 8, 8, 4, 1], [8, 16, 8, 8, 4, 1], [8, 16, 8, 8, 2, 1], [8, 8, 8, 8, 4, 1], [16, 16, 8, 4, 4, 1], [8, 8, 8, 8, 8, 2], [8, 16, 8, 4, 4, 1]
]
const BATCH_PLANS: readonly (readonly number[])[] = [
  [4, 8, 8, 4, 16, 8], [4, 16, 8, 2, 16, 4], [4, 4, 8, 4, 16, 16], [4, 4, 8, 4, 32, 16], [4, 8, 8, 2, 16, 8], [4, 8, 8, 4, 32, 8], [2, 8, 8, 4, 16, 16], [2, 8, 8, 4, 32, 16], [4, 8, 4, 4, 16, 8], [2, 16, 8, 2, 16, 8]
]

console.log(`${adapterName(device)}, ${facts.subgroup === null ? 'no subgroups' : `subgroups of ${facts.subgroup.min} to ${facts.subgroup.max}`}, ${facts.maxWorkgroupStorageBytes} bytes of workgroup memory`)
const limits = options.small ? { bandwidth: 0, submission: 0, dispatch: 0 } : await measureGpuLimits(device, weightBytes)
console.log(`read at most ${(limits.bandwidth / 1e9).toFixed(0)} GB/s, an empty submission ${(1e6 * limits.submission).toFixed(0)} µs, a dispatch ${(1e6 * limits.dispatch).toFixed(2)} µs`)
if (options.plans) await reportPlans()
else {
  for (const format of formats) for (const [nIn, nOut] of DECODE_SHAPES) for (const nRows of BATCHES) await reportChosen({ format, nIn, nOut, nRows })
  for (const format of formats.slice(0, 3)) for (const [nIn, nOut] of PROMPT_SHAPES) for (const nRows of PROMPTS) await reportChosen({ format, nIn, nOut, nRows })
}
if (performance.now() > endMs) console.log('the time was up')
process.exit(0)
