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
 *                                 of short segments as many tiles as have SCAN_BLOCK vectors together: their chains of softplus, exp and
 *                                 silu overlap; a token alone takes its state from the slot through registers and back
 *                registers        four states × LANES channels, over the block's tokens
 *
 * Threads share the tiles, SHARE channels at a time. y adds the states in ascending order whatever the blocking, so any split of the tokens gives the same bits.
 */

import {
  LANES, SCAN_A, SCAN_B, SCAN_BLOCK, SCAN_B_CHANNELS, SCAN_B_STRIDE, SCAN_C, SCAN_C_CHANNELS, SCAN_C_STRIDE, SCAN_D_INNER, SCAN_D_STATE,
  SCAN_GROUP_CHANNELS, SCAN_STATE, SEGMENT_FIRST_ROW, SEGMENT_N_ROWS, SHARE
} from '../abi'
import { at, firstOf, nSegments, pointer, scratchOf, segmentAt, slotOf, word } from '../control'
import { exp2 } from '../math/exp'
import { exp2FourLanes } from '../math/exp-four'
import { FLUSH, FLUSH_LANES } from '../math/flush'
import { multiplyAdd } from '../math/multiply-add'
import { BLOCK_BYTES, channelOf, DECAYS, discretize, finish, STATES, tileLanes, tilesOf, VECTOR_BYTES } from './scan-blocks'
import { firstHalves, highPairs, loadState, lowPairs, secondHalves, storeState, storeTransposed } from './scan-state'

export function selectiveScan(control: usize, op: usize, thread: i32): void {
  const groupChannels = word(op, SCAN_GROUP_CHANNELS)
  const nTiles = word(op, SCAN_D_INNER) / groupChannels * tilesOf(groupChannels)
  const shareTiles = SHARE / LANES
  const nShares = (nTiles + shareTiles - 1) / shareTiles
  const first = firstOf(control, nShares, thread) * shareTiles
  const end = min(nTiles, firstOf(control, nShares, thread + 1) * shareTiles)
  for (let i = 0; i < nSegments(control); i++) {
    const segment = segmentAt(control, i)
    const nRows = word(segment, SEGMENT_N_ROWS)
    if (nRows == 0) continue
    const tilesAtOnce = max(1, SCAN_BLOCK / nRows)
    for (let tile = first; tile < end; tile += tilesAtOnce) {
      scanTiles(op, segment, slotOf(control, segment) + pointer(op, SCAN_STATE), tile, min(end, tile + tilesAtOnce), scratchOf(control, thread))
    }
  }
}

/** All tokens of a segment for tiles [first, end), block by block. */
function scanTiles(op: usize, segment: usize, slot: usize, first: i32, end: i32, scratch: usize): void {
  if (ASC_FEATURE_SIMD && word(segment, SEGMENT_N_ROWS) == 1 && isWhole(op)) return scanToken(op, word(segment, SEGMENT_FIRST_ROW), slot, first, end, scratch)
  const dState = word(op, SCAN_D_STATE)
  const stateBytes = <usize>dState * VECTOR_BYTES
  const states = scratch + STATES
  const endRow = word(segment, SEGMENT_FIRST_ROW) + word(segment, SEGMENT_N_ROWS)
  for (let tile = first; tile < end; tile++) {
    loadState(slot + ((<usize>channelOf(op, tile) * dState) << 2), states + <usize>(tile - first) * stateBytes, dState, tileLanes(op, tile))
  }
  for (let row = word(segment, SEGMENT_FIRST_ROW); row < endRow; row += SCAN_BLOCK) {
    const count = min(SCAN_BLOCK, endRow - row)
    const tileBytes = <usize>count * VECTOR_BYTES
    discretize(op, row, first, end, count, scratch)
    for (let tile = first; tile < end; tile++) {
      recur(op, row, tile, count, scratch + <usize>(tile - first) * tileBytes, states + <usize>(tile - first) * stateBytes)
    }
    finish(op, row, first, end, count, scratch)
  }
  for (let tile = first; tile < end; tile++) {
    storeState(slot + ((<usize>channelOf(op, tile) * dState) << 2), states + <usize>(tile - first) * stateBytes, dState, tileLanes(op, tile))
  }
}

