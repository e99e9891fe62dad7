/** What a worker of the compute core does, on every platform: one instance on the shared memory, at work until it is told to return. */

import { coreImports } from '../core-imports.ts'
import type { WorkerTask } from './platform.ts'

/** `onReady` is called before the work begins. Whoever waits for this thread in wasm learns by the task's word that it failed. */
export function threadWork({ module, memory, control, thread, failed }: WorkerTask, onReady: () => void): void {
  try {
    const { work } = new WebAssembly.Instance(module, coreImports(memory)).exports as { work: (control: number, thread: number) => number }
    onReady()
    work(control, thread)
  } catch (error) {
    Atomics.store(new Int32Array(memory.buffer), failed / 4, 1)
    throw error
  }
}
