/**
 * Causal depthwise convolution along the tokens, and silu:
 * out[t][d] = silu(bias[d] + Σ_j weight[j][d] · x[t − (dConv − 1) + j][d]), j ascending.
 *
 * Reads x (nRows, width) and the last dConv − 1 inputs of the sequence from its state (width, dConv − 1); writes out and the new state.
 * Threads share the channels, SHARE at a time. For each token the taps are added one at a time to the output row, which stays in L1.
 */

import {
  CONV_BIAS, CONV_N_TAPS, CONV_OUT, CONV_OUT_STRIDE, CONV_SILU, CONV_STATE, CONV_WEIGHT, CONV_WIDTH, CONV_X, CONV_X_STRIDE,
  LANES, SEGMENT_FIRST_ROW, SEGMENT_N_ROWS, SHARE
} from '../abi'
import { at, firstOf, nSegments, pointer, scratchOf, segmentAt, slotOf, word } from '../control'
import { silu, siluLanes } from '../math/exp'

export function conv1d(control: usize, op: usize, thread: i32): void {
  const width = word(op, CONV_WIDTH)
  const nShares = (width + SHARE - 1) / SHARE
  const first = firstOf(control, nShares, thread) * SHARE
  const end = min((width + LANES - 1) / LANES * LANES, firstOf(control, nShares, thread + 1) * SHARE)
  if (first == end) return
  for (let i = 0; i < nSegments(control); i++) {
    const segment = segmentAt(control, i)
    convolve(op, segment, slotOf(control, segment) + pointer(op, CONV_STATE), scratchOf(control, thread), first, end)
  }
}

/** Channels [first, end), a whole number of vectors; `history` is scratch for (dConv − 1, end − first). */
function convolve(op: usize, segment: usize, state: usize, history: usize, first: i32, end: i32): void {
  const width = word(op, CONV_WIDTH)
  const padded = (width + LANES - 1) / LANES * LANES
  const nTaps = word(op, CONV_N_TAPS)
  const nPast = nTaps - 1
  const nRows = word(segment, SEGMENT_N_ROWS)
  const xStride = word(op, CONV_X_STRIDE)
  const outStride = word(op, CONV_OUT_STRIDE)
  const x = at(pointer(op, CONV_X), word(segment, SEGMENT_FIRST_ROW) * xStride + first)
  const out = at(pointer(op, CONV_OUT), word(segment, SEGMENT_FIRST_ROW) * outStride + first)
  const weight = at(pointer(op, CONV_WEIGHT), first)
  const bias = pointer(op, CONV_BIAS)
  const count = end - first
  const valid = min(count, width - first)

  for (let j = 0; j < nPast; j++) {
    copyStrided(at(state, first * nPast + j), nPast, at(history, j * count), 1, valid)
  }
  for (let t = 0; t < nRows; t++) {
    const row = at(out, t * outStride)
    if (bias) memory.copy(row, at(bias, first), <usize>count << 2)
    else memory.fill(row, 0, <usize>count << 2)
    for (let j = 0; j < nTaps; j++) {
      const source = t - nPast + j
      const tap = source < 0 ? at(history, (source + nPast) * count) : at(x, source * xStride)
      addTap(row, tap, at(weight, j * padded), count)
    }
    if (word(op, CONV_SILU)) gate(row, count)
  }
  for (let j = 0; j < nPast; j++) {
    const source = nRows - nPast + j
    const tap = source < 0 ? at(history, (source + nPast) * count) : at(x, source * xStride)
    copyStrided(tap, 1, at(state, first * nPast + j), nPast, valid)
  }
}

/** Elements `fromStride` apart to places `toStride` apart: a tap of all channels out of the state, or into it. */
function copyStrided(from: usize, fromStride: i32, to: usize, toStride: i32, count: i32): void {
  const fromStep = <usize>fromStride << 2
  const toStep = <usize>toStride << 2
  for (let i = 0; i < count; i++) {
    store<f32>(to, load<f32>(from))
    from += fromStep
    to += toStep
  }
}

/** row += tap · weight */
function addTap(row: usize, tap: usize, weight: usize, count: i32): void {
  if (ASC_FEATURE_SIMD) {
    for (let d = 0; d < count; d += LANES) {
      v128.store(at(row, d), f32x4.add(v128.load(at(row, d)), f32x4.mul(v128.load(at(tap, d)), v128.load(at(weight, d)))))
    }
  } else {
    for (let d = 0; d < count; d++) store<f32>(at(row, d), load<f32>(at(row, d)) + load<f32>(at(tap, d)) * load<f32>(at(weight, d)))
  }
}

/** row = silu(row) */
function gate(row: usize, count: i32): void {
  if (ASC_FEATURE_SIMD) {
    for (let d = 0; d < count; d += LANES) v128.store(at(row, d), siluLanes(v128.load(at(row, d))))
  } else {
    for (let d = 0; d < count; d++) store<f32>(at(row, d), silu(load<f32>(at(row, d))))
  }
}
