/** Whether products of bytes are faster than those of 16 bits on this machine: they are one instruction here and three there, and wasm does not say. */

import { assemble, dotBytes, dotHalves } from './wasm-assembler.ts'

/** One sum: what a chain of steps takes, by which V8's first compiler and its second one agree, which they do not where registers run out. */
const SIZE = { nSums: 1, unroll: 8 }
const TURNS = 2048
const ROUNDS = 8
/** Two digits for a product of 16 bits make as many products; what they save beside them is worth that much. */
const MOST_RATIO = 1.1

let known: boolean | undefined

/** By measurement, some 4 ms at the first call. False where it cannot be measured: no relaxed SIMD, no compiler at run time, a clock too coarse. */
export function hasFastByteDot(): boolean {
  return (known ??= measure())
}

function measure(): boolean {
  try {
    const kernels = new WebAssembly.Instance(new WebAssembly.Module(assemble({ halves: dotHalves(SIZE), bytes: dotBytes(SIZE) }))).exports as Record<string, (turns: number, operand: number) => number>
    let [halves, bytes] = [Infinity, Infinity]
    const elapsed = (name: string): number => {
      const startMs = performance.now()
      kernels[name](TURNS, 3)
      return performance.now() - startMs
    }
    for (let round = 0; round < ROUNDS; round++) {
      halves = Math.min(halves, elapsed('halves'))
      bytes = Math.min(bytes, elapsed('bytes'))
    }
    return halves > 0 && bytes > 0 && bytes <= MOST_RATIO * halves
  } catch {
    return false
  }
}
