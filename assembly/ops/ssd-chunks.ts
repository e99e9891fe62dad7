/**
 * The state space of Mamba-2 as matrix products over chunks of tokens (Dao & Gu, section 6): what ssd-scan.ts computes, but for rounding.
 * Asked for by an option, in the builds with SIMD alone. With l_t = Σ_{s ≤ t} dt_s · A over the tokens of a chunk, for each head:
 *
 *   scores = B · Cᵀ                                        (token j, token t): one of them for all heads of a group
 *   mix    = scores ∘ exp(l_t − l_j) · dt_j for j ≤ t, + D where j is t
 *   yᵀ     = (h · Cᵀ) ∘ exp(l_t) + xᵀ · mix                (channel, token)
 *   h      = h · exp(l_end) + (exp(l_end − l_j) · dt_j · x_j)ᵀ · B
 *
 * Reads and writes what ssd-scan.ts does; h lies as it does there. All products are one kernel over tiles of 4 rows × 8 columns.
 *
 *   paper: HBM   here: DRAM, L2   the state, read twice and written once a chunk, where the recurrence does so for each token
 *   paper: SRAM  here: L1         right operands in panels of 8 columns: Cᵀ, B, mix of SSD_CHUNK tokens
 *                registers        a tile
 *
 * Threads share the heads. Every sum has one order, so any number of threads gives the same bits; where a chunk starts depends on how the tokens
 * come, so other splits of them do not. Segments and rests of fewer than SSD_CHUNK_LEAST tokens go through the recurrence. l is summed in f64:
 * the difference of two large sums is what counts. All tiles and factors are flushed: none of them is subnormal when the next product reads it.
 */

import {
  SEGMENT_FIRST_ROW, SEGMENT_N_ROWS, SSD_A, SSD_B, SSD_B_STRIDE, SSD_C, SSD_CHUNK, SSD_CHUNK_LEAST, SSD_C_STRIDE, SSD_D, SSD_D_STATE,
  SSD_GROUP_HEADS, SSD_HEAD_DIM, SSD_N_HEADS, SSD_OUT, SSD_OUT_STRIDE, SSD_STATE, SSD_X, SSD_X_STRIDE
} from '../abi'
import { at, firstOf, nSegments, pointer, scratchOf, segmentAt, slotOf, word } from '../control'
import { exp, expLanes } from '../math/exp'
import { FLUSH, FLUSH_LANES } from '../math/flush'
import { COLUMNS, multiply, ROWS, TILE_ROW, turn } from '../math/tile'
import { scanHead, timeStep } from './ssd-scan'

const CHUNK_BYTES: usize = <usize>SSD_CHUNK << 2

/** Scratch of a thread, in bytes: l (f64), then in f32 dt, exp(l_t), exp(l_end − l_j) · dt_j, COLUMNS times exp(l_end), a tile and the same turned. */
const DT: usize = 2 * CHUNK_BYTES
const FROM_START: usize = 3 * CHUNK_BYTES
const TO_END: usize = 4 * CHUNK_BYTES
const DECAY: usize = 5 * CHUNK_BYTES
const TILE: usize = DECAY + TILE_ROW
const TURNED: usize = TILE + <usize>ROWS * TILE_ROW
/** In panels (t / 8, j, 8). */
const SCORES: usize = TURNED + <usize>ROWS * TILE_ROW
const MIX: usize = SCORES + <usize>SSD_CHUNK * CHUNK_BYTES
/** x of a head (j, headDim); B in panels (n / 8, j, 8); C in panels (t / 8, n, 8). */
const X: usize = MIX + <usize>SSD_CHUNK * CHUNK_BYTES

// @ts-ignore: decorator
@inline
function panelsOfB(op: usize, scratch: usize): usize {
  return scratch + X + <usize>word(op, SSD_HEAD_DIM) * CHUNK_BYTES
}

