/** Steps by fused kernels: against the reference on whole models, and against the ops' own kernels on programs around the sizes of tiles. */
import { describe, expect, test } from 'vitest'
import type { Batch, Capacity } from '../../../src/backend/backend.ts'
import { factsOf } from '../../../src/backend/webgpu/device.ts'
import { entriesFor, findFusions } from '../../../src/backend/webgpu/fusions.ts'
import type { KernelContext } from '../../../src/backend/webgpu/kernel.ts'
import { createWebGpuBackend, type WebGpuBackend } from '../../../src/backend/webgpu/webgpu-backend.ts'
import { columns, ProgramBuilder } from '../../../src/program/builder.ts'
import { FORMATS, type WeightFormat } from '../../../src/program/formats.ts'
import { elementsOf, type LinearOp, type RowSpace, type View } from '../../../src/program/ops.ts'
import { relativeError } from '../../support/compare.ts'
import { checkFusedSteps, contextOf, HARDWARE } from '../../support/fused-steps.ts'
import { gpuDevice, GPUS, leastGpuDevice } from '../../support/gpu.ts'
import { createNumbers } from '../../support/numbers.ts'
import { segmentsOf } from '../../support/op-rig.ts'
import { randomWeights } from '../../support/weights.ts'

/** What each kind of device goes through: without subgroups a kernel takes SwiftShader long to compile, and differs in its sums alone. */
const KINDS = {
  'webgpu': { models: ['mamba', 'mamba2'], block: ['f32', 'f16', 'q8_0', 'q4_k'], scan: ['f32', 'bf16', 'q8_0', 'q4_k'] },
  'webgpu least': { models: ['falcon_mamba'], block: ['f32', 'q4_k'], scan: ['f32', 'q4_k'] }
} as const satisfies Readonly<Record<string, { readonly models: readonly string[], readonly block: readonly WeightFormat[], readonly scan: readonly WeightFormat[] }>>

describe.each(GPUS.flatMap(() => Object.keys(KINDS) as (keyof typeof KINDS)[]))('%s', { timeout: 180_000 }, (kind) => {
  const deviceOf = (): Promise<GPUDevice> => (kind === 'webgpu' ? gpuDevice() : leastGpuDevice())
  const cases = KINDS[kind]

  test.each(cases.models)('%s: prompts, then steps of one sequence and of two', async (name) => checkFusedSteps(name, await deviceOf()))

  test('steps in several submissions', async () => checkFusedSteps('mamba', await deviceOf(), 1))

  // Sums of hundreds of products of about 1: both forms are within the tolerance of the linear ops' tests of the reference.
  test.each<WeightFormat>(cases.block)('norm, linear and convolution, %s, and what is beside it', async (format) => {
    const errors = await compareForms(await deviceOf(), { format, build: (builder) => addBlock(builder, format), lengths: (format === 'f32' ? [1, 2, 5] : [1, 3]).map((count) => Array.from({ length: count }, () => 1)) })
    expect(Math.max(...errors)).toBeLessThanOrEqual(4e-6)
  })

  test('norms of groups, gates and activations, and a head', async () => {
    for (const build of [addGroups, addActivation, addHead]) {
      expect(Math.max(...await compareForms(await deviceOf(), { format: 'f32', build, lengths: [[1], [1, 1, 1], [2, 1]] }))).toBeLessThanOrEqual(4e-6)
    }
  })

  test.each<WeightFormat>(cases.scan)('dt and the scan, %s', async (format) => {
    const errors = await compareForms(await deviceOf(), { format, build: (builder) => addScan(builder, format), lengths: [[1], [1, 1, 1], [2, 1]] })
    expect(Math.max(...errors)).toBeLessThanOrEqual(4e-6)
  })
})

