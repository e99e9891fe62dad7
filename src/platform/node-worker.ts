/** A worker of the compute core on Node: one instance on the shared memory, at work until it is told to return. */

import { parentPort, workerData } from 'node:worker_threads'
import { coreImports } from '../core-imports.ts'
import type { WorkerTask } from './platform.ts'

const { module, memory, control, thread, failed } = workerData as WorkerTask
try {
  const { work } = new WebAssembly.Instance(module, coreImports(memory)).exports as { work: (control: number, thread: number) => number }
  parentPort?.postMessage('ready')
  work(control, thread)
} catch (error) {
  Atomics.store(new Int32Array(memory.buffer), failed / 4, 1)
  throw error
}
