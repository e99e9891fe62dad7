/**
 * The scan's blocks of tokens: where they lie, and what is done to them before the recurrence (dt, dt · x) and after it (D and the gate).
 * Scratch of a thread: [ dt | dt · x | y, SCAN_BLOCK vectors of LANES channels each | exp(dt · A), four times as many | states (tiles, dState, LANES) ].
 */

import {
  LANES, SCAN_BLOCK, SCAN_D, SCAN_DT, SCAN_DT_BIAS, SCAN_DT_SOFTPLUS, SCAN_DT_STRIDE, SCAN_GROUP_CHANNELS, SCAN_OUT, SCAN_OUT_STRIDE, SCAN_X, SCAN_X_STRIDE,
  SCAN_Z, SCAN_Z_STRIDE
} from '../abi'
import { at, pointer, word } from '../control'
import { mapVectors, Silu, Softplus } from '../math/exp-four'
import { FLUSH, FLUSH_LANES } from '../math/flush'

export const VECTOR_BYTES: usize = 16
export const BLOCK_BYTES: usize = <usize>SCAN_BLOCK * VECTOR_BYTES
/** exp(dt · A) of four states of a block, one tile after the other. */
export const DECAYS: usize = 3 * BLOCK_BYTES
/** silu(z) takes its place when the recurrence is done. */
const GATES: usize = DECAYS
export const STATES: usize = DECAYS + 4 * BLOCK_BYTES

/** A tile never crosses from one group of B or C into the next: the last one of a group may be narrower. */
// @ts-ignore: decorator
@inline
export function tilesOf(groupChannels: i32): i32 {
  return (groupChannels + LANES - 1) / LANES
}

/** First channel of a tile. */
export function channelOf(op: usize, tile: i32): i32 {
  const groupChannels = word(op, SCAN_GROUP_CHANNELS)
  const groupTiles = tilesOf(groupChannels)
  return tile / groupTiles * groupChannels + tile % groupTiles * LANES
}

/** Channels of a tile. */
export function tileLanes(op: usize, tile: i32): i32 {
  const groupChannels = word(op, SCAN_GROUP_CHANNELS)
  return min(LANES, groupChannels - tile % tilesOf(groupChannels) * LANES)
}

/** dt and dt · x of `count` tokens of tiles [first, end); y = 0. */
export function discretize(op: usize, row: i32, first: i32, end: i32, count: i32, scratch: usize): void {
  const tileBytes = <usize>count * VECTOR_BYTES
  const stop = scratch + <usize>(end - first) * tileBytes
  for (let tile = first, vectors = scratch; tile < end; tile++, vectors += tileBytes) biasedSteps(op, row, channelOf(op, tile), count, vectors)
  if (word(op, SCAN_DT_SOFTPLUS)) mapVectors<Softplus>(scratch, stop, scratch)
  for (let tile = first, vectors = scratch; tile < end; tile++, vectors += tileBytes) scaleInputs(op, row, channelOf(op, tile), count, vectors)
}

/** dt + dtBias of a tile. */
function biasedSteps(op: usize, row: i32, channel: i32, count: i32, vectors: usize): void {
  const bias = pointer(op, SCAN_DT_BIAS) ? at(pointer(op, SCAN_DT_BIAS), channel) : 0
  const stride = word(op, SCAN_DT_STRIDE)
  let dt = at(pointer(op, SCAN_DT), row * stride + channel)
  for (const stop = vectors + <usize>count * VECTOR_BYTES; vectors < stop; vectors += VECTOR_BYTES) {
    if (ASC_FEATURE_SIMD) {
      v128.store(vectors, bias ? f32x4.add(v128.load(dt), v128.load(bias)) : v128.load(dt))
    } else {
      for (let lane = 0; lane < LANES; lane++) store<f32>(at(vectors, lane), bias ? load<f32>(at(dt, lane)) + load<f32>(at(bias, lane)) : load<f32>(at(dt, lane)))
    }
    dt = at(dt, stride)
  }
}

