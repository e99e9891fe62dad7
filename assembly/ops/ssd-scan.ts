/**
 * The state space of Mamba-2 (Dao & Gu, section 6), fused: softplus and limits of dt, decay, recurrence, C and D.
 *
 *   dt = clamp(softplus(dt + dtBias))     h = exp(dt · A) · h + dt · x ⊗ B     y = h · C + D · x     for each head
 *
 * Reads x (nRows, nHeads · headDim), dt (nRows, nHeads), A, D, dtBias (nHeads), B and C (nRows, nGroups · dState); reads and writes the state
 * (nHeads, headDim, dState), in place; writes out, exactly its width. The lanes of a vector are neighbouring states, as they lie in the slot,
 * so that a single token streams its state once, without a copy.
 *
 *   paper: HBM   here: DRAM, L2   the state, read and written once a block; rows of x, dt, B, C and out
 *   paper: SRAM  here: L1         the states of CHANNELS channels, and B and C of SSD_BLOCK tokens: they serve all channels of a head
 *                registers        dt · x, decay and the partial sums of y of CHANNELS channels, which share each load of B and C
 *
 * Threads share the heads. y is LANES partial sums, state n in sum n mod LANES, n ascending, added up pairwise in a fixed order: the same bits
 * in both builds, and for any split of the tokens.
 */

import {
  LANES, SEGMENT_FIRST_ROW, SEGMENT_N_ROWS, SSD_A, SSD_B, SSD_BLOCK, SSD_B_STRIDE, SSD_C, SSD_C_STRIDE, SSD_D, SSD_DT, SSD_DT_BIAS, SSD_DT_MAX,
  SSD_DT_MIN, SSD_DT_STRIDE, SSD_D_STATE, SSD_GROUP_HEADS, SSD_HEAD_DIM, SSD_N_HEADS, SSD_OUT, SSD_OUT_STRIDE, SSD_STATE, SSD_X, SSD_X_STRIDE
} from '../abi'
import { at, firstOf, nSegments, pointer, scratchOf, segmentAt, slotOf, word } from '../control'
import { exp, softplus } from '../math/exp'
import { FLUSH, FLUSH_LANES } from '../math/flush'
import { multiplyAdd } from '../math/multiply-add'

/** Channels that the SIMD form takes at a time. */
const CHANNELS: i32 = 4
const BLOCK_BYTES: usize = <usize>SSD_BLOCK << 2

/** Scratch of a thread: [ dt of a block | decay of a block | LANES partial sums ]. */
export function ssdScan(control: usize, op: usize, thread: i32): void {
  const nHeads = word(op, SSD_N_HEADS)
  const headBytes = <usize>(word(op, SSD_HEAD_DIM) * word(op, SSD_D_STATE)) << 2
  const scratch = scratchOf(control, thread)
  const end = firstOf(control, nHeads, thread + 1)
  for (let i = 0; i < nSegments(control); i++) {
    const segment = segmentAt(control, i)
    const states = slotOf(control, segment) + pointer(op, SSD_STATE)
    const first = word(segment, SEGMENT_FIRST_ROW)
    for (let head = firstOf(control, nHeads, thread); head < end; head++) {
      scanHead(op, first, first + word(segment, SEGMENT_N_ROWS), head, states + <usize>head * headBytes, scratch)
    }
  }
}

/** The rows [first, end) of a sequence for one head, block by block. */
export function scanHead(op: usize, first: i32, end: i32, head: i32, state: usize, scratch: usize): void {
  const headDim = word(op, SSD_HEAD_DIM)
  const dState = word(op, SSD_D_STATE)
  for (let row = first; row < end; row += SSD_BLOCK) {
    const count = min(SSD_BLOCK, end - row)
    discretize(op, row, head, count, scratch)
    let p = 0
    if (ASC_FEATURE_SIMD && dState % LANES == 0) {
      for (; p + CHANNELS <= headDim; p += CHANNELS) fourChannels(op, row, head, p, count, at(state, p * dState), scratch)
    }
    for (; p < headDim; p++) oneChannel(op, row, head, p, count, at(state, p * dState), scratch)
  }
}

/** dt and exp(dt · A) of a block: one of each for a whole head, so lanes would gain nothing. */
function discretize(op: usize, row: i32, head: i32, count: i32, scratch: usize): void {
  const A = load<f32>(at(pointer(op, SSD_A), head))
  for (let t = 0; t < count; t++) {
    const dt = timeStep(op, row + t, head)
    store<f32>(at(scratch, t), dt)
    store<f32>(at(scratch, t) + BLOCK_BYTES, exp(dt * A))
  }
}

/** dt of a head at a row: clamp(softplus(dt + dtBias)). */
// @ts-ignore: decorator
@inline
export function timeStep(op: usize, row: i32, head: i32): f32 {
  const bias = pointer(op, SSD_DT_BIAS)
  let dt = load<f32>(at(pointer(op, SSD_DT), row * word(op, SSD_DT_STRIDE) + head))
  if (bias) dt = dt + load<f32>(at(bias, head))
  return min<f32>(max<f32>(softplus(dt), load<f32>(at(op, SSD_DT_MIN))), load<f32>(at(op, SSD_DT_MAX)))
}

/** One step of LANES states of one channel. */
// @ts-ignore: decorator
@inline
function step(h: v128, decay: v128, dtx: v128, B: v128): v128 {
  const flush = v128.load(FLUSH_LANES)
  return f32x4.sub(f32x4.add(multiplyAdd(dtx, B, f32x4.mul(decay, h)), flush), flush)
}