// @ts-ignore: decorator
@inline
function panelsOfC(op: usize, scratch: usize): usize {
  return panelsOfB(op, scratch) + <usize>((word(op, SSD_D_STATE) + COLUMNS - 1) / COLUMNS * COLUMNS) * CHUNK_BYTES
}

export function ssdChunks(control: usize, op: usize, thread: i32): void {
  const nHeads = word(op, SSD_N_HEADS)
  const first = firstOf(control, nHeads, thread)
  const end = firstOf(control, nHeads, thread + 1)
  const headSize = word(op, SSD_HEAD_DIM) * word(op, SSD_D_STATE)
  const scratch = scratchOf(control, thread)
  for (let i = 0; i < nSegments(control); i++) {
    const segment = segmentAt(control, i)
    const states = slotOf(control, segment) + pointer(op, SSD_STATE)
    let row = word(segment, SEGMENT_FIRST_ROW)
    const endRow = row + word(segment, SEGMENT_N_ROWS)
    // A state from elsewhere may be subnormal.
    if (endRow - row >= SSD_CHUNK_LEAST) flush(at(states, first * headSize), (end - first) * headSize)
    while (endRow - row >= SSD_CHUNK_LEAST) {
      const count = min(SSD_CHUNK, endRow - row)
      let group = -1
      for (let head = first; head < end; head++) {
        if (head / word(op, SSD_GROUP_HEADS) != group) {
          group = head / word(op, SSD_GROUP_HEADS)
          prepareGroup(op, row, group, count, scratch)
        }
        runHead(op, row, head, count, at(states, head * headSize), scratch)
      }
      row += count
    }
    if (row == endRow) continue
    for (let head = first; head < end; head++) scanHead(op, row, endRow, head, at(states, head * headSize), scratch)
  }
}

function flush(values: usize, count: i32): void {
  const lanes = v128.load(FLUSH_LANES)
  let i = 0
  for (; i + 4 <= count; i += 4) v128.store(at(values, i), f32x4.sub(f32x4.add(v128.load(at(values, i)), lanes), lanes))
  for (; i < count; i++) store<f32>(at(values, i), load<f32>(at(values, i)) + FLUSH - FLUSH)
}

/** Panels of B and C, and their products. */
function prepareGroup(op: usize, row: i32, group: i32, count: i32, scratch: usize): void {
  const dState = word(op, SSD_D_STATE)
  const stride = word(op, SSD_B_STRIDE)
  const B = at(pointer(op, SSD_B), row * stride + group * dState)
  const C = at(pointer(op, SSD_C), row * word(op, SSD_C_STRIDE) + group * dState)
  const BPanels = panelsOfB(op, scratch)
  const CPanels = panelsOfC(op, scratch)
  for (let t = 0; t < count; t++) {
    const BRow = at(B, t * stride)
    const CRow = at(C, t * word(op, SSD_C_STRIDE))
    const CColumn = at(CPanels, (t - t % COLUMNS) * dState + t % COLUMNS)
    for (let n = 0; n < dState; n++) {
      store<f32>(at(BPanels, (n - n % COLUMNS) * SSD_CHUNK + t * COLUMNS + n % COLUMNS), load<f32>(at(BRow, n)))
      store<f32>(at(CColumn, n * COLUMNS), load<f32>(at(CRow, n)))
    }
  }
  for (let t = 0; t < count; t += COLUMNS) {
    const end = min(count, t + COLUMNS)
    for (let j = 0; j < end; ) {
      // A row too few for a tile is taken alone, as all rows of it.
      const isTile = j + ROWS <= end
      multiply(
        at(B, j * stride), isTile ? <usize>stride << 2 : 0, 4, at(CPanels, t * dState), dState,
        at(scratch + SCORES, t * SSD_CHUNK + j * COLUMNS), isTile ? TILE_ROW : 0, 0
      )
      j += isTile ? ROWS : 1
    }
  }
}

