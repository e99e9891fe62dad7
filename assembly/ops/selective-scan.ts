/**
 * The selective scan (Mamba, section 3.3 and algorithm 2), fused: softplus of dt, discretization, recurrence, C, D and gate.
 *
 *   dt = softplus(dt + dtBias)        h = exp(dt · A) · h + dt · B · x        y = (C · h + D · x) · silu(z)
 *
 * Reads x, dt, z (nRows, dInner), A (dInner, dState), B and C (nRows, groups, dState); reads and writes the state (dInner, dState); writes out.
 * The (nRows, dInner, dState) tensors exist only in registers and, four states of a block at a time, in L1:
 *
 *   paper: HBM   here: DRAM, L2   rows of x, dt, z, B, C and out, each read or written once
 *   paper: SRAM  here: L1         one tile: dt, dt · x and y of SCAN_BLOCK tokens × LANES channels, exp(dt · A) of four states, and the tile's whole state;
 *                                 of short segments, where all tiles are whole, as many tiles as have SCAN_BLOCK vectors together, for the
 *                                 passes of softplus and silu; of a token alone exp(dt · A) of all states of a tile, the states go from the
 *                                 slot through registers and back
 *                registers        four states × LANES channels, over the block's tokens
 *
 * Threads share the tiles, SHARE channels at a time, and help each other with those of many tokens (shares.ts). y adds the states in ascending order whatever the blocking, so any split of the tokens gives the same bits.
 */

import {
  CONTROL_N_TOKENS, LANES, SCAN_A, SCAN_B, SCAN_BLOCK, SCAN_B_CHANNELS, SCAN_B_STRIDE, SCAN_C, SCAN_C_CHANNELS, SCAN_C_STRIDE, SCAN_D_INNER, SCAN_D_STATE,
  SCAN_GROUP_CHANNELS, SCAN_STATE, SEGMENT_FIRST_ROW, SEGMENT_N_ROWS, SHARE
} from '../abi'
import { at, firstOf, nSegments, pointer, scratchOf, segmentAt, slotOf, word } from '../control'
import { Exp2, stageTwo, STAGED_BYTES, VECTOR_BYTES } from '../math/elementwise'
import { exp2, exp2Power } from '../math/exp'
import { FLUSH, FLUSH_LANES } from '../math/flush'
import { multiplyAdd } from '../math/multiply-add'
import { helpEachOther, isHelped } from '../shares'
import { BLOCK_BYTES, DECAYS, discretize, finish, N_DECAYS, STATES } from './scan-blocks'
import { firstHalves, highPairs, loadState, lowPairs, secondHalves, storeState, storeTransposed } from './scan-state'

const SHARE_TILES: i32 = SHARE / LANES
/** Tokens of a segment from which on SHARE channels fill the vectors of a block. */
const LONG_SEGMENT: i32 = SCAN_BLOCK / SHARE_TILES
const FOUR_STAGED: usize = 4 * STAGED_BYTES

export function selectiveScan(control: usize, op: usize, thread: i32): void {
  const nShares = (nTilesOf(op) + SHARE_TILES - 1) / SHARE_TILES
  const first = firstOf(control, nShares, thread)
  const end = firstOf(control, nShares, thread + 1)
  // Of short segments many channels at a time are faster than help.
  const isLong = word(control, CONTROL_N_TOKENS) >= LONG_SEGMENT * nSegments(control)
  if (ASC_FEATURE_THREADS && isLong && isHelped(control, op)) helpEachOther(control, op, thread, nShares, end - first, 0, scanShares)
  else scanShares(control, op, thread, first, end, 0, end - first)
}

/** Tiles of all channels. A tile never crosses from one group of B or C into the next: the last one of a group may be narrower. */
// @ts-ignore: decorator
@inline
function nTilesOf(op: usize): i32 {
  return word(op, SCAN_D_INNER) / word(op, SCAN_GROUP_CHANNELS) * groupTilesOf(op)
}

// @ts-ignore: decorator
@inline
function groupTilesOf(op: usize): i32 {
  return (word(op, SCAN_GROUP_CHANNELS) + LANES - 1) / LANES
}

