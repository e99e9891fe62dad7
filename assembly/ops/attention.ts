/**
 * Causal grouped-query attention with an online softmax (Milakov & Gimelshein 2018; the blocks are those of FlashAttention, Dao et al. 2022):
 * out = softmax(scale · q · keysᵀ) · values for each row and head, over the positions up to the row's own.
 *
 * Reads q (nRows, nHeads · headDim) and the layer's cache in the rows' slots; writes out (nRows, nHeads · headDim), exactly its width.
 * The cache of one layer, for each head of keys and values:
 *
 *   keys    │ block 0: column 0 of positions 0–31 │ … column headDim − 1 │ block 1 …     KEY_BLOCK positions in the lanes of eight vectors
 *   values  │ position 0: columns, padded to LANES │ position 1 …
 *
 * So a score is summed over the columns in sequence and a result over the positions in sequence, without horizontal sums, and any headDim will do.
 * For each query (a row and a head) the blocks of KEY_BLOCK positions come in sequence, from position 0 on, whatever the chunk:
 *
 *   m' = max(m, scores)   p = exp(scores − m')   c = exp(m − m')   sum = c · sum + Σ p   mean = c · mean + Σ p · values       out = mean / sum
 *
 * with Σ p as LANES partial sums, position t in sum t mod LANES. The same bits for prompts, chunks, steps and batches, in both builds.
 * Memory is linear: scratch has the scores of one query and the means of QUERY_TILE.
 *
 *   paper: HBM   here: DRAM, L2   the cache, read once for a tile of queries (for one token: once)
 *   paper: SRAM  here: L1         a block of keys and values (16 KB at headDim 64), and the means of up to QUERY_TILE queries
 *                registers        the scores of a block; 32 columns of a mean
 *
 * Threads share tasks of a tile of rows and a head of keys, dealt out in turn: later rows have more keys. Where there are fewer of those heads than
 * threads, the heads of queries of one are shared too.
 */

import {
  ATTENTION_N_HEADS, ATTENTION_OUT, ATTENTION_OUT_STRIDE, ATTENTION_Q, ATTENTION_Q_STRIDE, ATTENTION_SCALE, CACHE_HEAD_DIM, CACHE_KEYS,
  CACHE_KEY_HEAD_BYTES, CACHE_N_HEADS, CACHE_VALUES, CACHE_VALUE_HEAD_BYTES, CONTROL_ATTENTION_END, CONTROL_ATTENTION_FIRST, CONTROL_N_THREADS, KEY_BLOCK, LANES, QUERY_TILE,
  SEGMENT_FIRST_ROW, SEGMENT_N_ROWS, SEGMENT_POSITION
} from '../abi'
import { at, nSegments, pointer, scratchOf, segmentAt, slotOf, word } from '../control'
import { exp, expLanes } from '../math/exp'
import { multiplyAdd } from '../math/multiply-add'

/** Bytes of the positions of a block. */
const BLOCK_BYTES: usize = <usize>KEY_BLOCK << 2
/** Columns of a mean in registers. */
const MEAN_TILE: i32 = 32

export function attention(control: usize, op: usize, thread: i32): void {
  const nThreads = word(control, CONTROL_N_THREADS)
  const nKeyHeads = word(op, CACHE_N_HEADS)
  const nHeads = word(op, ATTENTION_N_HEADS)
  const scratch = scratchOf(control, thread)
  const groupHeads = (nHeads + nKeyHeads - 1) / nKeyHeads
  const nParts = min(groupHeads, (nThreads + nKeyHeads - 1) / nKeyHeads)
  // Where the parts differ, the larger ones have to fit the scratch too.
  const tileRows = max(1, QUERY_TILE / ((groupHeads + nParts - 1) / nParts))
  let task = 0
  for (let i = 0; i < nSegments(control); i++) {
    const segment = segmentAt(control, i)
    const slot = slotOf(control, segment)
    const firstRow = word(segment, SEGMENT_FIRST_ROW)
    const endRow = min(word(segment, SEGMENT_N_ROWS), word(control, CONTROL_ATTENTION_END) - firstRow)
    for (let row = max(0, word(control, CONTROL_ATTENTION_FIRST) - firstRow); row < endRow; row += tileRows) {
      for (let keyHead = 0; keyHead < nKeyHeads; keyHead++) {
        const firstHead = firstHeadOf(op, keyHead)
        const count = firstHeadOf(op, keyHead + 1) - firstHead
        for (let part = 0; part < nParts; part++, task++) {
          if (task % nThreads != thread) continue
          attendTile(op, segment, slot, row, min(tileRows, endRow - row), keyHead, firstHead + count * part / nParts, firstHead + count * (part + 1) / nParts, scratch)
        }
      }
    }
  }
}