test('a view that a later op reads is not left out', async () => {
  const builder = new ProgramBuilder()
  const [x, normed, out] = ['x', 'normed', 'out'].map((name) => builder.buffer(name, 8))
  builder.add({ kind: 'rmsNorm', x, gate: null, weight: null, eps: 1e-5, groupWidth: 8, out: normed })
  builder.add(linearOf(builder, 'weight', normed, out))
  const capacity: Capacity = { maxRows: 8, maxLogitRows: 0, nSlots: 1, contextLength: 0 }
  const count = async (): Promise<number> => {
    const program = builder.build(null, 0)
    return GPUS.length === 0 ? 0 : findFusions(program, contextOf(program, capacity, await gpuDevice())).length
  }
  expect(await count()).toBe(GPUS.length)
  builder.add({ kind: 'scaledAdd', x: normed, factor: 1, accumulate: true, out })
  expect(await count()).toBe(0)
})

interface Form {
  readonly format: WeightFormat
  readonly build: (builder: ProgramBuilder) => void
  /** Rows of each segment, batch after batch. */
  readonly lengths: readonly (readonly number[])[]
}

/** Runs batches op by op and fused, from the same activations and states. Gives the largest errors of what is left in the views named `out…` and the states. */
async function compareForms(device: GPUDevice, { format, build, lengths }: Form): Promise<number[]> {
  const builder = new ProgramBuilder()
  build(builder)
  const program = builder.build(null, 0)
  const capacity: Capacity = { maxRows: 8, maxLogitRows: 8, nSlots: 8, contextLength: 0 }
  const formatOf = ({ name }: { readonly name: string }): WeightFormat => (name.startsWith('weight') ? format : 'f32')
  const backend = await createWebGpuBackend(program, capacity, { device, ownsDevice: false, reason: 'test', formatOf, facts: { ...factsOf(device), ...HARDWARE } })
  const numbers = createNumbers(5)
  for (const parameter of program.parameters) {
    const { data } = randomWeights(numbers, backend.formatOf(parameter), elementsOf(parameter.shape))
    await backend.write(parameter, data, 0)
  }
  const context: KernelContext = { ...contextOf(program, capacity, device), formatOf }
  const errors: number[] = []
  for (const segmentLengths of lengths) {
    const segments = segmentsOf(segmentLengths, 'all')
    const batch: Batch = { tokens: new Int32Array(segmentLengths.reduce((sum, length) => sum + length, 0)), segments }
    const results: Float32Array[] = []
    for (const isFused of [false, true]) {
      await fill(backend, batch)
      backend.begin(batch)
      await (isFused ? backend.runAll() : backend.run(0, program.ops.length))
      results.push(await resultsOf(backend, batch))
    }
    errors.push(relativeError(results[1], results[0]))
    const counts = { nTokens: batch.tokens.length, nLogitRows: batch.tokens.length, nSegments: segments.length, maxSegmentRows: Math.max(...segmentLengths), maxPositions: 0 }
    if (segmentLengths.length === 1) expect(entriesFor(program.ops.length, findFusions(program, context), counts).length, 'entries').toBeLessThan(program.ops.length)
  }
  await backend.dispose()
  return errors
}

async function fill(backend: WebGpuBackend, batch: Batch): Promise<void> {
  const { program } = backend
  const numbers = createNumbers(6)
  backend.begin(batch)
  for (const buffer of program.buffers) backend.writeView({ buffer, offset: 0, width: buffer.width }, numbers.floats(batch.tokens.length * buffer.width))
  for (const { slot } of batch.segments) await backend.writeState(slot, 0, numbers.floats(program.stateSize))
}

async function resultsOf(backend: WebGpuBackend, batch: Batch): Promise<Float32Array> {
  const { program } = backend
  const parts: number[] = []
  for (const buffer of program.buffers.filter(({ name }) => name.startsWith('out'))) parts.push(...(await backend.readView({ buffer, offset: 0, width: buffer.width })))
  for (const { slot } of batch.segments) parts.push(...(await backend.readState(slot, 0)))
  return Float32Array.from(parts)
}

function linearOf(builder: ProgramBuilder, name: string, x: View, out: View, more: Partial<LinearOp> = {}): LinearOp {
  return { kind: 'linear', x, out, weight: builder.parameter(name, [out.width, x.width]), bias: null, accumulate: false, ...more }
}