/** Steps of SHARE channels each. */
function scanShares(control: usize, op: usize, thread: i32, share: i32, _endShare: i32, from: i32, to: i32): void {
  const groupChannels = word(op, SCAN_GROUP_CHANNELS)
  const groupTiles = groupTilesOf(op)
  const first = (share + from) * SHARE_TILES
  const end = min(nTilesOf(op), (share + to) * SHARE_TILES)
  for (let i = 0; i < nSegments(control); i++) {
    const segment = segmentAt(control, i)
    const nRows = word(segment, SEGMENT_N_ROWS)
    if (nRows == 0) continue
    const slot = slotOf(control, segment) + pointer(op, SCAN_STATE)
    if (groupChannels % LANES == 0) {
      const tilesAtOnce = max(1, SCAN_BLOCK / nRows)
      for (let tile = first; tile < end; tile += tilesAtOnce) {
        scanTiles(op, segment, slot, tile, min(tilesAtOnce, end - tile), tile * LANES, LANES, scratchOf(control, thread))
      }
    } else {
      for (let tile = first; tile < end; tile++) {
        const lane = tile % groupTiles * LANES
        scanTiles(op, segment, slot, tile, 1, tile / groupTiles * groupChannels + lane, min(LANES, groupChannels - lane), scratchOf(control, thread))
      }
    }
  }
}

/** All tokens of a segment for `nTiles` neighbouring tiles of `nLanes` channels from `channel` on, block by block. */
function scanTiles(op: usize, segment: usize, slot: usize, tile: i32, nTiles: i32, channel: i32, nLanes: i32, scratch: usize): void {
  const dState = word(op, SCAN_D_STATE)
  const slotBytes = (<usize>LANES * dState) << 2
  const state = slot + ((<usize>channel * dState) << 2)
  let row = word(segment, SEGMENT_FIRST_ROW)
  if (ASC_FEATURE_SIMD && word(segment, SEGMENT_N_ROWS) == 1 && nLanes == LANES && dState % 4 == 0) {
    discretize(op, row, 1, channel, nTiles, scratch)
    for (let i = 0; i < nTiles; i++) stepTile(op, row, tile + i, channel + i * LANES, state + <usize>i * slotBytes, scratch + <usize>i * VECTOR_BYTES, scratch + DECAYS)
    finish(op, row, 1, channel, nTiles, LANES, scratch)
    return
  }
  const states = scratch + STATES
  for (let i = 0; i < nTiles; i++) loadState(state + <usize>i * slotBytes, states + <usize>i * slotBytes, dState, nLanes)
  for (const endRow = row + word(segment, SEGMENT_N_ROWS); row < endRow; row += SCAN_BLOCK) {
    const count = min(SCAN_BLOCK, endRow - row)
    discretize(op, row, count, channel, nTiles, scratch)
    for (let i = 0; i < nTiles; i++) {
      recur(op, row, count, tile + i, nTiles, channel + i * LANES, scratch + <usize>i * VECTOR_BYTES, scratch + DECAYS, states + <usize>i * slotBytes)
    }
    finish(op, row, count, channel, nTiles, nLanes, scratch)
  }
  for (let i = 0; i < nTiles; i++) storeState(state + <usize>i * slotBytes, states + <usize>i * slotBytes, dState, nLanes)
}

