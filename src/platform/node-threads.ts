/** Starts workers of the compute core on Node, Deno and Bun. */

import { Worker } from 'node:worker_threads'
import type { WorkerHandle, WorkerTask } from './platform.ts'

export function startWorker(task: WorkerTask, onEnd: (reason: string) => void): WorkerHandle {
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
