/** The selective scan by itself: the paper's primitive on Float32Arrays, run by the same kernels as the models. */

import type { SteppingBackend } from './backend/backend.ts'
import { createPace } from './pace.ts'
import { describe, messageOf } from './errors.ts'
import { ProgramBuilder } from './program/builder.ts'
import { elementsOf, type Parameter, type Program, type ScanInput, type View } from './program/ops.ts'
import { hostHasSimd } from './host.ts'
import { platform } from '#platform'

/** Row-major values of a shape. */
export interface Tensor {
  readonly data: Float32Array
  readonly shape: readonly number[]
}

/** Sizes: batch Z, length L, channels D, states N, groups G. */
export interface SelectiveScanInput {
  /** (Z, L, D), or (Z, D, L) in layout 'bdl'; dt and z alike. */
  readonly x: Tensor
  readonly dt: Tensor
  /** (D, N) */
  readonly A: Tensor
  /** (Z, L, N), (Z, L, G, N), or (D, N) for the same at every token; in 'bdl' (Z, N, L), (Z, G, N, L) or (D, N). */
  readonly B: Tensor
  readonly C: Tensor
  /** (D) */
  readonly D?: Tensor | undefined
  readonly z?: Tensor | undefined
  /** (D), added to dt. */
  readonly dtBias?: Tensor | undefined
  /** dt becomes softplus(dt + dtBias). Default false. */
  readonly dtSoftplus?: boolean | undefined
  /** (Z, D, N); zero by default. */
  readonly initialState?: Tensor | undefined
  /** 'bld' (the default) or the reference's 'bdl'. */
  readonly layout?: 'bld' | 'bdl' | undefined
  /** Build of the compute core, or 'reference' for the float64 interpreter. Default 'auto': SIMD where the host has it. */
  readonly backend?: 'auto' | 'reference' | 'scalar' | 'simd' | undefined
  readonly signal?: AbortSignal | undefined
}

export interface SelectiveScanOutput {
  /** In the layout of x. */
  readonly y: Tensor
  /** (Z, D, N) */
  readonly lastState: Tensor
}

/** Rows at a time. */
const CHUNK_ROWS = 256

/**
 * dt = softplus(dt + dtBias); h = exp(dt · A) · h + dt · B · x; y = (C · h + D · x) · silu(z).
 * Follows `selective_scan_ref` of state-spaces/mamba, in f32. Splitting the tokens and carrying lastState over gives the same bits.
 * RangeError for a shape that does not fit, TypeError for what is no tensor.
 */
export async function selectiveScan(input: SelectiveScanInput): Promise<SelectiveScanOutput> {
  const { x, initialState, layout = 'bld', backend: kind = 'auto', signal } = input
  const isTransposed = checkOption('layout', layout, ['bld', 'bdl']) === 'bdl'
  checkOption('backend', kind, ['auto', 'reference', 'scalar', 'simd'])
  const { nBatch, length, dInner, dState } = checkShapes(input, isTransposed)
  const scan = await openScan(input, { dInner, dState, maxRows: Math.min(CHUNK_ROWS, Math.max(1, length)), kind })
  const { backend, out } = scan
  for (const parameter of backend.program.parameters) backend.write(parameter, tensorOf(input, parameter.name).data, 0)

  const y = new Float32Array(x.data.length)
  const lastState = new Float32Array(nBatch * dInner * dState)
  const stateSize = dInner * dState
  const pace = createPace()
  for (let b = 0; b < nBatch; b++) {
    if (initialState) await backend.writeState(0, 0, initialState.data.subarray(b * stateSize, (b + 1) * stateSize))
    else await backend.clearState(0)
    for (let first = 0; first < length; first += CHUNK_ROWS) {
      signal?.throwIfAborted()
      const nRows = Math.min(CHUNK_ROWS, length - first)
      const place = { b, first, nRows, length }
      backend.begin({ tokens: new Int32Array(nRows), segments: [{ slot: 0, position: first, firstRow: 0, nRows, logits: 'none' }] })
      for (const view of scan.inputs) backend.writeView(view, (isTransposed ? readTransposed : rowsOf)(tensorOf(input, view.buffer.name).data, view.width, place))
      backend.run(0, 1)
      if (isTransposed) writeTransposed(y, backend.readView(out), dInner, place)
      else backend.readView(out, rowsOf(y, dInner, place))
      await pace.pause()
    }
    lastState.set(await backend.readState(0, length), b * stateSize)
  }
  await closeScan(scan)
  return { y: { data: y, shape: x.shape }, lastState: { data: lastState, shape: [nBatch, dInner, dState] } }
}