/** h and y of a whole tile for one token: the state goes from the slot through registers and back. */
function stepTile(op: usize, row: i32, tile: i32, channel: i32, state: usize, vector: usize, decays: usize): void {
  const dState = word(op, SCAN_D_STATE)
  let A = pointer(op, SCAN_A) + <usize>tile * dState * VECTOR_BYTES
  let B = at(pointer(op, SCAN_B), row * word(op, SCAN_B_STRIDE) + channel / word(op, SCAN_B_CHANNELS) * dState)
  let C = at(pointer(op, SCAN_C), row * word(op, SCAN_C_STRIDE) + channel / word(op, SCAN_C_CHANNELS) * dState)
  const dt = v128.load(vector)
  const dtx = v128.load(vector + BLOCK_BYTES)
  let y = f32x4.splat(0)
  const rowBytes = <usize>dState << 2
  for (let n = 0; n < dState; n += N_DECAYS) {
    const count = min(N_DECAYS, dState - n)
    const endDecays = decays + <usize>count * STAGED_BYTES
    for (let decay = decays; decay < endDecays; decay += FOUR_STAGED, A += 4 * VECTOR_BYTES) stageFour(dt, v128.load(A), v128.load(A, 16), v128.load(A, 32), v128.load(A, 48), decay)
    powersOf(decays, endDecays)
    for (let decay = decays; decay < endDecays; decay += FOUR_STAGED) {
      const a = v128.load(state)
      const b = v128.load(state + rowBytes)
      const c = v128.load(state + 2 * rowBytes)
      const d = v128.load(state + 3 * rowBytes)
      const abLow = lowPairs(a, b)
      const cdLow = lowPairs(c, d)
      const abHigh = highPairs(a, b)
      const cdHigh = highPairs(c, d)
      const h0 = step(firstHalves(abLow, cdLow), v128.load(decay), dtx, v128.load32_splat(B))
      y = multiplyAdd(h0, v128.load32_splat(C), y)
      const h1 = step(secondHalves(abLow, cdLow), v128.load(decay, STAGED_BYTES), dtx, v128.load32_splat(B, 4))
      y = multiplyAdd(h1, v128.load32_splat(C, 4), y)
      const h2 = step(firstHalves(abHigh, cdHigh), v128.load(decay, 2 * STAGED_BYTES), dtx, v128.load32_splat(B, 8))
      y = multiplyAdd(h2, v128.load32_splat(C, 8), y)
      const h3 = step(secondHalves(abHigh, cdHigh), v128.load(decay, 3 * STAGED_BYTES), dtx, v128.load32_splat(B, 12))
      y = multiplyAdd(h3, v128.load32_splat(C, 12), y)
      storeTransposed(h0, h1, h2, h3, state, rowBytes)
      state += VECTOR_BYTES
      B += 16
      C += 16
    }
  }
  v128.store(vector + 2 * BLOCK_BYTES, y)
}

/** The first pass of exp(dt · A) of four states. */
// @ts-ignore: decorator
@inline
function stageFour(dt: v128, A0: v128, A1: v128, A2: v128, A3: v128, decays: usize): void {
  stageTwo<Exp2>(f32x4.mul(dt, A0), f32x4.mul(dt, A1), decays)
  stageTwo<Exp2>(f32x4.mul(dt, A2), f32x4.mul(dt, A3), decays + 2 * STAGED_BYTES)
}

/** The second one, each where it was staged; an even number of them. */
// @ts-ignore: decorator
@inline
function powersOf(decay: usize, end: usize): void {
  for (; decay < end; decay += 2 * STAGED_BYTES) {
    const first = exp2Power(v128.load(decay), v128.load(decay, VECTOR_BYTES))
    const second = exp2Power(v128.load(decay, STAGED_BYTES), v128.load(decay, STAGED_BYTES + VECTOR_BYTES))
    v128.store(decay, first)
    v128.store(decay, second, STAGED_BYTES)
  }
}

/** h and y of a tile over a block, all its states. The vectors of its tokens lie `nTiles` apart. */
function recur(op: usize, row: i32, count: i32, tile: i32, nTiles: i32, channel: i32, vectors: usize, decays: usize, state: usize): void {
  const dState = word(op, SCAN_D_STATE)
  const A = pointer(op, SCAN_A) + <usize>tile * dState * VECTOR_BYTES
  const BStride = word(op, SCAN_B_STRIDE)
  const CStride = word(op, SCAN_C_STRIDE)
  const B = at(pointer(op, SCAN_B), row * BStride + channel / word(op, SCAN_B_CHANNELS) * dState)
  const C = at(pointer(op, SCAN_C), row * CStride + channel / word(op, SCAN_C_CHANNELS) * dState)
  const rowBytes = <usize>nTiles * VECTOR_BYTES
  const end = vectors + <usize>count * rowBytes
  let n = 0
  if (ASC_FEATURE_SIMD) {
    for (; n + 4 <= dState; n += 4) fourStates(vectors, end, rowBytes, decays, at(A, n * LANES), at(B, n), at(C, n), BStride, CStride, at(state, n * LANES))
  }
  for (; n < dState; n++) oneState(vectors, end, rowBytes, at(A, n * LANES), at(B, n), at(C, n), BStride, CStride, at(state, n * LANES))
}

