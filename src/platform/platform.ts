/** What differs between runtimes. One implementation each, chosen by the export condition of "#platform". */

/** Builds of the compute core. */
export type WasmBuild = 'scalar' | 'simd'

export interface Platform {
  readonly name: 'node' | 'web'
  /** The compiled compute core. Compiled once. */
  wasmModule(build: WasmBuild): Promise<WebAssembly.Module>
  /** Lets timers, input and abort signals through. */
  yieldToEventLoop(): Promise<void>
}
