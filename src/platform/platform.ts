/** What differs between runtimes. One implementation each, chosen by the import condition of "#platform". */

import type { FileSet } from '../checkpoint/byte-source.ts'
import type { FileCache } from '../checkpoint/file-cache.ts'

/** Builds of the compute core. */
export type WasmBuild = 'scalar' | 'simd'

export interface Platform {
  readonly name: 'node' | 'web'
  /** The compiled compute core. Compiled once. */
  wasmModule(build: WasmBuild): Promise<WebAssembly.Module>
  /** Lets timers, input and abort signals through. */
  yieldToEventLoop(): Promise<void>
  /** The folder at a path, or that of the checkpoint file at a path; undefined where there is neither. */
  localFiles(path: string): Promise<FileSet | undefined>
  /** Where downloads are kept: in `folder`, or in the user's cache folder. */
  downloadCache(folder: string | undefined): FileCache
  /** The folder of the embedded model. */
  embeddedModel(): FileSet
}