/** dt · x of a tile; y = 0. */
function scaleInputs(op: usize, row: i32, channel: i32, count: i32, vectors: usize): void {
  const stride = word(op, SCAN_X_STRIDE)
  let x = at(pointer(op, SCAN_X), row * stride + channel)
  for (const stop = vectors + <usize>count * VECTOR_BYTES; vectors < stop; vectors += VECTOR_BYTES) {
    if (ASC_FEATURE_SIMD) {
      const flush = v128.load(FLUSH_LANES)
      v128.store(vectors + BLOCK_BYTES, f32x4.sub(f32x4.add(f32x4.mul(v128.load(vectors), v128.load(x)), flush), flush))
      v128.store(vectors + 2 * BLOCK_BYTES, f32x4.splat(0))
    } else {
      for (let lane = 0; lane < LANES; lane++) {
        store<f32>(at(vectors + BLOCK_BYTES, lane), load<f32>(at(vectors, lane)) * load<f32>(at(x, lane)) + FLUSH - FLUSH)
        store<f32>(at(vectors + 2 * BLOCK_BYTES, lane), 0)
      }
    }
    x = at(x, stride)
  }
}

/** out = (y + D · x) · silu(z) for `count` tokens of tiles [first, end). */
export function finish(op: usize, row: i32, first: i32, end: i32, count: i32, scratch: usize): void {
  const tileBytes = <usize>count * VECTOR_BYTES
  if (pointer(op, SCAN_Z)) {
    const gates = scratch + GATES
    for (let tile = first, vectors = gates; tile < end; tile++, vectors += tileBytes) copyGates(op, row, tile, count, vectors)
    mapVectors<Silu>(gates, gates + <usize>(end - first) * tileBytes, gates)
  }
  for (let tile = first, vectors = scratch; tile < end; tile++, vectors += tileBytes) finishTile(op, row, tile, count, vectors)
}

/** z of a tile, no more than its lanes of it. */
function copyGates(op: usize, row: i32, tile: i32, count: i32, vectors: usize): void {
  const nLanes = tileLanes(op, tile)
  const stride = word(op, SCAN_Z_STRIDE)
  let z = at(pointer(op, SCAN_Z), row * stride + channelOf(op, tile))
  for (const stop = vectors + <usize>count * VECTOR_BYTES; vectors < stop; vectors += VECTOR_BYTES) {
    if (ASC_FEATURE_SIMD && nLanes == LANES) {
      v128.store(vectors, v128.load(z))
    } else {
      for (let lane = 0; lane < LANES; lane++) store<f32>(at(vectors, lane), lane < nLanes ? load<f32>(at(z, lane)) : 0)
    }
    z = at(z, stride)
  }
}

function finishTile(op: usize, row: i32, tile: i32, count: i32, vectors: usize): void {
  const channel = channelOf(op, tile)
  const nLanes = tileLanes(op, tile)
  const D = pointer(op, SCAN_D) ? at(pointer(op, SCAN_D), channel) : 0
  const hasGate = pointer(op, SCAN_Z) != 0
  let x = at(pointer(op, SCAN_X), row * word(op, SCAN_X_STRIDE) + channel)
  let out = at(pointer(op, SCAN_OUT), row * word(op, SCAN_OUT_STRIDE) + channel)
  for (const stop = vectors + <usize>count * VECTOR_BYTES; vectors < stop; vectors += VECTOR_BYTES) {
    if (ASC_FEATURE_SIMD && nLanes == LANES) {
      let value = v128.load(vectors + 2 * BLOCK_BYTES)
      if (D) value = f32x4.add(value, f32x4.mul(v128.load(D), v128.load(x)))
      if (hasGate) value = f32x4.mul(value, v128.load(vectors + GATES))
      v128.store(out, value)
    } else {
      for (let lane = 0; lane < nLanes; lane++) {
        let value = load<f32>(at(vectors + 2 * BLOCK_BYTES, lane))
        if (D) value = value + load<f32>(at(D, lane)) * load<f32>(at(x, lane))
        if (hasGate) value = value * load<f32>(at(vectors + GATES, lane))
        store<f32>(at(out, lane), value)
      }
    }
    x = at(x, word(op, SCAN_X_STRIDE))
    out = at(out, word(op, SCAN_OUT_STRIDE))
  }
}
