/**
 * Node (Deno and Bun have the same modules): files, the wasm modules. With node-files.ts and node-cache.ts the only importer of node:*.
 * What of Node has to be loaded is loaded when it is needed: node:fs/promises and node:worker_threads are most of what importing this package would cost.
 * Deno also runs it from a web address, as JSR's packages are: the package's own files then come from there.
 */

import { availableParallelism } from 'node:os'
import { basename, dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { FileSet } from '../checkpoint/byte-source.ts'
import { checkpointFile, urlFiles } from '../checkpoint/file-set.ts'
import { UnsupportedError } from '../errors.ts'
import { compiledOnce } from './compiled-once.ts'
import type { Platform } from './platform.ts'

export const platform: Platform = {
  name: 'node',
  hasBuild: () => true,
  wasmModule: compiledOnce(async (build) => WebAssembly.compile(await packageBytes(packageUrl(`dist/wasm/${build}.wasm`)))),
  get nCores() {
    return availableParallelism()
  },
  threadObstacle: () => (isOnDisk ? undefined : 'a worker’s script must be on a disk, and this package is at a web address'),
  startWorker: async (task, onEnd) => (await import('./node-threads.ts')).startWorker(task, onEnd),
  // A package that few have is asked for by few.
  gpu: async () => (await import('./node-gpu.ts')).nodeGpu(),
  yieldToEventLoop: () => new Promise((resolve) => setImmediate(resolve)),
  async localFiles(path) {
    const { folderFiles, stat } = await import('./node-files.ts')
    const stats = await stat(path).catch(() => undefined)
    if (stats === undefined) return undefined
    if (stats.isDirectory()) return folderFiles(path)
    return checkpointFile(folderFiles(dirname(path)), basename(path))
  },
  downloadCache: async (folder) => (await import('./node-cache.ts')).folderCache(folder),
  embeddedModel: () => (isOnDisk ? packageFolder('models/classics-8m') : urlFiles(packageUrl('models/classics-8m')))
}

const isOnDisk = import.meta.url.startsWith('file:')

function packageFolder(path: string): FileSet {
  const name = fileURLToPath(packageUrl(path))
  return { name, open: async (fileName, signal) => (await import('./node-files.ts')).folderFiles(name).open(fileName, signal) }
}

async function packageBytes(url: URL): Promise<BufferSource> {
  if (isOnDisk) return (await import('./node-files.ts')).readFile(url)
  const response = await fetch(url)
  if (response.ok) return response.arrayBuffer()
  throw new UnsupportedError({ place: url.href, expected: 'a file of this package', got: `status ${response.status}` })
}

/** A file of this package: this module runs from src/platform in the repository and from dist/src/platform in the package. */
function packageUrl(path: string): URL {
  return new URL(import.meta.url.endsWith('.ts') ? `../../${path}` : `../../../${path}`, import.meta.url)
}