/** A backend for inputs of some shapes. */
interface Scan {
  readonly key: string
  readonly backend: SteppingBackend
  /** What changes with the tokens, named as in the input. */
  readonly inputs: readonly View[]
  readonly out: View
}

/** The last small one: a call of the same shapes takes it over, and costs no memory and no instance of its own. */
let idle: Scan | null = null
const MAX_IDLE_BYTES = 2 ** 22

interface ScanShape {
  readonly dInner: number
  readonly dState: number
  readonly maxRows: number
  readonly kind: NonNullable<SelectiveScanInput['backend']>
}

async function openScan(input: SelectiveScanInput, shape: ScanShape): Promise<Scan> {
  const { dtSoftplus = false, layout } = input
  const key = JSON.stringify([shape.kind, layout, dtSoftplus, ...TENSORS.map((name) => input[name]?.shape ?? null)])
  if (idle?.key === key) {
    const scan = idle
    idle = null
    return scan
  }
  const { program, inputs, out } = scanProgram(input, shape)
  return { key, backend: await createScanBackend(program, shape.maxRows, shape.kind), inputs, out }
}

async function closeScan(scan: Scan): Promise<void> {
  const { memoryBytes } = scan.backend.info
  if (memoryBytes.total > MAX_IDLE_BYTES) return scan.backend.dispose()
  const replaced = idle
  idle = scan
  await replaced?.backend.dispose()
}

/** The program's parameters and buffers have the names of the input. */
const TENSORS = ['x', 'dt', 'A', 'B', 'C', 'D', 'z', 'dtBias'] as const

function tensorOf(input: SelectiveScanInput, name: string): Tensor {
  const tensor = TENSORS.filter((known) => known === name).map((known) => input[known])[0]
  if (tensor === undefined) throw new TypeError(`${name}: not in the input`)
  return tensor
}

function scanProgram(input: SelectiveScanInput, { dInner, dState }: ScanShape) {
  const builder = new ProgramBuilder()
  const inputs: View[] = []
  const parameter = (name: string, tensor: Tensor): Parameter => builder.parameter(name, tensor.shape)
  const perToken = (name: string, width: number): View => {
    const view = builder.buffer(name, width)
    inputs.push(view)
    return view
  }
  const scanInput = (name: string, tensor: Tensor): ScanInput =>
    tensor.shape.length === 2 ? parameter(name, tensor) : perToken(name, groupsOf(tensor, input.layout) * dState)
  const out = builder.buffer('y', dInner)
  builder.add({
    kind: 'selectiveScan', out, dState, dtSoftplus: input.dtSoftplus ?? false,
    x: perToken('x', dInner),
    dt: perToken('dt', dInner),
    z: input.z ? perToken('z', dInner) : null,
    A: parameter('A', input.A),
    B: scanInput('B', input.B),
    C: scanInput('C', input.C),
    D: input.D ? parameter('D', input.D) : null,
    dtBias: input.dtBias ? parameter('dtBias', input.dtBias) : null,
    state: builder.state('ssm', [dInner, dState])
  })
  return { program: builder.build(null, 0), inputs, out }
}

async function createScanBackend(program: Program, maxRows: number, kind: ScanShape['kind']): Promise<SteppingBackend> {
  const capacity = { maxRows, maxLogitRows: 0, nSlots: 1, contextLength: 0 }
  if (kind === 'reference') {
    const { createReferenceBackend } = await import('./backend/reference/reference-backend.ts')
    return createReferenceBackend(program, capacity, 'asked for')
  }
  const build = kind === 'auto' ? (hostHasSimd() ? 'simd' : 'scalar') : kind
  const [{ createWasmBackend }, module] = await Promise.all([import('./backend/wasm/wasm-backend.ts'), platform.wasmModule(build)])
  return createWasmBackend(program, capacity, { module, build, nThreads: 1, reason: 'asked for' })
}

interface Place {
  readonly b: number
  readonly first: number
  readonly nRows: number
  readonly length: number
}

/** Tokens [first, first + nRows) of sequence b of (Z, L, width). */
function rowsOf(data: Float32Array, width: number, { b, first, nRows, length }: Place): Float32Array {
  const start = (b * length + first) * width
  return data.subarray(start, start + nRows * width)
}

/** Transposing takes so many channels at once: their rows in (width, L) and a line of (nRows, width) stay in L1. */
const TILE_CHANNELS = 16

