/** From a source to a backend with its weights: open, check, plan, stream. */

import type { Backend, BackendInfo, Capacity, SsdForm } from './backend/backend.ts'
import type { FileSet } from './checkpoint/byte-source.ts'
import type { MetadataReader } from './checkpoint/gguf-metadata.ts'
import { type Checkpoint, openCheckpoint } from './checkpoint/open-checkpoint.ts'
import { buildModel, type ConfigOverrides, loadArchitecture, type ModelConfig, readModelConfig } from './model/architectures.ts'
import type { WasmBuild } from './platform/platform.ts'
import { FORMATS, type WeightFormat } from './program/formats.ts'
import { createFingerprinter } from './state/fingerprint.ts'
import { opCost, type Parameter, type Program, type RowSpace } from './program/ops.ts'
import { hostHasSharedMemory, hostHasSimd } from './host.ts'
import { platform } from '#platform'

/** How far a load has come. */
export interface LoadProgress {
  /** 'download' for files that come from a hub first, then 'weights' as they go to their places. */
  readonly phase: 'download' | 'weights'
  /** The file under way; null for the weights. */
  readonly file: string | null
  readonly loadedBytes: number
  readonly totalBytes: number
  /** Why the file could not be kept in the cache of downloads: it is read from its server as needed. */
  readonly notKept?: string
}

/** What weights can be rounded to while loading; 'auto' leaves them as the file has them. */
export type WeightDtype = 'auto' | 'f32' | 'bf16' | 'f16' | 'q8_0' | 'q4_0'

export const WEIGHT_DTYPES = ['auto', 'f32', 'bf16', 'f16', 'q8_0', 'q4_0'] as const satisfies readonly WeightDtype[]

export const BUILDS = ['auto', 'scalar', 'simd', 'simd-dot'] as const

/** What runs a model. */
export const BACKENDS = ['wasm', 'webgpu', 'auto', 'reference'] as const

/** What runs a model, and in how much memory. */
export interface EngineOptions extends ConfigOverrides {
  /**
   * Format of the large matrices in memory. 'auto' keeps what the file has; another one rounds to it while loading.
   * Norms, convolution, dt projection, A and D stay as they are. Default 'auto'.
   */
  readonly dtype?: WeightDtype | undefined
  /** 'auto' takes the host's cores where the model is large enough to gain by them. Any number gives the same bits. Default 'auto'. */
  readonly threads?: number | 'auto' | undefined
  /**
   * 'wasm' gives the same bits everywhere. 'webgpu' computes on a GPU: in Node and Bun by the optional package `webgpu`, elsewhere by the host's own. Its
   * results are within rounding of the others', but differ from GPU to GPU and with how a text is split. 'auto' takes 'webgpu' where the host has a GPU with
   * room for the model and the model is large enough to gain by it, else 'wasm', and so it does with options that are of 'wasm' alone (`build`, `relaxed`,
   * more than one of `threads`); `mamba.backend.reason` says why. 'reference' is the float64 interpreter: slow, for checking. Default 'wasm'.
   */
  readonly backend?: 'wasm' | 'webgpu' | 'auto' | 'reference' | undefined
  /** For backends 'webgpu' and 'auto': a GPUDevice of the caller's own, with the limits that it was asked for; it is not destroyed. Default: the fastest there is. */
  readonly gpu?: object | undefined
  /**
   * Build of the compute core. 'auto' takes the fastest: 'simd-dot', which multiplies bytes, for weights of 8 or 4 bits on a machine that does so in one
   * instruction (measured once, in some 4 ms); else 'simd'; 'scalar' where there is no SIMD. All give the same bits. Default 'auto'.
   */
  readonly build?: 'auto' | 'scalar' | 'simd' | 'simd-dot' | undefined
  /** Fused multiply-and-add where the host has it: faster, but results may differ from machine to machine in the last digits. Default false. */
  readonly relaxed?: boolean | undefined
  /**
   * Mamba-2's state space: 'recurrent' goes token by token, 'chunked' takes matrix products over 32 tokens (the paper's SSD form), which changes
   * the time of prompts, and the last digits: results then depend on how a text is split into calls and batches, and have no part in the
   * promise of the same bits. Any number of threads still gives the same ones. Fewer than 8 tokens at a time go token by token in both. Of the
   * builds with SIMD, and of models with Mamba-2 layers: else an UnsupportedError. Default 'recurrent'.
   */
  readonly ssd?: SsdForm | undefined
  /** Sequences that run at once, their states in the engine's memory; further ones take turns, their states moved in and out. Default 4. */
  readonly maxBatch?: number | undefined
  /**
   * Tokens that a sequence may have in a model with attention, whose keys and values are kept for each of them: memory is taken at load,
   * `mamba.backend.memoryBytes.statePerToken` for each of all maxBatch sequences together, and going beyond is a RangeError. Default: the model's own
   * limit, but at most 4096. A pure state space model has no limit and takes no notice of it.
   */
  readonly contextLength?: number | undefined
  /**
   * Calls that may wait beside the `maxBatch` that run: one more is refused with a BusyError. Each that has begun may hold a state outside of
   * the engine's memory (2.8 MB for mamba-130m). Default 1024.
   */
  readonly maxQueue?: number | undefined
  /**
   * Mamba-2 with several groups: parts of the inner width that the gated norm takes by themselves. The sources disagree: transformers'
   * `mamba2` takes the whole width, the original repository each group. Default: as the form of the config says. Give n_groups for a
   * checkpoint that was trained with the original code and converted to transformers' form, such as Codestral-Mamba (8).
   */
  readonly normGroups?: number | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: LoadProgress) => void) | undefined
}

