/** Node (Deno and Bun have the same modules): files, the wasm modules. With node-files.ts the only importer of node:*. */

import { readFile, stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { FileSet } from '../checkpoint/byte-source.ts'
import { fileSource, folderCache, folderFiles } from './node-files.ts'
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
  yieldToEventLoop: () => setImmediate(),
  async localFiles(path) {
    const stats = await stat(path).catch(() => undefined)
    if (stats === undefined) return undefined
    return stats.isDirectory() ? folderFiles(path) : filesBeside(path)
  },
  downloadCache: (folder) => folderCache(folder),
  embeddedModel: () => folderFiles(fileURLToPath(packageUrl('models/classics-8m')))
}

/** A checkpoint file by its own name, and what stands beside it. */
function filesBeside(path: string): FileSet {
  const folder = folderFiles(dirname(path))
  return {
    name: path,
    open(fileName, signal) {
      if (fileName === 'model.safetensors') return fileSource(path)
      return folder.open(fileName === basename(path) ? 'model.safetensors' : fileName, signal)
    }
  }
}

/** A file of this package: this module runs from src/platform in the repository and from dist/src/platform in the package. */
function packageUrl(path: string): URL {
  return new URL(import.meta.url.endsWith('.ts') ? `../../${path}` : `../../../${path}`, import.meta.url)
}