/** The first head of queries of a head of keys; its last is before the first of the next one. */
function firstHeadOf(op: usize, keyHead: i32): i32 {
  const nKeyHeads = word(op, CACHE_N_HEADS)
  return (keyHead * word(op, ATTENTION_N_HEADS) + nKeyHeads - 1) / nKeyHeads
}

/** Scratch: [ scores of a block | largest score of each query | sum of each | means, padded to LANES ]. */
function attendTile(
  op: usize, segment: usize, slot: usize, first: i32, nRows: i32, keyHead: i32, firstHead: i32, endHead: i32, scratch: usize
): void {
  const headDim = word(op, CACHE_HEAD_DIM)
  const padded = (headDim + LANES - 1) / LANES * LANES
  const nHeads = endHead - firstHead
  const nQueries = nRows * nHeads
  const largest = scratch + BLOCK_BYTES
  const sums = at(largest, nQueries)
  const means = at(sums, (nQueries + LANES - 1) / LANES * LANES)
  for (let query = 0; query < nQueries; query++) store<f32>(at(largest, query), -f32.POSITIVE_INFINITY)
  memory.fill(sums, 0, <usize>nQueries << 2)
  memory.fill(means, 0, <usize>(nQueries * padded) << 2)
  let keys = slot + pointer(op, CACHE_KEYS) + <usize>keyHead * pointer(op, CACHE_KEY_HEAD_BYTES)
  let values = slot + pointer(op, CACHE_VALUES) + <usize>keyHead * pointer(op, CACHE_VALUE_HEAD_BYTES)
  const position = word(segment, SEGMENT_POSITION) + first
  const row = word(segment, SEGMENT_FIRST_ROW) + first
  const q = at(pointer(op, ATTENTION_Q), row * word(op, ATTENTION_Q_STRIDE) + firstHead * headDim)
  for (let block = 0; block < position + nRows; block += KEY_BLOCK) {
    // Rows before the block do not see it.
    for (let i = max(0, block - position); i < nRows; i++) {
      const count = min(KEY_BLOCK, position + i + 1 - block)
      for (let head = 0; head < nHeads; head++) {
        const query = i * nHeads + head
        scoreBlock(at(q, i * word(op, ATTENTION_Q_STRIDE) + head * headDim), keys, headDim, load<f32>(at(op, ATTENTION_SCALE)), scratch)
        const decay = weighBlock(scratch, count, at(largest, query), at(sums, query))
        addValues(at(means, query * padded), decay, scratch, count, values, padded)
      }
    }
    keys += <usize>headDim * BLOCK_BYTES
    values += <usize>padded * BLOCK_BYTES
  }
  const out = at(pointer(op, ATTENTION_OUT), row * word(op, ATTENTION_OUT_STRIDE) + firstHead * headDim)
  for (let i = 0; i < nRows; i++) {
    for (let head = 0; head < nHeads; head++) {
      const query = i * nHeads + head
      divide(at(means, query * padded), load<f32>(at(sums, query)), at(out, i * word(op, ATTENTION_OUT_STRIDE) + head * headDim), headDim)
    }
  }
}