/** Whether all tiles have LANES channels and their states are whole vectors. */
function isWhole(op: usize): bool {
  return word(op, SCAN_GROUP_CHANNELS) % LANES == 0 && word(op, SCAN_D_STATE) % 4 == 0
}

/** One token for whole tiles [first, end): the state goes from the slot through registers and back. */
function scanToken(op: usize, row: i32, slot: usize, first: i32, end: i32, scratch: usize): void {
  discretize(op, row, first, end, 1, scratch)
  for (let tile = first; tile < end; tile++) stepTile(op, row, tile, slot, scratch + <usize>(tile - first) * VECTOR_BYTES, scratch + DECAYS)
  finish(op, row, first, end, 1, scratch)
}

/** h and y of a whole tile for one token. */
function stepTile(op: usize, row: i32, tile: i32, slot: usize, vector: usize, decays: usize): void {
  const dState = word(op, SCAN_D_STATE)
  const channel = channelOf(op, tile)
  let A = pointer(op, SCAN_A) + <usize>tile * dState * VECTOR_BYTES
  let B = at(pointer(op, SCAN_B), row * word(op, SCAN_B_STRIDE) + channel / word(op, SCAN_B_CHANNELS) * dState)
  let C = at(pointer(op, SCAN_C), row * word(op, SCAN_C_STRIDE) + channel / word(op, SCAN_C_CHANNELS) * dState)
  const dt = v128.load(vector)
  const dtx = v128.load(vector + BLOCK_BYTES)
  let y = f32x4.splat(0)
  const rowBytes = <usize>dState << 2
  let state = slot + (<usize>channel * rowBytes)
  for (const stop = state + rowBytes; state < stop; state += VECTOR_BYTES) {
    exp2FourLanes(f32x4.mul(dt, v128.load(A)), f32x4.mul(dt, v128.load(A, 16)), f32x4.mul(dt, v128.load(A, 32)), f32x4.mul(dt, v128.load(A, 48)), decays)
    const a = v128.load(state)
    const b = v128.load(state + rowBytes)
    const c = v128.load(state + 2 * rowBytes)
    const d = v128.load(state + 3 * rowBytes)
    const abLow = lowPairs(a, b)
    const cdLow = lowPairs(c, d)
    const abHigh = highPairs(a, b)
    const cdHigh = highPairs(c, d)
    const h0 = step(firstHalves(abLow, cdLow), v128.load(decays), dtx, B)
    y = multiplyAdd(h0, v128.load32_splat(C), y)
    const h1 = step(secondHalves(abLow, cdLow), v128.load(decays, 16), dtx, B + 4)
    y = multiplyAdd(h1, v128.load32_splat(C, 4), y)
    const h2 = step(firstHalves(abHigh, cdHigh), v128.load(decays, 32), dtx, B + 8)
    y = multiplyAdd(h2, v128.load32_splat(C, 8), y)
    const h3 = step(secondHalves(abHigh, cdHigh), v128.load(decays, 48), dtx, B + 12)
    y = multiplyAdd(h3, v128.load32_splat(C, 12), y)
    storeTransposed(h0, h1, h2, h3, state, rowBytes)
    A += 4 * VECTOR_BYTES
    B += 16
    C += 16
  }
  v128.store(vector + 2 * BLOCK_BYTES, y)
}

/** h and y of a tile over a block, all its states. */
function recur(op: usize, row: i32, tile: i32, count: i32, scratch: usize, state: usize): void {
  const dState = word(op, SCAN_D_STATE)
  const channel = channelOf(op, tile)
  const A = pointer(op, SCAN_A) + <usize>tile * dState * VECTOR_BYTES
  const BStride = word(op, SCAN_B_STRIDE)
  const CStride = word(op, SCAN_C_STRIDE)
  const B = at(pointer(op, SCAN_B), row * BStride + channel / word(op, SCAN_B_CHANNELS) * dState)
  const C = at(pointer(op, SCAN_C), row * CStride + channel / word(op, SCAN_C_CHANNELS) * dState)
  let n = 0
  if (ASC_FEATURE_SIMD) {
    for (; n + 4 <= dState; n += 4) fourStates(scratch, count, A, at(B, n), at(C, n), BStride, CStride, state, n)
  }
  for (; n < dState; n++) oneState(scratch, count, A, at(B, n), at(C, n), BStride, CStride, state, n)
}