/** Channels p to p + 3 of a head over a block. */
function fourChannels(op: usize, row: i32, head: i32, p: i32, count: i32, state: usize, scratch: usize): void {
  const stateBytes = <usize>word(op, SSD_D_STATE) << 2
  const group = head / word(op, SSD_GROUP_HEADS)
  const channel = head * word(op, SSD_HEAD_DIM) + p
  const D = pointer(op, SSD_D)
  let x = at(pointer(op, SSD_X), row * word(op, SSD_X_STRIDE) + channel)
  let B = at(pointer(op, SSD_B), row * word(op, SSD_B_STRIDE)) + <usize>group * stateBytes
  let C = at(pointer(op, SSD_C), row * word(op, SSD_C_STRIDE)) + <usize>group * stateBytes
  let out = at(pointer(op, SSD_OUT), row * word(op, SSD_OUT_STRIDE) + channel)
  for (let t = 0; t < count; t++) {
    const inputs = v128.load(x)
    const decay = v128.load32_splat(at(scratch, t) + BLOCK_BYTES)
    const dtx = f32x4.mul(v128.load32_splat(at(scratch, t)), inputs)
    const dtx0 = v128.shuffle<f32>(dtx, dtx, 0, 0, 0, 0)
    const dtx1 = v128.shuffle<f32>(dtx, dtx, 1, 1, 1, 1)
    const dtx2 = v128.shuffle<f32>(dtx, dtx, 2, 2, 2, 2)
    const dtx3 = v128.shuffle<f32>(dtx, dtx, 3, 3, 3, 3)
    let y0 = f32x4.splat(0)
    let y1 = f32x4.splat(0)
    let y2 = f32x4.splat(0)
    let y3 = f32x4.splat(0)
    const state1 = state + stateBytes
    const state2 = state1 + stateBytes
    const state3 = state2 + stateBytes
    for (let n: usize = 0; n < stateBytes; n += 16) {
      const BLanes = v128.load(B + n)
      const CLanes = v128.load(C + n)
      const h0 = step(v128.load(state + n), decay, dtx0, BLanes)
      v128.store(state + n, h0)
      y0 = multiplyAdd(h0, CLanes, y0)
      const h1 = step(v128.load(state1 + n), decay, dtx1, BLanes)
      v128.store(state1 + n, h1)
      y1 = multiplyAdd(h1, CLanes, y1)
      const h2 = step(v128.load(state2 + n), decay, dtx2, BLanes)
      v128.store(state2 + n, h2)
      y2 = multiplyAdd(h2, CLanes, y2)
      const h3 = step(v128.load(state3 + n), decay, dtx3, BLanes)
      v128.store(state3 + n, h3)
      y3 = multiplyAdd(h3, CLanes, y3)
    }
    let y = sumOfLanes(y0, y1, y2, y3)
    if (D) y = f32x4.add(y, f32x4.mul(v128.load32_splat(at(D, head)), inputs))
    v128.store(out, y)
    x = at(x, word(op, SSD_X_STRIDE))
    B = at(B, word(op, SSD_B_STRIDE))
    C = at(C, word(op, SSD_C_STRIDE))
    out = at(out, word(op, SSD_OUT_STRIDE))
  }
}

/** The sums of the lanes of four vectors, each (0 + 1) + (2 + 3). */
// @ts-ignore: decorator
@inline
function sumOfLanes(a: v128, b: v128, c: v128, d: v128): v128 {
  const abLow = v128.shuffle<f32>(a, b, 0, 4, 1, 5)
  const abHigh = v128.shuffle<f32>(a, b, 2, 6, 3, 7)
  const cdLow = v128.shuffle<f32>(c, d, 0, 4, 1, 5)
  const cdHigh = v128.shuffle<f32>(c, d, 2, 6, 3, 7)
  const low = f32x4.add(v128.shuffle<f32>(abLow, cdLow, 0, 1, 4, 5), v128.shuffle<f32>(abLow, cdLow, 2, 3, 6, 7))
  const high = f32x4.add(v128.shuffle<f32>(abHigh, cdHigh, 0, 1, 4, 5), v128.shuffle<f32>(abHigh, cdHigh, 2, 3, 6, 7))
  return f32x4.add(low, high)
}

/** The same for channel p alone: the scalar form, and where headDim or dState is no multiple of four. */
function oneChannel(op: usize, row: i32, head: i32, p: i32, count: i32, state: usize, scratch: usize): void {
  const dState = word(op, SSD_D_STATE)
  const first = head / word(op, SSD_GROUP_HEADS) * dState
  const channel = head * word(op, SSD_HEAD_DIM) + p
  const D = pointer(op, SSD_D)
  const partials = scratch + 2 * BLOCK_BYTES
  for (let t = 0; t < count; t++) {
    const x = load<f32>(at(pointer(op, SSD_X), (row + t) * word(op, SSD_X_STRIDE) + channel))
    const B = at(pointer(op, SSD_B), (row + t) * word(op, SSD_B_STRIDE) + first)
    const C = at(pointer(op, SSD_C), (row + t) * word(op, SSD_C_STRIDE) + first)
    const dtx = load<f32>(at(scratch, t)) * x
    const decay = load<f32>(at(scratch, t) + BLOCK_BYTES)
    memory.fill(partials, 0, LANES << 2)
    for (let n = 0; n < dState; n++) {
      const h = decay * load<f32>(at(state, n)) + dtx * load<f32>(at(B, n)) + FLUSH - FLUSH
      store<f32>(at(state, n), h)
      const partial = at(partials, n % LANES)
      store<f32>(partial, load<f32>(partial) + h * load<f32>(at(C, n)))
    }
    let y = load<f32>(partials) + load<f32>(partials, 4) + (load<f32>(partials, 8) + load<f32>(partials, 12))
    if (D) y = y + load<f32>(at(D, head)) * x
    store<f32>(at(pointer(op, SSD_OUT), (row + t) * word(op, SSD_OUT_STRIDE) + channel), y)
  }
}
