/** What an instance of the compute core asks of its host. */

/** How long a thread sleeps at most before it looks around again: assembly/threads.ts counts such slices up to its deadline. */
const SLEEP_MS = 100

export interface CoreImports {
  /** As WebAssembly.Imports wants it. */
  readonly [module: string]: WebAssembly.ModuleImports
  readonly env: {
    readonly memory: WebAssembly.Memory
    /** The threaded builds alone: sleeps until the word at `address` is notified, if it is still `value`. */
    readonly sleep: (address: number, value: number) => void
  }
}

/**
 * The wait is JavaScript's Atomics.wait, not wasm's own: the baseline compiler of Node 20 (V8 11.3) loses locals that live across
 * `memory.atomic.wait32`, and threads then waited at the wrong word or read wrong operands. A call of an import keeps them.
 */
export function coreImports(memory: WebAssembly.Memory): CoreImports {
  const words = new Int32Array(memory.buffer)
  return {
    env: {
      memory,
      sleep(address, value) {
        Atomics.wait(words, address >>> 2, value, SLEEP_MS)
      }
    }
  }
}