export interface LoadedModel {
  readonly config: ModelConfig
  readonly backend: Backend
  /** A GGUF file's: the tokenizer is in it. */
  readonly metadata: MetadataReader | null
  /** What states belong to (state/fingerprint.ts). */
  readonly fingerprint: Uint8Array
}

/** Throws a CheckpointError, an UnsupportedError, a RangeError for a model beyond 4 GiB, or the signal's reason. */
export async function loadModel(checkpoint: Checkpoint, options: EngineOptions): Promise<LoadedModel> {
  const architecture = await loadArchitecture(checkpoint.config, checkpoint.configPlace)
  const stated = readModelConfig(architecture, checkpoint.config, checkpoint.configPlace)
  const config = options.normGroups === undefined ? stated : (await import('./model/overrides.ts')).overrideConfig(architecture, stated, options)
  const model = buildModel(architecture, config, (name) => checkpoint.tensors.has(name))
  const wanted = { parameters: model.program.parameters, copies: model.copies }
  const { checkTensors, loadParameters } = await import('./checkpoint/load-parameters.ts')
  checkTensors(checkpoint, wanted)
  const formatOf = weightFormats(checkpoint, options.dtype ?? 'auto')
  const backend = await createBackend(model.program, formatOf, { ...options, contextLength: contextLengthOf(config, options) })
  const fingerprinter = createFingerprinter()
  try {
    await loadParameters(checkpoint, wanted, {
      signal: options.signal,
      onProgress: options.onProgress && ((progress) => options.onProgress?.({ ...progress, file: null })),
      formatOf: (parameter) => backend.formatOf(parameter),
      write: (parameter, values, first) => backend.write(parameter, values, first),
      onBytes: (name, bytes) => fingerprinter.update(name, bytes)
    })
    await backend.ready?.()
  } catch (error) {
    // Its threads would stay.
    await backend.dispose()
    throw error
  }
  const runs = new Map(model.program.parameters.map((parameter) => [parameter.name, backend.formatOf(parameter)]))
  const fingerprint = fingerprinter.finish({
    config,
    arithmetic: arithmeticOf(backend.info),
    tensorFacts: (name) => `${checkpoint.tensors.get(name)?.dtype} (${checkpoint.tensors.get(name)?.shape.join(', ')}) as ${runs.get(name)}`
  })
  return { config, backend, metadata: checkpoint.metadata, fingerprint }
}

/** Builds of the same one give the same bits; a GPU goes on from a state of f32, and the other way round, within rounding. */
function arithmeticOf({ name, build, ssd }: BackendInfo): string {
  if (name === 'webgpu') return 'f32'
  if (build === 'float64') return build
  return `${build.endsWith('-relaxed') ? 'relaxed ' : ''}f32${ssd === 'chunked' ? ', chunked ssd' : ''}`
}

/** Opens, loads and closes again. */
export async function loadFrom(files: FileSet, options: EngineOptions): Promise<LoadedModel> {
  const checkpoint = await openCheckpoint(files, { signal: options.signal })
  try {
    return await loadModel(checkpoint, options)
  } finally {
    await checkpoint.close()
  }
}

/** What the option says, or what the model was made for within the default. */
function contextLengthOf(config: ModelConfig, { contextLength }: EngineOptions): number {
  return contextLength ?? Math.min(DEFAULT_CONTEXT, config.contextLength ?? DEFAULT_CONTEXT)
}

/** What would not fit wasm's memory is refused by its bytes; this one keeps positions exact in rotary angles. */
export const MAX_CONTEXT = 2 ** 20
/** By default: the keys and values of a small hybrid's sequence are some tens of MB then. */
const DEFAULT_CONTEXT = 4096

/** The stored type of a file as a format of the kernels; f32 for what they do not have. */
function storedFormat(dtype: string | undefined): WeightFormat {
  const format = dtype?.toLowerCase() ?? 'f32'
  return isFormat(format) ? format : 'f32'
}

function isFormat(name: string): name is WeightFormat {
  return Object.hasOwn(FORMATS, name)
}

type FormatOf = (parameter: Parameter) => WeightFormat

function weightFormats(checkpoint: Checkpoint, dtype: WeightDtype): FormatOf {
  return ({ name, isSensitive }) => (dtype === 'auto' || isSensitive ? storedFormat(checkpoint.tensors.get(name)?.dtype) : dtype)
}