/** scores[t] = scale · Σ q · key t, for all positions of a block, those that are not there yet too. */
function scoreBlock(q: usize, keys: usize, headDim: i32, scale: f32, scores: usize): void {
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
function weighBlock(scores: usize, count: i32, largest: usize, sum: usize): f32 {
  // What lies in the cache where no token has been yet is anything: its scores never enter.
  for (let t = count; t < KEY_BLOCK; t++) store<f32>(at(scores, t), -f32.POSITIVE_INFINITY)
  const before = load<f32>(largest)
  const after = max<f32>(before, largestOf(scores))
  const decay = exp(before - after)
  store<f32>(largest, after)
  store<f32>(sum, load<f32>(sum) * decay + expAndSum(scores, after))
  return decay
}

function largestOf(scores: usize): f32 {
  if (ASC_FEATURE_SIMD) {
    const a = f32x4.max(f32x4.max(v128.load(scores), v128.load(scores, 16)), f32x4.max(v128.load(scores, 32), v128.load(scores, 48)))
    const b = f32x4.max(f32x4.max(v128.load(scores, 64), v128.load(scores, 80)), f32x4.max(v128.load(scores, 96), v128.load(scores, 112)))
    const lanes = f32x4.max(a, b)
    return max<f32>(
      max<f32>(f32x4.extract_lane(lanes, 0), f32x4.extract_lane(lanes, 1)), max<f32>(f32x4.extract_lane(lanes, 2), f32x4.extract_lane(lanes, 3))
    )
  }
  let most = load<f32>(scores)
  for (let t = 1; t < KEY_BLOCK; t++) most = max<f32>(most, load<f32>(at(scores, t)))
  return most
}

/** scores = exp(scores − most); returns their sum. */
function expAndSum(scores: usize, most: f32): f32 {
  if (ASC_FEATURE_SIMD) {
    const shift = f32x4.splat(most)
    let lanes = f32x4.splat(0)
    for (let t = 0; t < KEY_BLOCK; t += LANES) {
      const weights = expLanes(f32x4.sub(v128.load(at(scores, t)), shift))
      v128.store(at(scores, t), weights)
      lanes = f32x4.add(lanes, weights)
    }
    return f32x4.extract_lane(lanes, 0) + f32x4.extract_lane(lanes, 1) + (f32x4.extract_lane(lanes, 2) + f32x4.extract_lane(lanes, 3))
  }
  let a: f32 = 0
  let b: f32 = 0
  let c: f32 = 0
  let d: f32 = 0
  for (let t = 0; t < KEY_BLOCK; t += LANES) {
    for (let lane = t; lane < t + LANES; lane++) store<f32>(at(scores, lane), exp(load<f32>(at(scores, lane)) - most))
    a += load<f32>(at(scores, t))
    b += load<f32>(at(scores, t), 4)
    c += load<f32>(at(scores, t), 8)
    d += load<f32>(at(scores, t), 12)
  }
  return a + b + (c + d)
}

/** mean = decay · mean + Σ weight t · value t, over the first `count` positions of a block. */
function addValues(mean: usize, decay: f32, weights: usize, count: i32, values: usize, padded: i32): void {
  const rowBytes = <usize>padded << 2
  const end = at(weights, count)
  let column = 0
  if (ASC_FEATURE_SIMD) {
    for (; column + MEAN_TILE <= padded; column += MEAN_TILE) addColumns(at(mean, column), decay, weights, end, at(values, column), rowBytes)
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

/** out = mean / sum */
function divide(mean: usize, sum: f32, out: usize, headDim: i32): void {
  let i = 0
  if (ASC_FEATURE_SIMD) {
    const sums = f32x4.splat(sum)
    for (; i + LANES <= headDim; i += LANES) v128.store(at(out, i), f32x4.div(v128.load(at(mean, i)), sums))
  }
  for (; i < headDim; i++) store<f32>(at(out, i), load<f32>(at(mean, i)) / sum)
}