/** One step of one state of LANES channels. */
// @ts-ignore: decorator
@inline
function step(h: v128, decay: v128, dtx: v128, B: v128): v128 {
  const flush = v128.load(FLUSH_LANES)
  return f32x4.sub(f32x4.add(multiplyAdd(dtx, B, f32x4.mul(decay, h)), flush), flush)
}

/** h and y over a block, for four states: first all of exp(dt · A), then what waits for the token before. */
function fourStates(vectors: usize, end: usize, rowBytes: usize, decays: usize, A: usize, B: usize, C: usize, BStride: i32, CStride: i32, state: usize): void {
  const A0 = v128.load(A)
  const A1 = v128.load(A, 16)
  const A2 = v128.load(A, 32)
  const A3 = v128.load(A, 48)
  let decay = decays
  for (let vector = vectors; vector < end; vector += rowBytes, decay += FOUR_STAGED) stageFour(v128.load(vector), A0, A1, A2, A3, decay)
  powersOf(decays, decay)
  let h0 = v128.load(state)
  let h1 = v128.load(state, 16)
  let h2 = v128.load(state, 32)
  let h3 = v128.load(state, 48)
  decay = decays
  for (let vector = vectors; vector < end; vector += rowBytes, decay += FOUR_STAGED) {
    const dtx = v128.load(vector, BLOCK_BYTES)
    let y = v128.load(vector, 2 * BLOCK_BYTES)
    h0 = step(h0, v128.load(decay), dtx, v128.load32_splat(B))
    y = multiplyAdd(h0, v128.load32_splat(C), y)
    h1 = step(h1, v128.load(decay, STAGED_BYTES), dtx, v128.load32_splat(B, 4))
    y = multiplyAdd(h1, v128.load32_splat(C, 4), y)
    h2 = step(h2, v128.load(decay, 2 * STAGED_BYTES), dtx, v128.load32_splat(B, 8))
    y = multiplyAdd(h2, v128.load32_splat(C, 8), y)
    h3 = step(h3, v128.load(decay, 3 * STAGED_BYTES), dtx, v128.load32_splat(B, 12))
    y = multiplyAdd(h3, v128.load32_splat(C, 12), y)
    v128.store(vector, y, 2 * BLOCK_BYTES)
    B = at(B, BStride)
    C = at(C, CStride)
  }
  v128.store(state, h0)
  v128.store(state, h1, 16)
  v128.store(state, h2, 32)
  v128.store(state, h3, 48)
}

/** The same for one state: the scalar form, and the tail where dState is no multiple of four. */
function oneState(vectors: usize, end: usize, rowBytes: usize, A: usize, B: usize, C: usize, BStride: i32, CStride: i32, state: usize): void {
  for (let lane = 0; lane < LANES; lane++) {
    const log2Decay = load<f32>(at(A, lane))
    let h = load<f32>(at(state, lane))
    let BLane = B
    let CLane = C
    for (let vector = at(vectors, lane); vector < end; vector += rowBytes, BLane = at(BLane, BStride), CLane = at(CLane, CStride)) {
      h = exp2(load<f32>(vector) * log2Decay) * h + load<f32>(vector, BLOCK_BYTES) * load<f32>(BLane) + FLUSH - FLUSH
      store<f32>(vector, load<f32>(vector, 2 * BLOCK_BYTES) + h * load<f32>(CLane), 2 * BLOCK_BYTES)
    }
    store<f32>(at(state, lane), h)
  }
}
