/** Models and programs on the backends, below the library's face: run op by op, states read and written. */
import type { Backend, Batch, Capacity, SsdForm, SteppingBackend } from '../../src/backend/backend.ts'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { createWasmBackend } from '../../src/backend/wasm/wasm-backend.ts'
import { factsOf } from '../../src/backend/webgpu/device.ts'
import type { DeviceFacts } from '../../src/backend/webgpu/kernel.ts'
import { createWebGpuBackend, type WebGpuBackend } from '../../src/backend/webgpu/webgpu-backend.ts'
import { recordFiles } from '../../src/checkpoint/file-set.ts'
import { checkTensors, loadParameters } from '../../src/checkpoint/load-parameters.ts'
import { openCheckpoint } from '../../src/checkpoint/open-checkpoint.ts'
import type { Model } from '../../src/model/architectures.ts'
import { buildModel, readModelConfig } from './architectures.ts'
import { platform } from '../../src/platform/node.ts'
import type { WasmBuild } from '../../src/platform/platform.ts'
import type { WeightFormat } from '../../src/program/formats.ts'
import type { Program } from '../../src/program/ops.ts'
import { filesOf } from './fixtures.ts'
import { gpuDevice } from './gpu.ts'

export const BUILDS = ['scalar', 'simd'] as const
export const KINDS = ['reference', ...BUILDS] as const
/** Mamba-2 by chunks: rounded otherwise than the rest, which are all the same bits. */
export const CHUNKED_KINDS = ['chunked', 'chunked, 2 threads', 'chunked, 3 threads'] as const
const PLAIN_KINDS = { 'chunked': 'simd', 'chunked, 2 threads': '2 threads', 'chunked, 3 threads': '3 threads' } as const
/** Builds and threads of a backend. More threads than cores, too: then they wait for each other at every barrier. */
const CORES = {
  scalar: ['scalar', 1], simd: ['simd', 1], 'simd-dot': ['simd-dot', 1], '2 threads': ['simd-threads', 2], '3 threads': ['simd-threads-dot', 3]
} as const satisfies Record<string, readonly [WasmBuild, number]>
export const WASM_KINDS = Object.keys(CORES) as (keyof typeof CORES)[]

export type Kind = (typeof KINDS)[number] | (typeof WASM_KINDS)[number] | (typeof CHUNKED_KINDS)[number]

function isChunked(kind: Kind): kind is (typeof CHUNKED_KINDS)[number] {
  return kind in PLAIN_KINDS
}

/** `format`: of the matrices, where their sizes allow it and the backend has it. */
export async function createBackend(kind: Kind, program: Program, capacity: Capacity, format: WeightFormat = 'f32'): Promise<SteppingBackend> {
  if (kind === 'reference') return createReferenceBackend(program, capacity, 'test')
  const [build, nThreads] = CORES[isChunked(kind) ? PLAIN_KINDS[kind] : kind]
  const ssd = isChunked(kind) ? 'chunked' : 'recurrent'
  const backend = await createWasmBackend(program, capacity, { module: await platform.wasmModule(build), build, nThreads, reason: 'test', formatOf: () => format, ssd })
  await backend.ready?.()
  return backend
}

/** A checkpoint's program, and its weights in a new backend of any kind. */
export interface LoadedModel extends Model {
  load(kind: Kind, capacity: Capacity, format?: WeightFormat): Promise<SteppingBackend>
  /** On the GPU of the tests, or on another device; `facts`: for kernels to be those of another kind of device. */
  loadGpu(capacity: Capacity, options?: { readonly format?: WeightFormat, readonly ssd?: SsdForm, readonly device?: GPUDevice, readonly facts?: Partial<DeviceFacts> }): Promise<WebGpuBackend>
}

/** `source`: a folder's path, or files by name. */
export async function openModel(source: string | Record<string, Uint8Array>): Promise<LoadedModel> {
  // Bytes in memory need no closing.
  const checkpoint = await openCheckpoint(recordFiles(typeof source === 'string' ? filesOf(source) : source))
  const model = buildModel(readModelConfig(checkpoint.config), (name) => checkpoint.tensors.has(name))
  const wanted = { parameters: model.program.parameters, copies: model.copies }
  checkTensors(checkpoint, wanted)
  const fill = async <T extends Backend>(backend: T): Promise<T> => {
    await loadParameters(checkpoint, wanted, {
      formatOf: (parameter) => backend.formatOf(parameter),
      write: (parameter, values, first) => backend.write(parameter, values, first)
    })
    return backend
  }
  return {
    ...model,
    load: async (kind, capacity, format) => fill(await createBackend(kind, model.program, capacity, format)),
    async loadGpu(capacity, { format = 'f32', ssd = 'recurrent', device: given, facts } = {}) {
      const device = given ?? (await gpuDevice())
      return fill(await createWebGpuBackend(model.program, capacity, {
        device, ownsDevice: false, reason: 'test', formatOf: () => format, ssd, facts: facts && { ...factsOf(device), ...facts }
      }))
    }
  }
}

/** Sequences of the same length, one a slot, with the logits of every token. */
export function batchOf(tokens: Int32Array, nSequences: number): Batch {
  const nRows = tokens.length / nSequences
  return {
    tokens,
    segments: Array.from({ length: nSequences }, (_, slot) => ({ slot, position: 0, firstRow: slot * nRows, nRows, logits: 'all' as const }))
  }
}
