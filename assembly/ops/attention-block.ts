/**
 * One query and one block of KEY_BLOCK positions, the parts of attention.ts: scores, their weights, the weighted values.
 * What lies where, and the order of all sums, is told there.
 */

import { KEY_BLOCK, LANES } from '../abi'
import { at } from '../control'
import { exp2, exp2Lanes } from '../math/exp'
import { multiplyAdd } from '../math/multiply-add'

/** Bytes of one column of a block's keys, and of a query's scores. */
export const BLOCK_BYTES: usize = <usize>KEY_BLOCK << 2
/** Columns of a mean in registers. */
const MEAN_TILE: i32 = 32

/** scores[t] = scale · Σ q · key t, for all positions of a block, those that are not there yet too. */
export function scoreBlock(q: usize, keys: usize, headDim: i32, scale: f32, scores: usize): void {
  if (ASC_FEATURE_SIMD) {
    let a0 = f32x4.splat(0)
    let a1 = a0
    let a2 = a0
    let a3 = a0
    let a4 = a0
    let a5 = a0
    let a6 = a0
    let a7 = a0
    for (const end = at(q, headDim); q < end; q += 4) {
      const x = v128.load32_splat(q)
      a0 = multiplyAdd(x, v128.load(keys), a0)
      a1 = multiplyAdd(x, v128.load(keys, 16), a1)
      a2 = multiplyAdd(x, v128.load(keys, 32), a2)
      a3 = multiplyAdd(x, v128.load(keys, 48), a3)
      a4 = multiplyAdd(x, v128.load(keys, 64), a4)
      a5 = multiplyAdd(x, v128.load(keys, 80), a5)
      a6 = multiplyAdd(x, v128.load(keys, 96), a6)
      a7 = multiplyAdd(x, v128.load(keys, 112), a7)
      keys += BLOCK_BYTES
    }
    const factor = f32x4.splat(scale)
    v128.store(scores, f32x4.mul(a0, factor))
    v128.store(scores, f32x4.mul(a1, factor), 16)
    v128.store(scores, f32x4.mul(a2, factor), 32)
    v128.store(scores, f32x4.mul(a3, factor), 48)
    v128.store(scores, f32x4.mul(a4, factor), 64)
    v128.store(scores, f32x4.mul(a5, factor), 80)
    v128.store(scores, f32x4.mul(a6, factor), 96)
    v128.store(scores, f32x4.mul(a7, factor), 112)
  } else {
    for (let t = 0; t < KEY_BLOCK; t++) {
      let sum: f32 = 0
      for (let i = 0; i < headDim; i++) sum += load<f32>(at(q, i)) * load<f32>(at(keys, i * KEY_BLOCK + t))
      store<f32>(at(scores, t), sum * scale)
    }
  }
}

/** Scores of the first `count` positions to weights, those of the others to 0. Moves the query's largest score and its sum; returns what its mean decays by. */
export function weighBlock(scores: usize, count: i32, largest: usize, sum: usize): f32 {
  // What lies in the cache where no token has been yet is anything: its scores never enter.
  for (let t = count; t < KEY_BLOCK; t++) store<f32>(at(scores, t), -f32.POSITIVE_INFINITY)
  const before = load<f32>(largest)
  const after = larger(before, largestOf(scores))
  // Mostly nothing larger has come.
  const decay: f32 = before == after ? 1 : exp2(before - after)
  store<f32>(largest, after)
  store<f32>(sum, load<f32>(sum) * decay + expAndSum(scores, after))
  return decay
}

/** As f32x4.pmax, which is one instruction where max is eight: NaN may get lost here, and comes back with its own weight. */
// @ts-ignore: decorator
@inline
function larger(a: f32, b: f32): f32 {
  return a < b ? b : a
}

function largestOf(scores: usize): f32 {
  if (ASC_FEATURE_SIMD) {
    const a = f32x4.pmax(f32x4.pmax(v128.load(scores), v128.load(scores, 16)), f32x4.pmax(v128.load(scores, 32), v128.load(scores, 48)))
    const b = f32x4.pmax(f32x4.pmax(v128.load(scores, 64), v128.load(scores, 80)), f32x4.pmax(v128.load(scores, 96), v128.load(scores, 112)))
    const lanes = f32x4.pmax(a, b)
    const pairs = f32x4.pmax(lanes, v128.shuffle<f32>(lanes, lanes, 2, 3, 0, 1))
    return larger(f32x4.extract_lane(pairs, 0), f32x4.extract_lane(pairs, 1))
  }
  let most = load<f32>(scores)
  for (let t = 1; t < KEY_BLOCK; t++) most = larger(most, load<f32>(at(scores, t)))
  return most
}

/** scores = 2^(scores − most); returns their sum: of each lane the eight in pairs, then the lanes in pairs. */
function expAndSum(scores: usize, most: f32): f32 {
  if (ASC_FEATURE_SIMD) {
    const shift = f32x4.splat(most)
    const low = f32x4.add(f32x4.add(expAt(scores, shift), expAt(scores + 16, shift)), f32x4.add(expAt(scores + 32, shift), expAt(scores + 48, shift)))
    const high = f32x4.add(f32x4.add(expAt(scores + 64, shift), expAt(scores + 80, shift)), f32x4.add(expAt(scores + 96, shift), expAt(scores + 112, shift)))
    const lanes = f32x4.add(low, high)
    return f32x4.extract_lane(lanes, 0) + f32x4.extract_lane(lanes, 1) + (f32x4.extract_lane(lanes, 2) + f32x4.extract_lane(lanes, 3))
  }
  for (let t = 0; t < KEY_BLOCK; t++) store<f32>(at(scores, t), exp2(load<f32>(at(scores, t)) - most))
  return laneSum(scores) + laneSum(at(scores, 1)) + (laneSum(at(scores, 2)) + laneSum(at(scores, 3)))
}