async function createBackend(program: Program, formatOf: FormatOf, options: EngineOptions): Promise<Backend> {
  const capacityFor = (chunk?: ChunkLimits): Capacity => capacityOf(program, options.maxBatch ?? 4, options.contextLength, chunk)
  const { backend = 'wasm' } = options
  const other = backend === 'wasm' ? '' : await (await import('./other-backends.ts')).openOther(program, { ...options, backend, formatOf, capacityFor })
  if (typeof other !== 'string') return other
  const { build, nThreads, reason } = await chooseBuild(program, formatOf, options)
  const { ssd } = options
  if (ssd === 'chunked') (await import('./chunked-ssd.ts')).checkChunked(program, build)
  const [{ createWasmBackend }, module] = await Promise.all([import('./backend/wasm/wasm-backend.ts'), platform.wasmModule(build)])
  return createWasmBackend(program, capacityFor(), { module, build, nThreads, reason: other + reason, formatOf, ssd })
}

/**
 * Half of a token's work from which on there is a second thread. One is faster from 3.4e6 on (npm run bench -- threads), but takes 30 ms to start, which a model
 * as small as that wins back within some hundred tokens alone, and a core of whoever else is there.
 */
const COST_PER_THREAD = 1.5e7

interface Choice {
  readonly build: WasmBuild
  readonly nThreads: number
  readonly reason: string
}

/** What the options ask for, which checkEngineOptions found in this host; 'auto' takes the best that is there. */
async function chooseBuild(program: Program, formatOf: FormatOf, { build = 'auto', threads = 'auto', relaxed = false }: EngineOptions): Promise<Choice> {
  const isSimd = build === 'auto' ? hostHasSimd() : build !== 'scalar'
  const { nThreads, reason } = chooseThreads(program, isSimd, threads)
  const hasDot = build === 'simd-dot' || (build === 'auto' && isSimd && !relaxed && platform.hasBuild('simd-dot') && (await multipliesBytes(program, formatOf)))
  const buildReason = build === 'auto' ? `this host has ${isSimd ? '' : 'no '}WebAssembly SIMD${hasDot ? ', and fast products of bytes' : ''}` : `build ${build} asked for`
  if (!isSimd) return { build: 'scalar', nThreads, reason: `${buildReason}; ${reason}` }
  const name = nThreads > 1 ? 'simd-threads' : 'simd'
  return { build: `${name}${relaxed ? '-relaxed' : hasDot ? '-dot' : ''}`, nThreads, reason: `${buildReason}${relaxed ? ', relaxed asked for' : ''}; ${reason}` }
}

/** Whether there are weights that the builds for products of bytes are for, and they are faster here. */
async function multipliesBytes({ parameters }: Program, formatOf: FormatOf): Promise<boolean> {
  return parameters.some((parameter) => FORMATS[formatOf(parameter)].blockElements > 1) && (await import('./byte-dot.ts')).hasFastByteDot()
}

/** Why there can be no second thread here; undefined where there can. */
export function threadObstacle(): string | undefined {
  return platform.threadObstacle() ?? (hostHasSharedMemory() ? undefined : 'this host has no shared memory')
}

function chooseThreads(program: Program, isSimd: boolean, threads: number | 'auto'): Omit<Choice, 'build'> {
  const nThreadsOf = (nThreads: number, reason: string): Omit<Choice, 'build'> => ({ nThreads, reason: `${nThreads} ${nThreads > 1 ? 'threads' : 'thread'}: ${reason}` })
  if (threads === 1) return nThreadsOf(1, 'asked for')
  const obstacle = threadObstacle()
  if (obstacle !== undefined) return nThreadsOf(1, obstacle)
  if (threads !== 'auto') return nThreadsOf(threads, 'asked for')
  if (!isSimd) return nThreadsOf(1, 'the scalar build has no more')
  const cost = program.ops.reduce((sum, op) => sum + opCost(op), 0)
  const useful = Math.max(1, Math.min(platform.nCores, Math.floor(cost / COST_PER_THREAD)))
  return nThreadsOf(useful, useful < platform.nCores ? 'the model is too small to gain by more' : `of ${platform.nCores} cores`)
}

/** How large a chunk may be. */
export interface ChunkLimits {
  /** Of its largest op. */
  readonly opCost: number
  readonly rows: number
}

/** 30 ms on a core of 20 GFLOP/s, so that an op ends within the 50 ms between two turns of the event loop. */
const CORE_CHUNK: ChunkLimits = { opCost: 6e8, rows: 256 }

/** Chunks as large as the longest op may last, of the layers and of the head: long enough to use the weights many times. */
export function capacityOf(program: Program, nSlots: number, contextLength = DEFAULT_CONTEXT, chunk = CORE_CHUNK): Capacity {
  const rowsOf = (space: RowSpace): number => {
    const largest = Math.max(1, ...program.ops.filter(({ out }) => out.buffer.rows === space).map(opCost))
    const rows = Math.max(1, Math.min(chunk.rows, Math.floor(chunk.opCost / largest)))
    // The kernels take four rows at a time.
    return Math.max(nSlots, rows < 4 ? rows : rows - (rows % 4))
  }
  return { maxRows: rowsOf('token'), maxLogitRows: rowsOf('logit'), nSlots, contextLength: program.keyValues.length === 0 ? 0 : contextLength }
}
