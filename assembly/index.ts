/** The only exports. */

export { packQ80 } from './formats/pack-q8'

import { CONTROL_END_OP, CONTROL_FIRST_OP, CONTROL_N_THREADS, FUNCTION_EXP, FUNCTION_EXP2, FUNCTION_GELU, FUNCTION_SILU, FUNCTION_SOFTPLUS, LANES } from './abi'
import { at, word } from './control'
import { exp, exp2, exp2FourLanes, exp2Lanes, expLanes, silu, siluLanes, softplus, softplusLanes } from './math/exp'
import { gelu, geluLanes } from './math/gelu'
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

/** out[i] = f(x[i]), count a multiple of LANES: for the error tests and the benchmark of the elementary functions. */
export function evaluate(f: i32, x: usize, out: usize, count: i32): void {
  switch (f) {
    case FUNCTION_EXP: map<Exp>(x, out, count); break
    case FUNCTION_SOFTPLUS: map<Softplus>(x, out, count); break
    case FUNCTION_SILU: map<Silu>(x, out, count); break
    case FUNCTION_EXP2: mapExp2(x, out, count); break
    case FUNCTION_GELU: map<Gelu>(x, out, count); break
  }
}

function mapExp2(x: usize, out: usize, count: i32): void {
  if (ASC_FEATURE_SIMD) {
    for (; count >= 4 * LANES; count -= 4 * LANES) {
      exp2FourLanes(v128.load(x), v128.load(x, 16), v128.load(x, 32), v128.load(x, 48), out)
      x += 64
      out += 64
    }
  }
  map<Exp2>(x, out, count)
}

class Exp {}
class Softplus {}
class Silu {}
class Exp2 {}
class Gelu {}

function map<F>(x: usize, out: usize, count: i32): void {
  for (let i = 0; i < count; i += LANES) {
    if (ASC_FEATURE_SIMD) {
      v128.store(at(out, i), lanesOf<F>(v128.load(at(x, i))))
    } else {
      for (let lane = i; lane < i + LANES; lane++) store<f32>(at(out, lane), valueOf<F>(load<f32>(at(x, lane))))
    }
  }
}

// @ts-ignore: decorator
@inline
function lanesOf<F>(x: v128): v128 {
  if (idof<F>() == idof<Exp>()) return expLanes(x)
  if (idof<F>() == idof<Softplus>()) return softplusLanes(x)
  if (idof<F>() == idof<Silu>()) return siluLanes(x)
  return idof<F>() == idof<Gelu>() ? geluLanes(x) : exp2Lanes(x)
}

// @ts-ignore: decorator
@inline
function valueOf<F>(x: f32): f32 {
  if (idof<F>() == idof<Exp>()) return exp(x)
  if (idof<F>() == idof<Softplus>()) return softplus(x)
  if (idof<F>() == idof<Silu>()) return silu(x)
  return idof<F>() == idof<Gelu>() ? gelu(x) : exp2(x)
}