/** One step of one state of LANES channels. */
// @ts-ignore: decorator
@inline
function step(h: v128, decay: v128, dtx: v128, B: usize): v128 {
  const flush = v128.load(FLUSH_LANES)
  return f32x4.sub(f32x4.add(multiplyAdd(dtx, v128.load32_splat(B), f32x4.mul(decay, h)), flush), flush)
}

/** h and y over a block, for states n to n + 3: first all of exp(dt · A), then what waits for the token before. */
function fourStates(scratch: usize, count: i32, A: usize, B: usize, C: usize, BStride: i32, CStride: i32, state: usize, n: i32): void {
  const tile = A + <usize>n * VECTOR_BYTES
  const A0 = v128.load(tile)
  const A1 = v128.load(tile, 16)
  const A2 = v128.load(tile, 32)
  const A3 = v128.load(tile, 48)
  const end = scratch + <usize>count * VECTOR_BYTES
  let decays = scratch + DECAYS
  for (let vector = scratch; vector < end; vector += VECTOR_BYTES) {
    const dt = v128.load(vector)
    exp2FourLanes(f32x4.mul(dt, A0), f32x4.mul(dt, A1), f32x4.mul(dt, A2), f32x4.mul(dt, A3), decays)
    decays += 4 * VECTOR_BYTES
  }
  const states = state + <usize>n * VECTOR_BYTES
  let h0 = v128.load(states)
  let h1 = v128.load(states, 16)
  let h2 = v128.load(states, 32)
  let h3 = v128.load(states, 48)
  decays = scratch + DECAYS
  for (let vector = scratch; vector < end; vector += VECTOR_BYTES) {
    const dtx = v128.load(vector + BLOCK_BYTES)
    let y = v128.load(vector + 2 * BLOCK_BYTES)
    h0 = step(h0, v128.load(decays), dtx, B)
    y = multiplyAdd(h0, v128.load32_splat(C), y)
    h1 = step(h1, v128.load(decays, 16), dtx, B + 4)
    y = multiplyAdd(h1, v128.load32_splat(C + 4), y)
    h2 = step(h2, v128.load(decays, 32), dtx, B + 8)
    y = multiplyAdd(h2, v128.load32_splat(C + 8), y)
    h3 = step(h3, v128.load(decays, 48), dtx, B + 12)
    y = multiplyAdd(h3, v128.load32_splat(C + 12), y)
    v128.store(vector + 2 * BLOCK_BYTES, y)
    decays += 4 * VECTOR_BYTES
    B = at(B, BStride)
    C = at(C, CStride)
  }
  v128.store(states, h0)
  v128.store(states, h1, 16)
  v128.store(states, h2, 32)
  v128.store(states, h3, 48)
}

/** The same for state n alone: the scalar form, and the tail where dState is no multiple of four. */
function oneState(scratch: usize, count: i32, A: usize, B: usize, C: usize, BStride: i32, CStride: i32, state: usize, n: i32): void {
  for (let lane = 0; lane < LANES; lane++) {
    const log2Decay = load<f32>(at(A, n * LANES + lane))
    let h = load<f32>(at(state, n * LANES + lane))
    for (let t = 0; t < count; t++) {
      const vector = at(scratch, t * LANES + lane)
      const y = vector + 2 * BLOCK_BYTES
      const dt = load<f32>(vector)
      const dtx = load<f32>(vector + BLOCK_BYTES)
      h = exp2(dt * log2Decay) * h + dtx * load<f32>(at(B, t * BStride)) + FLUSH - FLUSH
      store<f32>(y, load<f32>(y) + h * load<f32>(at(C, t * CStride)))
    }
    store<f32>(at(state, n * LANES + lane), h)
  }
}
