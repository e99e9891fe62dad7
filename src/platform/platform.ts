/** What differs between runtimes. One implementation each, chosen by the import condition of "#platform". */

import type { FileSet } from '../checkpoint/byte-source.ts'
import type { FileCache } from '../checkpoint/file-cache.ts'

/** Builds of the compute core: plain loops, SIMD, with products of bytes (the same bits, faster in 8 and 4 bits), with fused multiply-and-add (other bits). */
export type WasmBuild = 'scalar' | 'simd' | 'simd-threads' | 'simd-dot' | 'simd-threads-dot' | 'simd-relaxed' | 'simd-threads-relaxed'

/** What a worker of the compute core runs: thread `thread` on the control block at address `control`. */
export interface WorkerTask {
  readonly module: WebAssembly.Module
  readonly memory: WebAssembly.Memory
  readonly control: number
  readonly thread: number
  /** Address of the word that a worker sets to 1 when it fails: whoever waits for it in wasm gets no events. */
  readonly failed: number
  /** Address of the word that is not 0 when the worker is to return. */
  readonly exit: number
  /** Addresses of words, `step` bytes apart, in memory that the caller is about to write. */
  readonly pages: { readonly start: number; readonly end: number; readonly step: number }
}

export interface WorkerHandle {
  /** Resolves when the worker runs; rejects when it ends before. */
  readonly ready: Promise<void>
  /** Resolves when it has ended; whoever waits for that has told it to. */
  ended(): Promise<void>
}

export interface Platform {
  readonly name: 'node' | 'web' | 'workerd'
  /** Whether the package has it here: edge functions take one along. */
  hasBuild(build: WasmBuild): boolean
  /** The compiled compute core. Compiled once. */
  wasmModule(build: WasmBuild): Promise<WebAssembly.Module>
  /** Threads that this host runs at once. */
  readonly nCores: number
  /** Why there can be no thread beside the calling one; undefined where there can. */
  threadObstacle(): string | undefined
  /** Starts a worker that, once ready, does not keep the process alive. `onEnd` is called once, with the reason, when it ends. */
  startWorker(task: WorkerTask, onEnd: (reason: string) => void): Promise<WorkerHandle>
  /** The host's WebGPU; an UnsupportedError, which says what to do, where it has none. */
  gpu(): Promise<GPU>
  /** Lets timers, input and abort signals through. */
  yieldToEventLoop(): Promise<void>
  /** The folder at a path, or that of the checkpoint file at a path; undefined where there is neither. */
  localFiles(path: string): Promise<FileSet | undefined>
  /** Where downloads are kept: in the folder (in a browser, the cache) of this name, or in the user's cache folder; undefined where nothing can be kept. */
  downloadCache(folder: string | undefined): Promise<FileCache | undefined>
  /** The folder of the embedded model. */
  embeddedModel(): FileSet
}