function runHead(op: usize, row: i32, head: i32, count: i32, state: usize, scratch: usize): void {
  const headDim = word(op, SSD_HEAD_DIM)
  const dState = word(op, SSD_D_STATE)
  const x = at(pointer(op, SSD_X), row * word(op, SSD_X_STRIDE) + head * headDim)
  const out = at(pointer(op, SSD_OUT), row * word(op, SSD_OUT_STRIDE) + head * headDim)
  sumSteps(op, row, head, count, scratch)
  mixTokens(op, head, count, scratch)
  copyRows(x, word(op, SSD_X_STRIDE), headDim, count, scratch)
  for (let p = 0; p < headDim; ) {
    const isTile = p + ROWS <= headDim
    for (let t = 0; t < count; t += COLUMNS) {
      const tileRow = isTile ? TILE_ROW : 0
      multiply(at(state, p * dState), isTile ? <usize>dState << 2 : 0, 4, at(panelsOfC(op, scratch), t * dState), dState, scratch + TILE, tileRow, 0)
      multiply(
        at(scratch + X, p), isTile ? 4 : 0, <usize>headDim << 2, at(scratch + MIX, t * SSD_CHUNK), min(count, t + COLUMNS),
        scratch + TILE, tileRow, at(scratch + FROM_START, t)
      )
      storeTurned(op, isTile, min(COLUMNS, count - t), at(out, t * word(op, SSD_OUT_STRIDE) + p), scratch)
    }
    p += isTile ? ROWS : 1
  }
  scaleRows(headDim, count, scratch)
  for (let p = 0; p < headDim; ) {
    const isTile = p + ROWS <= headDim
    for (let n = 0; n < dState; n += COLUMNS) addProducts(op, p, n, isTile, count, at(state, p * dState + n), scratch)
    p += isTile ? ROWS : 1
  }
}

/** l, dt, and the factors that they make. */
function sumSteps(op: usize, row: i32, head: i32, count: i32, scratch: usize): void {
  const A = <f64>load<f32>(at(pointer(op, SSD_A), head))
  let sum: f64 = 0
  for (let t = 0; t < count; t++) {
    const dt = timeStep(op, row + t, head)
    sum += <f64>dt * A
    store<f64>(scratch + (<usize>t << 3), sum)
    store<f32>(at(scratch + DT, t), dt)
  }
  for (let t = 0; t < count; t += 4) {
    const place = at(scratch, t)
    v128.store(place + FROM_START, expLanes(differences(scratch, t, f64x2.splat(0))))
    const toEnd = expLanes(f32x4.neg(differences(scratch, t, f64x2.splat(sum))))
    v128.store(place + TO_END, f32x4.mul(toEnd, v128.load(place + DT)))
  }
  const decay = f32x4.splat(exp(<f32>sum))
  v128.store(scratch + DECAY, decay)
  v128.store(scratch + DECAY, decay, 16)
}

/** l_t − l of four tokens from t. */
// @ts-ignore: decorator
@inline
function differences(scratch: usize, t: i32, l: v128): v128 {
  const sums = scratch + (<usize>t << 3)
  const low = f32x4.demote_f64x2_zero(f64x2.sub(v128.load(sums), l))
  const high = f32x4.demote_f64x2_zero(f64x2.sub(v128.load(sums, 16), l))
  return v128.shuffle<f32>(low, high, 0, 1, 4, 5)
}

