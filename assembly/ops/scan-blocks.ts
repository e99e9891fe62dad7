/**
 * The scan's blocks: `count` tokens of `nTiles` neighbouring tiles of LANES channels, from `channel` on. Where they lie, and what is done to them before the
 * recurrence (dt, dt · x) and after it (D and the gate).
 * Scratch of a thread: [ dt | dt · x | y, (tokens, tiles), SCAN_BLOCK vectors each | exp(dt · A) as it is staged, four times as many | states (tiles, dState, LANES) ].
 */

import {
  LANES, SCAN_BLOCK, SCAN_D, SCAN_DT, SCAN_DT_BIAS, SCAN_DT_SOFTPLUS, SCAN_DT_STRIDE, SCAN_OUT, SCAN_OUT_STRIDE, SCAN_X, SCAN_X_STRIDE,
  SCAN_Z, SCAN_Z_STRIDE
} from '../abi'
import { at, pointer, word } from '../control'
import { mapVectors, Silu, Softplus, STAGED_BYTES, VECTOR_BYTES } from '../math/elementwise'
import { FLUSH, FLUSH_LANES } from '../math/flush'

export const BLOCK_BYTES: usize = <usize>SCAN_BLOCK * VECTOR_BYTES
/** exp(dt · A) of four states of a block, or of as many states of one token, each where it was staged. */
export const DECAYS: usize = 3 * BLOCK_BYTES
/** Vectors of exp(dt · A) that there is room for. */
export const N_DECAYS: i32 = 4 * SCAN_BLOCK
/** silu(z) takes their place when the recurrence is done. */
const GATES: usize = DECAYS
/** Scratch of the elementary functions. */
const MAP_SCRATCH: usize = GATES + BLOCK_BYTES
export const STATES: usize = DECAYS + <usize>N_DECAYS * STAGED_BYTES

/** dt and dt · x of a block; y = 0. */
export function discretize(op: usize, row: i32, count: i32, channel: i32, nTiles: i32, scratch: usize): void {
  const rowBytes = <usize>nTiles * VECTOR_BYTES
  const end = scratch + <usize>count * rowBytes
  const bias = pointer(op, SCAN_DT_BIAS) ? at(pointer(op, SCAN_DT_BIAS), channel) : 0
  const dtBytes = <usize>word(op, SCAN_DT_STRIDE) << 2
  let dt = at(pointer(op, SCAN_DT), channel) + <usize>row * dtBytes
  for (let vectors = scratch; vectors < end; vectors += rowBytes, dt += dtBytes) {
    for (let i: usize = 0; i < rowBytes; i += VECTOR_BYTES) {
      if (ASC_FEATURE_SIMD) {
        v128.store(vectors + i, bias ? f32x4.add(v128.load(dt + i), v128.load(bias + i)) : v128.load(dt + i))
      } else {
        for (let lane = i; lane < i + VECTOR_BYTES; lane += 4) store<f32>(vectors + lane, bias ? load<f32>(dt + lane) + load<f32>(bias + lane) : load<f32>(dt + lane))
      }
    }
  }
  if (word(op, SCAN_DT_SOFTPLUS)) mapVectors<Softplus>(scratch, end, scratch, scratch + MAP_SCRATCH)
  const xBytes = <usize>word(op, SCAN_X_STRIDE) << 2
  let x = at(pointer(op, SCAN_X), channel) + <usize>row * xBytes
  for (let vectors = scratch; vectors < end; vectors += rowBytes, x += xBytes) {
    for (let i: usize = 0; i < rowBytes; i += VECTOR_BYTES) {
      if (ASC_FEATURE_SIMD) {
        const flush = v128.load(FLUSH_LANES)
        v128.store(vectors + i, f32x4.sub(f32x4.add(f32x4.mul(v128.load(vectors + i), v128.load(x + i)), flush), flush), BLOCK_BYTES)
        v128.store(vectors + i, f32x4.splat(0), 2 * BLOCK_BYTES)
      } else {
        for (let lane = i; lane < i + VECTOR_BYTES; lane += 4) {
          store<f32>(vectors + lane, load<f32>(vectors + lane) * load<f32>(x + lane) + FLUSH - FLUSH, BLOCK_BYTES)
          store<f32>(vectors + lane, 0, 2 * BLOCK_BYTES)
        }
      }
    }
  }
}

/** out = (y + D · x) · silu(z) of a block; its tiles have `nLanes` channels. */
export function finish(op: usize, row: i32, count: i32, channel: i32, nTiles: i32, nLanes: i32, scratch: usize): void {
  const rowBytes = <usize>nTiles * VECTOR_BYTES
  const end = scratch + <usize>count * rowBytes
  const gates = pointer(op, SCAN_Z) ? scratch + GATES : 0
  if (gates) {
    copyGates(op, row, channel, rowBytes, nLanes, gates, gates + <usize>count * rowBytes)
    mapVectors<Silu>(gates, gates + <usize>count * rowBytes, gates, scratch + MAP_SCRATCH)
  }
  const D = pointer(op, SCAN_D) ? at(pointer(op, SCAN_D), channel) : 0
  const xBytes = <usize>word(op, SCAN_X_STRIDE) << 2
  const outBytes = <usize>word(op, SCAN_OUT_STRIDE) << 2
  let x = at(pointer(op, SCAN_X), channel) + <usize>row * xBytes
  let out = at(pointer(op, SCAN_OUT), channel) + <usize>row * outBytes
  for (let vectors = scratch; vectors < end; vectors += rowBytes, x += xBytes, out += outBytes) {
    for (let i: usize = 0; i < rowBytes; i += VECTOR_BYTES) {
      if (ASC_FEATURE_SIMD && nLanes == LANES) {
        let value = v128.load(vectors + i, 2 * BLOCK_BYTES)
        if (D) value = f32x4.add(value, f32x4.mul(v128.load(D + i), v128.load(x + i)))
        if (gates) value = f32x4.mul(value, v128.load(vectors + i, GATES))
        v128.store(out + i, value)
      } else {
        for (let lane = i; lane < i + (<usize>nLanes << 2); lane += 4) {
          let value = load<f32>(vectors + lane, 2 * BLOCK_BYTES)
          if (D) value = value + load<f32>(D + lane) * load<f32>(x + lane)
          if (gates) value = value * load<f32>(vectors + lane, GATES)
          store<f32>(out + lane, value)
        }
      }
    }
  }
}

/** z of a block, no more than its lanes of it, to [gates, end). */
function copyGates(op: usize, row: i32, channel: i32, rowBytes: usize, nLanes: i32, gates: usize, end: usize): void {
  const zBytes = <usize>word(op, SCAN_Z_STRIDE) << 2
  let z = at(pointer(op, SCAN_Z), channel) + <usize>row * zBytes
  for (; gates < end; gates += rowBytes, z += zBytes) {
    for (let i: usize = 0; i < rowBytes; i += VECTOR_BYTES) {
      if (ASC_FEATURE_SIMD && nLanes == LANES) {
        v128.store(gates + i, v128.load(z + i))
      } else {
        for (let lane: usize = 0; lane < VECTOR_BYTES; lane += 4) store<f32>(gates + i + lane, lane < (<usize>nLanes << 2) ? load<f32>(z + i + lane) : 0)
      }
    }
  }
}
