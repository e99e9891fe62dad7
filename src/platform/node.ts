/** Node (Deno and Bun have the same modules): files, the wasm modules. With node-files.ts the only importer of node:*. */

import { readFile } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'
import type { Platform, WasmBuild } from './platform.ts'

const modules = new Map<WasmBuild, Promise<WebAssembly.Module>>()

export const platform: Platform = {
  name: 'node',
  wasmModule(build) {
    let module = modules.get(build)
    if (module === undefined) {
      module = readFile(packageUrl(`dist/wasm/${build}.wasm`)).then((bytes) => WebAssembly.compile(bytes))
      modules.set(build, module)
    }
    return module
  },
  yieldToEventLoop: () => setImmediate()
}

/** A file of this package: this module runs from src/platform in the repository and from dist/src/platform in the package. */
export function packageUrl(path: string): URL {
  return new URL(import.meta.url.endsWith('.ts') ? `../../${path}` : `../../../${path}`, import.meta.url)
}
