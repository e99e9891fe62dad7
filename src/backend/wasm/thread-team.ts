/**
 * The workers beside the calling thread: started once, kept, asleep while there is nothing to do.
 * All that they share with the caller is the control block (assembly/threads.ts).
 */

import * as abi from '../../../assembly/abi.ts'
import { EngineError } from '../../errors.ts'
import type { Program } from '../../program/ops.ts'
import type { MemoryMap } from './memory-map.ts'
import { shareOps } from './sharing.ts'
import { platform } from '#platform'

export interface ThreadTeam {
  /** Resolves when every worker is ready to run; rejects with an EngineError, and then `stop` is to be called. */
  readonly ready: Promise<unknown>
  /** Throws the reason once a worker is missing. */
  check(): void
  /** Called when `run` says that a worker is missing: never returns. */
  fail(): never
  /** Tells the workers to return and waits until they have. */
  stop(): Promise<void>
}

/** The smallest page that systems give. */
const TOUCH_BYTES = 4096

export interface TeamOptions {
  readonly map: MemoryMap
  readonly memory: WebAssembly.Memory
  readonly module: WebAssembly.Module
}

/** The program's records and the control block are written; how threads share the ops is added to the records. */
export async function startThreads({ ops }: Program, { map, memory, module }: TeamOptions): Promise<ThreadTeam> {
  shareOps(ops, map, memory.buffer)
  const control = new Int32Array(memory.buffer, map.control, abi.CONTROL_WORDS)
  const nThreads = control[abi.CONTROL_N_THREADS]
  const wakeAll = (): void => {
    for (const word of [abi.CONTROL_RUN, abi.CONTROL_PHASE]) Atomics.notify(control, word)
  }
  let failure: EngineError | undefined
  let isStopped = false
  const onEnd = (thread: number, reason: string): void => {
    if (isStopped || failure) return
    failure = new EngineError({ place: `wasm thread ${thread}`, expected: 'a thread at work', got: reason })
    // Whoever waits at a barrier is released.
    Atomics.store(control, abi.CONTROL_FAILED, 1)
    wakeAll()
  }
  const addressOf = (word: number): number => map.control + 4 * word
  const task = { module, memory, control: map.control, failed: addressOf(abi.CONTROL_FAILED), exit: addressOf(abi.CONTROL_EXIT) }
  const firstPage = Math.floor((map.state - map.bytes.weights) / TOUCH_BYTES)
  const tasks = Array.from({ length: nThreads - 1 }, (_, i) => ({
    ...task, thread: i + 1, pages: { start: (firstPage + i) * TOUCH_BYTES, end: map.state, step: (nThreads - 1) * TOUCH_BYTES }
  }))
  const workers = await Promise.all(tasks.map((task) => platform.startWorker(task, (reason) => onEnd(task.thread, reason))))
  const check = (): void => {
    if (failure) throw failure
  }
  const stop = async (): Promise<void> => {
    isStopped = true
    Atomics.store(control, abi.CONTROL_EXIT, 1)
    Atomics.add(control, abi.CONTROL_RUN, 1)
    wakeAll()
    await Promise.all(workers.map((worker) => worker.ended()))
  }
  const ready = Promise.all(workers.map(({ ready }) => ready)).catch((cause) => {
    const got = cause instanceof Error ? cause.message : String(cause)
    throw failure ?? new EngineError({ place: 'wasm threads', expected: `${nThreads} threads at work`, got }, { cause })
  })
  // It may fail before anybody waits for it.
  ready.catch(() => {})
  return {
    ready,
    check,
    fail() {
      check()
      failure = new EngineError({ place: 'wasm threads', expected: `${nThreads} threads at work`, got: 'one that trapped or stayed away' })
      throw failure
    },
    stop
  }
}