/** Two linear ops that read a norm, the second with a bias and a convolution of some of its columns. */
function addBlock(builder: ProgramBuilder, format: WeightFormat): void {
  const { blockElements } = FORMATS[format]
  const nIn = blockElements === 1 ? 1099 : blockElements === 32 ? 1056 : 1024
  const [first, convWidth, rest] = [37, 50, 13]
  const [x, normed, out] = [builder.buffer('x', nIn), builder.buffer('normed', nIn), builder.buffer('out', 70)]
  const [xz, convolved] = [builder.buffer('xz', first + convWidth + rest), builder.buffer('out conv', convWidth)]
  builder.add({ kind: 'rmsNorm', x, gate: null, weight: builder.parameter('norm', [nIn]), eps: 1e-5, groupWidth: nIn, out: normed })
  builder.add(linearOf(builder, 'weight', normed, out))
  builder.add(linearOf(builder, 'weight of xz', normed, xz, { bias: builder.parameter('bias', [xz.width]) }))
  builder.add({
    kind: 'conv1d', x: columns(xz, first, convWidth), out: convolved, activation: 'silu',
    weight: builder.parameter('taps', [convWidth, 1, 4]), bias: builder.parameter('conv bias', [convWidth]), state: builder.state('conv', [convWidth, 3])
  })
  builder.add({ kind: 'scaledAdd', x: columns(xz, 0, first), factor: 2, accumulate: true, out: columns(out, 0, first) })
}

/** Mamba-2's gated norm, in place, of groups that no four divide; the sum is added to what is there. */
function addGroups(builder: ProgramBuilder): void {
  const [y, z, out] = [builder.buffer('y', 6 * 26), builder.buffer('z', 6 * 26), builder.buffer('out', 33)]
  builder.add({ kind: 'rmsNorm', x: y, gate: z, weight: builder.parameter('norm', [y.width]), eps: 1e-5, groupWidth: 26, out: y })
  builder.add(linearOf(builder, 'weight', y, out, { accumulate: true }))
}

function addActivation(builder: ProgramBuilder): void {
  const [a, b, out] = [builder.buffer('a', 70), builder.buffer('b', 70), builder.buffer('out', 20)]
  builder.add({ kind: 'activation', x: a, by: b, function: 'silu', out: a })
  builder.add(linearOf(builder, 'weight', a, out))
}

function addHead(builder: ProgramBuilder): void {
  const x = builder.buffer('x', 44)
  const [last, normed, out] = ([['last', 44], ['normed', 44], ['out', 90]] as const).map(([name, width]) => builder.buffer(name, width, 'logit' satisfies RowSpace))
  builder.add({ kind: 'gatherRows', x, out: last })
  builder.add({ kind: 'rmsNorm', x: last, gate: null, weight: builder.parameter('norm', [44]), eps: 1e-5, groupWidth: 44, out: normed })
  builder.add(linearOf(builder, 'weight', normed, out))
}

/** As in falcon-mamba: what dt, B and C are made of is normed in place. */
function addScan(builder: ProgramBuilder, format: WeightFormat): void {
  const rank = FORMATS[format].blockElements === 1 ? 23 : FORMATS[format].blockElements
  const [dInner, dState] = [38, 16]
  const dtBC = builder.buffer('dtBC', rank + 2 * dState)
  const [lowRank, B, C] = [columns(dtBC, 0, rank), columns(dtBC, rank, dState), columns(dtBC, rank + dState, dState)]
  const [x, z, dt, out] = ['x', 'z', 'dt', 'out'].map((name) => builder.buffer(name, dInner))
  for (const part of [lowRank, B, C]) builder.add({ kind: 'rmsNorm', x: part, gate: null, weight: null, eps: 1e-5, groupWidth: part.width, out: part })
  builder.add(linearOf(builder, 'weight', lowRank, dt))
  builder.add({
    kind: 'selectiveScan', x, dt, z, B, C, out, dState, dtSoftplus: true, state: builder.state('scan', [dInner, dState]),
    A: builder.parameter('A', [dInner, dState], { transform: 'negExp' }), D: builder.parameter('D', [dInner]), dtBias: builder.parameter('dt bias', [dInner])
  })
}
