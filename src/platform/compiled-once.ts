/** The builds of the compute core, each compiled once. */

import type { Platform, WasmBuild } from './platform.ts'

/** `compile` is asked once for each build, and again after it has failed. */
export function compiledOnce(compile: (build: WasmBuild) => Promise<WebAssembly.Module>): Platform['wasmModule'] {
  const modules = new Map<WasmBuild, Promise<WebAssembly.Module>>()
  return (build) => {
    const known = modules.get(build)
    if (known !== undefined) return known
    const module = compile(build)
    modules.set(build, module)
    module.catch(() => modules.delete(build))
    return module
  }
}
