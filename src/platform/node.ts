/**
 * Node (Deno and Bun have the same modules): files, the wasm modules. With node-files.ts and node-cache.ts the only importer of node:*.
 * Deno also runs it from a web address, as JSR's packages are: the package's own files then come from there.
 */

import { readFile, stat } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { basename, dirname } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { checkpointFile, urlFiles } from '../checkpoint/file-set.ts'
import { UnsupportedError } from '../errors.ts'
import { compiledOnce } from './compiled-once.ts'
import { folderFiles } from './node-files.ts'
import type { Platform, WorkerHandle, WorkerTask } from './platform.ts'

export const platform: Platform = {
  name: 'node',
  wasmModule: compiledOnce(async (build) => WebAssembly.compile(await packageBytes(packageUrl(`dist/wasm/${build}.wasm`)))),
  get nCores() {
    return availableParallelism()
  },
  threadObstacle: () => (isOnDisk ? undefined : 'a worker’s script must be on a disk, and this package is at a web address'),
  startWorker,
  yieldToEventLoop: () => setImmediate(),
  async localFiles(path) {
    const stats = await stat(path).catch(() => undefined)
    if (stats === undefined) return undefined
    if (stats.isDirectory()) return folderFiles(path)
    return checkpointFile(folderFiles(dirname(path)), basename(path))
  },
  downloadCache: async (folder) => (await import('./node-cache.ts')).folderCache(folder),
  embeddedModel: () => (isOnDisk ? folderFiles(fileURLToPath(packageUrl('models/classics-8m'))) : urlFiles(packageUrl('models/classics-8m')))
}

const isOnDisk = import.meta.url.startsWith('file:')

async function packageBytes(url: URL): Promise<BufferSource> {
  if (isOnDisk) return readFile(url)
  const response = await fetch(url)
  if (response.ok) return response.arrayBuffer()
  throw new UnsupportedError({ place: url.href, expected: 'a file of this package', got: `status ${response.status}` })
}

function startWorker(task: WorkerTask, onEnd: (reason: string) => void): WorkerHandle {
  const worker = new Worker(new URL(import.meta.url.endsWith('.ts') ? 'node-worker.ts' : 'node-worker.js', import.meta.url), {
    workerData: task,
    // The process's own flags may be none for a worker, e.g. --input-type.
    execArgv: []
  })
  let reason = 'one that ended'
  const ended = new Promise<void>((resolve) => {
    worker.once('exit', (code) => {
      onEnd(code === 0 ? reason : `${reason} (exit code ${code})`)
      resolve()
    })
  })
  const ready = new Promise<void>((resolve, reject) => {
    worker.once('message', () => {
      worker.unref()
      resolve()
    })
    worker.once('error', (error) => {
      reason = `one that failed: ${error.message}`
      reject(error)
    })
    void ended.then(() => reject(new Error(reason)))
  })
  return {
    ready,
    ended() {
      worker.ref()
      return ended
    }
  }
}

/** A file of this package: this module runs from src/platform in the repository and from dist/src/platform in the package. */
function packageUrl(path: string): URL {
  return new URL(import.meta.url.endsWith('.ts') ? `../../${path}` : `../../../${path}`, import.meta.url)
}