// @ts-ignore: decorator
@inline
function expAt(scores: usize, shift: v128): v128 {
  const weights = exp2Lanes(f32x4.sub(v128.load(scores), shift))
  v128.store(scores, weights)
  return weights
}

/** The eight weights of a lane. */
function laneSum(w: usize): f32 {
  const low = load<f32>(w) + load<f32>(w, 16) + (load<f32>(w, 32) + load<f32>(w, 48))
  return low + (load<f32>(w, 64) + load<f32>(w, 80) + (load<f32>(w, 96) + load<f32>(w, 112)))
}

/** mean = decay · mean + Σ weight t · value t, over the first `count` positions of a block. */
export function addValues(mean: usize, decay: f32, weights: usize, count: i32, values: usize, padded: i32): void {
  const rowBytes = <usize>padded << 2
  const end = at(weights, count)
  let column = 0
  if (ASC_FEATURE_SIMD) {
    for (; column + MEAN_TILE <= padded; column += MEAN_TILE) addColumns(at(mean, column), decay, weights, end, at(values, column), rowBytes)
    if (column + (MEAN_TILE >> 1) <= padded) {
      addHalf(at(mean, column), decay, weights, end, at(values, column), rowBytes)
      column += MEAN_TILE >> 1
    }
    for (; column < padded; column += LANES) {
      let sum = f32x4.mul(v128.load(at(mean, column)), f32x4.splat(decay))
      let value = at(values, column)
      for (let weight = weights; weight < end; weight += 4, value += rowBytes) sum = multiplyAdd(v128.load32_splat(weight), v128.load(value), sum)
      v128.store(at(mean, column), sum)
    }
  } else {
    for (; column < padded; column++) {
      let sum = load<f32>(at(mean, column)) * decay
      let value = at(values, column)
      for (let weight = weights; weight < end; weight += 4, value += rowBytes) sum += load<f32>(weight) * load<f32>(value)
      store<f32>(at(mean, column), sum)
    }
  }
}

/** The same for MEAN_TILE columns. */
// @ts-ignore: decorator
@inline
function addColumns(mean: usize, decay: f32, weight: usize, end: usize, value: usize, rowBytes: usize): void {
  const factor = f32x4.splat(decay)
  let a0 = f32x4.mul(v128.load(mean), factor)
  let a1 = f32x4.mul(v128.load(mean, 16), factor)
  let a2 = f32x4.mul(v128.load(mean, 32), factor)
  let a3 = f32x4.mul(v128.load(mean, 48), factor)
  let a4 = f32x4.mul(v128.load(mean, 64), factor)
  let a5 = f32x4.mul(v128.load(mean, 80), factor)
  let a6 = f32x4.mul(v128.load(mean, 96), factor)
  let a7 = f32x4.mul(v128.load(mean, 112), factor)
  for (; weight < end; weight += 4, value += rowBytes) {
    const p = v128.load32_splat(weight)
    a0 = multiplyAdd(p, v128.load(value), a0)
    a1 = multiplyAdd(p, v128.load(value, 16), a1)
    a2 = multiplyAdd(p, v128.load(value, 32), a2)
    a3 = multiplyAdd(p, v128.load(value, 48), a3)
    a4 = multiplyAdd(p, v128.load(value, 64), a4)
    a5 = multiplyAdd(p, v128.load(value, 80), a5)
    a6 = multiplyAdd(p, v128.load(value, 96), a6)
    a7 = multiplyAdd(p, v128.load(value, 112), a7)
  }
  v128.store(mean, a0)
  v128.store(mean, a1, 16)
  v128.store(mean, a2, 32)
  v128.store(mean, a3, 48)
  v128.store(mean, a4, 64)
  v128.store(mean, a5, 80)
  v128.store(mean, a6, 96)
  v128.store(mean, a7, 112)
}

/** For half as many. */
// @ts-ignore: decorator
@inline
function addHalf(mean: usize, decay: f32, weight: usize, end: usize, value: usize, rowBytes: usize): void {
  const factor = f32x4.splat(decay)
  let a0 = f32x4.mul(v128.load(mean), factor)
  let a1 = f32x4.mul(v128.load(mean, 16), factor)
  let a2 = f32x4.mul(v128.load(mean, 32), factor)
  let a3 = f32x4.mul(v128.load(mean, 48), factor)
  for (; weight < end; weight += 4, value += rowBytes) {
    const p = v128.load32_splat(weight)
    a0 = multiplyAdd(p, v128.load(value), a0)
    a1 = multiplyAdd(p, v128.load(value, 16), a1)
    a2 = multiplyAdd(p, v128.load(value, 32), a2)
    a3 = multiplyAdd(p, v128.load(value, 48), a3)
  }
  v128.store(mean, a0)
  v128.store(mean, a1, 16)
  v128.store(mean, a2, 32)
  v128.store(mean, a3, 48)
}

/** out = mean / sum */
export function divide(mean: usize, sum: f32, out: usize, headDim: i32): void {
  let i = 0
  if (ASC_FEATURE_SIMD) {
    const sums = f32x4.splat(sum)
    for (; i + LANES <= headDim; i += LANES) v128.store(at(out, i), f32x4.div(v128.load(at(mean, i)), sums))
  }
  for (; i < headDim; i++) store<f32>(at(out, i), load<f32>(at(mean, i)) / sum)
}
