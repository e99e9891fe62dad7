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
 *   m' = max(m, scores)   p = 2^(scores − m')   c = 2^(m − m')   sum = c · sum + Σ p   mean = c · mean + Σ p · values       out = mean / sum
 *
 * with the scores times log2 e, as the record's scale has it, and Σ p in a fixed order. The same bits for prompts, chunks, steps and batches, in both builds.
 * Memory is linear: scratch has the scores of a block and the means of QUERY_TILE queries.
 *
 *   paper: HBM   here: DRAM, L2   the cache, read once for a tile of queries (for one token: once)
 *   paper: SRAM  here: L1         a block of keys, then one of values (8 KB each at headDim 64), and the means of up to QUERY_TILE queries
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
import { addValues, BLOCK_BYTES, divide, scoreBlock, weighBlock } from './attention-block'

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

/** Scratch, for each query: [ scores of a block | largest score | sum | what its mean decays by | mean, padded to LANES ]. */
function attendTile(
  op: usize, segment: usize, slot: usize, first: i32, nRows: i32, keyHead: i32, firstHead: i32, endHead: i32, scratch: usize
): void {
  const headDim = word(op, CACHE_HEAD_DIM)
  const padded = (headDim + LANES - 1) / LANES * LANES
  const nHeads = endHead - firstHead
  const nQueries = nRows * nHeads
  const largest = scratch + <usize>nQueries * BLOCK_BYTES
  const sums = at(largest, nQueries)
  const decays = at(sums, nQueries)
  const means = at(decays, nQueries)
  for (let query = 0; query < nQueries; query++) store<f32>(at(largest, query), -f32.POSITIVE_INFINITY)
  memory.fill(sums, 0, <usize>nQueries << 2)
  memory.fill(means, 0, <usize>(nQueries * padded) << 2)
  let keys = slot + pointer(op, CACHE_KEYS) + <usize>keyHead * pointer(op, CACHE_KEY_HEAD_BYTES)
  let values = slot + pointer(op, CACHE_VALUES) + <usize>keyHead * pointer(op, CACHE_VALUE_HEAD_BYTES)
  const position = word(segment, SEGMENT_POSITION) + first
  const row = word(segment, SEGMENT_FIRST_ROW) + first
  const q = at(pointer(op, ATTENTION_Q), row * word(op, ATTENTION_Q_STRIDE) + firstHead * headDim)
  for (let block = 0; block < position + nRows; block += KEY_BLOCK) {
    // Rows before the block do not see it. Keys first, then values: both together leave L1 no room for the rest.
    const seen = max(0, block - position)
    for (let i = seen; i < nRows; i++) {
      for (let head = 0; head < nHeads; head++) {
        const query = i * nHeads + head
        const scores = scratch + <usize>query * BLOCK_BYTES
        scoreBlock(at(q, i * word(op, ATTENTION_Q_STRIDE) + head * headDim), keys, headDim, load<f32>(at(op, ATTENTION_SCALE)), scores)
        store<f32>(at(decays, query), weighBlock(scores, min(KEY_BLOCK, position + i + 1 - block), at(largest, query), at(sums, query)))
      }
    }
    for (let query = seen * nHeads; query < nQueries; query++) {
      const count = min(KEY_BLOCK, position + query / nHeads + 1 - block)
      addValues(at(means, query * padded), load<f32>(at(decays, query)), scratch + <usize>query * BLOCK_BYTES, count, values, padded)
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
