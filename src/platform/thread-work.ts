/** What a worker of the compute core does, on every platform: one instance on the shared memory, at work until it is told to return. */

import { coreImports } from '../core-imports.ts'
import type { WorkerTask } from './platform.ts'

/** `onReady` is called before the work begins. Whoever waits for this thread in wasm learns by the task's word that it failed. */
export function threadWork(task: WorkerTask, onReady: () => void): void {
  const { module, memory, control, thread, failed } = task
  try {
    touchPages(task)
    const { work } = new WebAssembly.Instance(module, coreImports(memory)).exports as { work: (control: number, thread: number) => number }
    onReady()
    work(control, thread)
  } catch (error) {
    Atomics.store(new Int32Array(memory.buffer), failed / 4, 1)
    throw error
  }
}

/**
 * Whoever writes a page of memory first waits until the system has given it, which can take longer than all else that loading does (14 µs for 4 KiB in a
 * virtual machine). Here that is done on another core, ahead of the caller, and changes no byte.
 */
function touchPages({ memory, exit, pages: { start, end, step } }: WorkerTask): void {
  const words = new Int32Array(memory.buffer)
  for (let address = start; address < end && Atomics.load(words, exit / 4) === 0; address += step) Atomics.or(words, address / 4, 0)
}