/** Of each token what it adds to y of itself and of those behind it. */
function mixTokens(op: usize, head: i32, count: i32, scratch: usize): void {
  const flushLanes = v128.load(FLUSH_LANES)
  const D = pointer(op, SSD_D) ? load<f32>(at(pointer(op, SSD_D), head)) : 0
  for (let j = 0; j < count; j++) {
    const l = v128.load64_splat(scratch + (<usize>j << 3))
    const dt = v128.load32_splat(at(scratch + DT, j))
    const diagonal = j - j % COLUMNS
    for (let t = diagonal; t < count; t += 4) {
      const place = at(scratch + SCORES, (t - t % COLUMNS) * SSD_CHUNK + j * COLUMNS + t % COLUMNS)
      const decay = expLanes(differences(scratch, t, l))
      const mix = f32x4.mul(f32x4.mul(decay, dt), v128.load(place))
      v128.store(place + (MIX - SCORES), f32x4.sub(f32x4.add(mix, flushLanes), flushLanes))
    }
    const place = at(scratch + MIX, diagonal * SSD_CHUNK + j * COLUMNS)
    for (let t = 0; t < j % COLUMNS; t++) store<f32>(at(place, t), 0)
    const own = at(place, j % COLUMNS)
    store<f32>(own, load<f32>(own) + D)
  }
}

function copyRows(x: usize, stride: i32, headDim: i32, count: i32, scratch: usize): void {
  for (let j = 0; j < count; j++) {
    const from = at(x, j * stride)
    const to = at(scratch + X, j * headDim)
    let p = 0
    for (; p + 4 <= headDim; p += 4) v128.store(at(to, p), v128.load(at(from, p)))
    for (; p < headDim; p++) store<f32>(at(to, p), load<f32>(at(from, p)))
  }
}

/** x_j · dt_j · exp(l_end − l_j), in place. */
function scaleRows(headDim: i32, count: i32, scratch: usize): void {
  for (let j = 0; j < count; j++) {
    const factor = load<f32>(at(scratch + TO_END, j))
    const x = at(scratch + X, j * headDim)
    let p = 0
    for (; p + 4 <= headDim; p += 4) v128.store(at(x, p), f32x4.mul(v128.load(at(x, p)), f32x4.splat(factor)))
    for (; p < headDim; p++) store<f32>(at(x, p), load<f32>(at(x, p)) * factor)
  }
  flush(scratch + X, count * headDim)
}

/** The states of channels from p, of columns from n, at the end of the chunk. */
function addProducts(op: usize, p: i32, n: i32, isTile: bool, count: i32, state: usize, scratch: usize): void {
  const dState = word(op, SSD_D_STATE)
  const right = at(panelsOfB(op, scratch), n * SSD_CHUNK)
  const left = at(scratch + X, p)
  const leftRow: usize = isTile ? 4 : 0
  const leftStep = <usize>word(op, SSD_HEAD_DIM) << 2
  if (n + COLUMNS <= dState) {
    multiply(left, leftRow, leftStep, right, count, state, isTile ? <usize>dState << 2 : 0, scratch + DECAY)
    return
  }
  const rows = isTile ? ROWS : 1
  for (let i = 0; i < rows; i++) {
    for (let k = 0; k < dState - n; k++) store<f32>(at(scratch + TILE, i * COLUMNS + k), load<f32>(at(state, i * dState + k)))
  }
  multiply(left, leftRow, leftStep, right, count, scratch + TILE, isTile ? TILE_ROW : 0, scratch + DECAY)
  for (let i = 0; i < rows; i++) {
    for (let k = 0; k < dState - n; k++) store<f32>(at(state, i * dState + k), load<f32>(at(scratch + TILE, i * COLUMNS + k)))
  }
}

/** The tile (channel, token) to its places in rows of tokens. */
function storeTurned(op: usize, isTile: bool, count: i32, out: usize, scratch: usize): void {
  const stride = <usize>word(op, SSD_OUT_STRIDE) << 2
  if (!isTile) {
    for (let t = 0; t < count; t++) store<f32>(out + <usize>t * stride, load<f32>(at(scratch + TILE, t)))
    return
  }
  turn(scratch + TILE, scratch + TURNED)
  turn(scratch + TILE + 16, scratch + TURNED + 64)
  for (let t = 0; t < count; t++) v128.store(out + <usize>t * stride, v128.load(scratch + TURNED + (<usize>t << 4)))
}
