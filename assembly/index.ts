/** The only exports. */

import { FUNCTION_EXP, FUNCTION_EXP2, FUNCTION_SILU, FUNCTION_SOFTPLUS, LANES } from './abi'
import { at } from './control'
import { exp, exp2, exp2Lanes, expLanes, silu, siluLanes, softplus, softplusLanes } from './math/exp'
import { runOps } from './program'

/** The first free byte: TypeScript lays memory out from here. */
export function heapBase(): usize {
  return __heap_base
}

/** Runs ops [first, end) of the program of a control block, on the share of one thread. */
export function run(control: usize, first: i32, end: i32, thread: i32): void {
  runOps(control, first, end, thread)
}

/** out[i] = f(x[i]), count a multiple of LANES: for the error tests and the benchmark of the elementary functions. */
export function evaluate(f: i32, x: usize, out: usize, count: i32): void {
  switch (f) {
    case FUNCTION_EXP:
      for (let i = 0; i < count; i += LANES) {
        if (ASC_FEATURE_SIMD) v128.store(at(out, i), expLanes(v128.load(at(x, i))))
        else for (let lane = i; lane < i + LANES; lane++) store<f32>(at(out, lane), exp(load<f32>(at(x, lane))))
      }
      break
    case FUNCTION_SOFTPLUS:
      for (let i = 0; i < count; i += LANES) {
        if (ASC_FEATURE_SIMD) v128.store(at(out, i), softplusLanes(v128.load(at(x, i))))
        else for (let lane = i; lane < i + LANES; lane++) store<f32>(at(out, lane), softplus(load<f32>(at(x, lane))))
      }
      break
    case FUNCTION_SILU:
      for (let i = 0; i < count; i += LANES) {
        if (ASC_FEATURE_SIMD) v128.store(at(out, i), siluLanes(v128.load(at(x, i))))
        else for (let lane = i; lane < i + LANES; lane++) store<f32>(at(out, lane), silu(load<f32>(at(x, lane))))
      }
      break
    case FUNCTION_EXP2:
      for (let i = 0; i < count; i += LANES) {
        if (ASC_FEATURE_SIMD) v128.store(at(out, i), exp2Lanes(v128.load(at(x, i))))
        else for (let lane = i; lane < i + LANES; lane++) store<f32>(at(out, lane), exp2(load<f32>(at(x, lane))))
      }
      break
  }
}