/** The same of (Z, width, L), as (nRows, width). */
function readTransposed(data: Float32Array, width: number, { b, first, nRows, length }: Place): Float32Array {
  const start = b * length * width + first
  const rows = new Float32Array(nRows * width)
  for (let tile = 0; tile < width; tile += TILE_CHANNELS) {
    const end = Math.min(width, tile + TILE_CHANNELS)
    for (let t = 0; t < nRows; t++) for (let i = tile; i < end; i++) rows[t * width + i] = data[start + i * length + t]
  }
  return rows
}

function writeTransposed(data: Float32Array, rows: Float32Array, width: number, { b, first, nRows, length }: Place): void {
  const start = b * length * width + first
  for (let tile = 0; tile < width; tile += TILE_CHANNELS) {
    const end = Math.min(width, tile + TILE_CHANNELS)
    for (let t = 0; t < nRows; t++) for (let i = tile; i < end; i++) data[start + i * length + t] = rows[t * width + i]
  }
}

interface Sizes {
  readonly nBatch: number
  readonly length: number
  readonly dInner: number
  readonly dState: number
}

function checkShapes(input: SelectiveScanInput, isTransposed: boolean): Sizes {
  const [nBatch, second, third] = checkRank('x', input.x, 3)
  const [dInner, length] = isTransposed ? [second, third] : [third, second]
  const [, dState] = checkRank('A', input.A, 2)
  const perToken = isTransposed ? [nBatch, dInner, length] : [nBatch, length, dInner]
  checkShape('dt', input.dt, perToken)
  checkShape('A', input.A, [dInner, dState])
  if (dInner < 1 || dState < 1) throw new RangeError(messageOf({ place: 'A', expected: 'at least one channel and one state', got: `(${dInner}, ${dState})` }))
  if (input.z) checkShape('z', input.z, perToken)
  if (input.D) checkShape('D', input.D, [dInner])
  if (input.dtBias) checkShape('dtBias', input.dtBias, [dInner])
  if (input.initialState) checkShape('initialState', input.initialState, [nBatch, dInner, dState])
  for (const name of ['B', 'C'] as const) {
    const tensor = input[name]
    const rank = checkRank(name, tensor, 2, 3, 4).length
    const nGroups = groupsOf(tensor, input.layout)
    const inner = isTransposed ? [dState, length] : [dState]
    const outer = isTransposed ? [nBatch] : [nBatch, length]
    if (rank === 2) checkShape(name, tensor, [dInner, dState])
    else checkShape(name, tensor, rank === 3 ? [...outer, ...inner] : [...outer, nGroups, ...inner])
    if (rank === 4 && (nGroups < 1 || dInner % nGroups !== 0)) {
      throw new RangeError(messageOf({ place: name, expected: `a number of groups that divides ${dInner} channels`, got: `${nGroups}` }))
    }
  }
  return { nBatch, length, dInner, dState }
}

function groupsOf({ shape }: Tensor, layout: 'bld' | 'bdl' = 'bld'): number {
  return shape.length === 4 ? shape[layout === 'bdl' ? 1 : 2] : 1
}

function checkRank(name: string, tensor: Tensor, ...ranks: readonly number[]): readonly number[] {
  if (typeof tensor !== 'object' || tensor === null || !(tensor.data instanceof Float32Array) || !Array.isArray(tensor.shape)) {
    throw new TypeError(messageOf({ place: name, expected: '{ data: Float32Array, shape: number[] }', got: describe(tensor) }))
  }
  const { data, shape } = tensor
  if (!ranks.includes(shape.length) || !shape.every((size: unknown) => Number.isSafeInteger(size) && Number(size) >= 0)) {
    throw new RangeError(messageOf({ place: `${name}.shape`, expected: `${ranks.join(' or ')} sizes`, got: describe(shape) }))
  }
  if (elementsOf(shape) !== data.length) {
    throw new RangeError(messageOf({ place: `${name}.data`, expected: `${elementsOf(shape)} values for ${describe(shape)}`, got: `${data.length}` }))
  }
  return shape
}

function checkShape(name: string, tensor: Tensor, expected: readonly number[]): void {
  const shape = checkRank(name, tensor, expected.length)
  if (shape.some((size, i) => size !== expected[i])) {
    throw new RangeError(messageOf({ place: `${name}.shape`, expected: describe(expected), got: describe(shape) }))
  }
}

function checkOption<T>(name: string, value: T, allowed: readonly T[]): T {
  if (!allowed.includes(value)) throw new RangeError(messageOf({ place: name, expected: `one of ${allowed.map(describe).join(', ')}`, got: describe(value) }))
  return value
}
