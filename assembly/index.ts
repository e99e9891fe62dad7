/** The only exports. */

export { indexOfBest } from './best'
export { packQ80 } from './formats/pack-q8'

import { CONTROL_END_OP, CONTROL_FIRST_OP, CONTROL_N_THREADS, FUNCTION_EXP, FUNCTION_EXP2, FUNCTION_GELU, FUNCTION_SILU, FUNCTION_SOFTPLUS } from './abi'
import { at, word } from './control'
import { Exp, Exp2, Gelu, mapVectors, Silu, Softplus } from './math/elementwise'
import { runOps } from './program'
import { awaitRun, hasFailed, startRun } from './threads'

/** The first free byte: TypeScript lays memory out from here. */
export function heapBase(): usize {
  return __heap_base
}

/** Whether it multiplies bytes, and takes weights of 8 and 4 bits without minima as FORMAT_Q8_DOT and FORMAT_Q4_DOT. */
export function multipliesBytes(): bool {
  return ASC_FEATURE_RELAXED_SIMD
}

/** Runs ops [first, end) of the program of a control block, with the workers where there are some. 0, or 1 when a worker is missing. */
export function run(control: usize, first: i32, end: i32): i32 {
  if (ASC_FEATURE_THREADS) {
    if (hasFailed(control)) return 1
    if (word(control, CONTROL_N_THREADS) > 1) startRun(control, first, end)
  }
  return runOps(control, first, end, 0) ? 0 : 1
}

/** A worker's whole life: its share of run after run. Returns 0 when told to, 1 when a thread is missing. */
export function work(control: usize, thread: i32): i32 {
  if (!ASC_FEATURE_THREADS) return 0
  for (let seen = 0; awaitRun(control, seen); seen++) {
    if (!runOps(control, word(control, CONTROL_FIRST_OP), word(control, CONTROL_END_OP), thread)) return 1
  }
  return hasFailed(control) ? 1 : 0
}

/** out[i] = f(x[i]), count a multiple of LANES, with a KB of scratch: for the error tests, the benchmark of the elementary functions and the limit of exp2. */
export function evaluate(f: i32, x: usize, out: usize, count: i32, scratch: usize): void {
  switch (f) {
    case FUNCTION_EXP: mapVectors<Exp>(x, at(x, count), out, scratch); break
    case FUNCTION_SOFTPLUS: mapVectors<Softplus>(x, at(x, count), out, scratch); break
    case FUNCTION_SILU: mapVectors<Silu>(x, at(x, count), out, scratch); break
    case FUNCTION_EXP2: mapVectors<Exp2>(x, at(x, count), out, scratch); break
    case FUNCTION_GELU: mapVectors<Gelu>(x, at(x, count), out, scratch); break
  }
}
