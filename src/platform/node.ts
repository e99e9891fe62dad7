/** Node (Deno and Bun have the same modules): files, the wasm modules. With node-files.ts the only importer of node:*. */

import { readFile, stat } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { basename, dirname } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { checkpointFile } from '../checkpoint/file-set.ts'
import { compiledOnce } from './compiled-once.ts'
import { folderCache, folderFiles } from './node-files.ts'
import type { Platform, WorkerHandle, WorkerTask } from './platform.ts'

export const platform: Platform = {
  name: 'node',
  wasmModule: compiledOnce(async (build) => WebAssembly.compile(await readFile(packageUrl(`dist/wasm/${build}.wasm`)))),
  get nCores() {
    return availableParallelism()
  },
  threadObstacle: () => undefined,
  startWorker,
  // A package that few have is asked for by few.
  gpu: async () => (await import('./node-gpu.ts')).nodeGpu(),
  yieldToEventLoop: () => setImmediate(),
  async localFiles(path) {
    const stats = await stat(path).catch(() => undefined)
    if (stats === undefined) return undefined
    if (stats.isDirectory()) return folderFiles(path)
    return checkpointFile(folderFiles(dirname(path)), basename(path))
  },
  downloadCache: (folder) => folderCache(folder),
  embeddedModel: () => folderFiles(fileURLToPath(packageUrl('models/classics-8m')))
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
