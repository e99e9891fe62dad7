/**
 * A mixture of experts apart from its products: `route` chooses each row's experts, `mixExperts` adds up what they gave, in the order of their
 * indices, however the rows were grouped. Threads share the rows.
 */

import {
  LANES, MIX_ACCUMULATE, MIX_CHOICES, MIX_CHOICES_STRIDE, MIX_OUT, MIX_OUT_STRIDE, MIX_TOP_K, MIX_WIDTH, MIX_X, MIX_X_STRIDE,
  ROUTE_N_EXPERTS, ROUTE_OUT, ROUTE_OUT_STRIDE, ROUTE_OVER_ALL, ROUTE_TOP_K, ROUTE_X, ROUTE_X_STRIDE
} from '../abi'
import { at, firstOf, pointer, rowsOf, word } from '../control'
import { exp } from '../math/exp'
import { multiplyAdd } from '../math/multiply-add'

/** out: the topK experts' indices, ascending, as numbers, then their weights. A row has some tens of logits: lanes would gain nothing. */
export function route(control: usize, op: usize, thread: i32): void {
  const nRows = rowsOf(control, op)
  const nExperts = word(op, ROUTE_N_EXPERTS)
  const topK = word(op, ROUTE_TOP_K)
  const end = firstOf(control, nRows, thread + 1)
  for (let row = firstOf(control, nRows, thread); row < end; row++) {
    const logits = at(pointer(op, ROUTE_X), row * word(op, ROUTE_X_STRIDE))
    const experts = at(pointer(op, ROUTE_OUT), row * word(op, ROUTE_OUT_STRIDE))
    const largest = choose(logits, nExperts, topK, experts)
    const weights = at(experts, topK)
    let sum: f32 = 0
    for (let j = 0; j < topK; j++) {
      const weight = exp(load<f32>(at(logits, <i32>load<f32>(at(experts, j)))) - largest)
      store<f32>(at(weights, j), weight)
      sum += weight
    }
    if (word(op, ROUTE_OVER_ALL)) {
      sum = 0
      for (let i = 0; i < nExperts; i++) sum += exp(load<f32>(at(logits, i)) - largest)
    }
    for (let j = 0; j < topK; j++) store<f32>(at(weights, j), load<f32>(at(weights, j)) / sum)
  }
}

/** Writes the indices of the topK largest logits, ascending; ties go to the lowest index, NaN counts as the least. Returns the largest. */
function choose(logits: usize, nExperts: i32, topK: i32, experts: usize): f32 {
  let largest: f32 = 0
  let last = f32.POSITIVE_INFINITY
  let lastIndex = -1
  for (let j = 0; j < topK; j++) {
    let best = -f32.POSITIVE_INFINITY
    let index = -1
    for (let i = 0; i < nExperts; i++) {
      const value = orLeast(load<f32>(at(logits, i)))
      // Those after the last one chosen, in the order of falling logits and rising indices.
      if ((value < last || (value == last && i > lastIndex)) && (index < 0 || value > best)) {
        best = value
        index = i
      }
    }
    if (j == 0) largest = best
    last = best
    lastIndex = index
    let place = j
    for (; place > 0 && load<f32>(at(experts, place - 1)) > <f32>index; place--) store<f32>(at(experts, place), load<f32>(at(experts, place - 1)))
    store<f32>(at(experts, place), <f32>index)
  }
  return largest
}

// @ts-ignore: decorator
@inline
function orLeast(value: f32): f32 {
  return isNaN<f32>(value) ? -f32.POSITIVE_INFINITY : value
}

/** out = Σ_j weight_j · x_j, j ascending, or added to out. */
export function mixExperts(control: usize, op: usize, thread: i32): void {
  const nRows = rowsOf(control, op)
  const width = word(op, MIX_WIDTH)
  const topK = word(op, MIX_TOP_K)
  const accumulate = word(op, MIX_ACCUMULATE)
  const end = firstOf(control, nRows, thread + 1)
  for (let row = firstOf(control, nRows, thread); row < end; row++) {
    const x = at(pointer(op, MIX_X), row * word(op, MIX_X_STRIDE))
    const weights = at(pointer(op, MIX_CHOICES), row * word(op, MIX_CHOICES_STRIDE) + topK)
    const out = at(pointer(op, MIX_OUT), row * word(op, MIX_OUT_STRIDE))
    let i = 0
    if (ASC_FEATURE_SIMD) {
      for (; i + LANES <= width; i += LANES) {
        let sum = f32x4.splat(0)
        for (let j = 0; j < topK; j++) sum = multiplyAdd(v128.load32_splat(at(weights, j)), v128.load(at(x, j * width + i)), sum)
        v128.store(at(out, i), accumulate ? f32x4.add(v128.load(at(out, i)), sum) : sum)
      }
    }
    for (; i < width; i++) {
      let sum: f32 = 0
      for (let j = 0; j < topK; j++) sum += load<f32>(at(weights, j)) * load<f32>(at(x, j * width + i))
      store<f32>(at(out, i), accumulate ? load<f32>(at(out, i)) + sum : sum)
    }
  }
}
