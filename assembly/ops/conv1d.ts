/**
 * Causal depthwise convolution along the tokens, and silu:
 * out[t][d] = silu(bias[d] + Σ_j weight[j][d] · x[t − (dConv − 1) + j][d]), j ascending.
 *
 * Reads x (nRows, width) and the last dConv − 1 inputs of the sequence from its state (width, dConv − 1); writes out and the new state.
 * Threads share the channels, SHARE at a time. With four taps, the usual case, an output is summed in a register, and the rows that its taps
 * read stay in L1; a token alone takes its past out of the state and puts it back in registers: that of LANES channels is three vectors.
 * Otherwise scratch holds the past by taps, and the taps are added one at a time to the output row, which stays in L1.
 * Scratch of a thread: [ silu's, MAP_BYTES | the past (dConv − 1, width) ].
 */

import {
  CONV_BIAS, CONV_N_TAPS, CONV_OUT, CONV_OUT_STRIDE, CONV_SILU, CONV_STATE, CONV_WEIGHT, CONV_WIDTH, CONV_X, CONV_X_STRIDE,
  LANES, SEGMENT_FIRST_ROW, SEGMENT_N_ROWS, SHARE
} from '../abi'
import { at, firstOf, nSegments, pointer, scratchOf, segmentAt, slotOf, word } from '../control'
import { MAP_BYTES, mapVectors, Silu } from '../math/elementwise'

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

/** Channels [first, end), a whole number of vectors. */
function convolve(op: usize, segment: usize, state: usize, scratch: usize, first: i32, end: i32): void {
  const width = word(op, CONV_WIDTH)
  const nRows = word(segment, SEGMENT_N_ROWS)
  if (ASC_FEATURE_SIMD) {
    if (nRows == 1 && word(op, CONV_N_TAPS) == 4) {
      const whole = min(end, width / LANES * LANES)
      stepFourTaps(op, segment, state, scratch, first, whole)
      first = whole
      if (first == end) return
    }
  }
  const history = scratch + MAP_BYTES
  const nPast = word(op, CONV_N_TAPS) - 1
  const xStride = word(op, CONV_X_STRIDE)
  const outStride = word(op, CONV_OUT_STRIDE)
  const x = at(pointer(op, CONV_X), word(segment, SEGMENT_FIRST_ROW) * xStride + first)
  const out = at(pointer(op, CONV_OUT), word(segment, SEGMENT_FIRST_ROW) * outStride + first)
  const count = end - first
  const valid = min(count, width - first)

  for (let j = 0; j < nPast; j++) {
    copyStrided(at(state, first * nPast + j), nPast, at(history, j * count), 1, valid)
  }
  for (let t = 0; t < nRows; t++) {
    // The first taps of the first rows lie in the past.
    const nBefore = max(0, nPast - t)
    const before = at(history, (nPast - nBefore) * count)
    convolveRow(op, first, count, before, nBefore, at(x, (t - nPast + nBefore) * xStride), at(out, t * outStride), scratch)
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

/** One output row: the first `nBefore` taps read rows of `count` from `before` on, the others rows of x from `row` on. */
function convolveRow(op: usize, first: i32, count: i32, before: usize, nBefore: i32, row: usize, out: usize, scratch: usize): void {
  const nTaps = word(op, CONV_N_TAPS)
  const weight = at(pointer(op, CONV_WEIGHT), first * nTaps)
  const rowStep = word(op, CONV_X_STRIDE)
  const bias = pointer(op, CONV_BIAS) ? at(pointer(op, CONV_BIAS), first) : 0
  if (ASC_FEATURE_SIMD) {
    if (nBefore == 0 && nTaps == 4) {
      const row1 = at(row, rowStep)
      const row2 = at(row, 2 * rowStep)
      const row3 = at(row, 3 * rowStep)
      for (let d = 0; d < count; d += LANES) {
        const taps = at(weight, 4 * d)
        let sum = bias ? v128.load(at(bias, d)) : f32x4.splat(0)
        sum = f32x4.add(sum, f32x4.mul(v128.load(at(row, d)), v128.load(taps)))
        sum = f32x4.add(sum, f32x4.mul(v128.load(at(row1, d)), v128.load(taps, 16)))
        sum = f32x4.add(sum, f32x4.mul(v128.load(at(row2, d)), v128.load(taps, 32)))
        sum = f32x4.add(sum, f32x4.mul(v128.load(at(row3, d)), v128.load(taps, 48)))
        v128.store(at(out, d), sum)
      }
      if (word(op, CONV_SILU)) mapVectors<Silu>(out, at(out, count), out, scratch)
      return
    }
  }
  if (bias) memory.copy(out, bias, <usize>count << 2)
  else memory.fill(out, 0, <usize>count << 2)
  for (let j = 0; j < nTaps; j++) {
    addTap(out, j < nBefore ? at(before, j * count) : at(row, (j - nBefore) * rowStep), at(weight, j * LANES), nTaps, count)
  }
  if (word(op, CONV_SILU)) mapVectors<Silu>(out, at(out, count), out, scratch)
}

/** row += tap · weight, the weights of LANES channels after those of all taps of the LANES before. */
function addTap(row: usize, tap: usize, weight: usize, nTaps: i32, count: i32): void {
  for (let d = 0; d < count; d += LANES, weight = at(weight, nTaps * LANES)) {
    if (ASC_FEATURE_SIMD) {
      v128.store(at(row, d), f32x4.add(v128.load(at(row, d)), f32x4.mul(v128.load(at(tap, d)), v128.load(weight))))
    } else {
      for (let lane = 0; lane < LANES; lane++) {
        const place = at(row, d + lane)
        store<f32>(place, load<f32>(place) + load<f32>(at(tap, d + lane)) * load<f32>(at(weight, lane)))
      }
    }
  }
}

/** One token, four taps, channels [first, end), whole vectors: (LANES, 3) of the state are three vectors. */
function stepFourTaps(op: usize, segment: usize, state: usize, scratch: usize, first: i32, end: i32): void {
  const x = at(pointer(op, CONV_X), word(segment, SEGMENT_FIRST_ROW) * word(op, CONV_X_STRIDE))
  const out = at(pointer(op, CONV_OUT), word(segment, SEGMENT_FIRST_ROW) * word(op, CONV_OUT_STRIDE))
  const weight = pointer(op, CONV_WEIGHT)
  const bias = pointer(op, CONV_BIAS)
  for (let d = first; d < end; d += LANES) {
    const place = at(state, 3 * d)
    const a = v128.load(place)
    const b = v128.load(place, 16)
    const c = v128.load(place, 32)
    // a = a0 a1 a2 b0, b = b1 b2 c0 c1, c = c2 d0 d1 d2 of the channels a to d; by taps: a0 b0 c0 d0, …
    const tap0 = v128.shuffle<f32>(v128.shuffle<f32>(a, b, 0, 3, 6, 6), c, 0, 1, 2, 5)
    const tap1 = v128.shuffle<f32>(v128.shuffle<f32>(a, b, 1, 4, 7, 7), c, 0, 1, 2, 6)
    const tap2 = v128.shuffle<f32>(v128.shuffle<f32>(a, b, 2, 5, 5, 5), c, 0, 1, 4, 7)
    const now = v128.load(at(x, d))
    let sum = bias ? v128.load(at(bias, d)) : f32x4.splat(0)
    const taps = at(weight, 4 * d)
    sum = f32x4.add(sum, f32x4.mul(tap0, v128.load(taps)))
    sum = f32x4.add(sum, f32x4.mul(tap1, v128.load(taps, 16)))
    sum = f32x4.add(sum, f32x4.mul(tap2, v128.load(taps, 32)))
    sum = f32x4.add(sum, f32x4.mul(now, v128.load(taps, 48)))
    v128.store(at(out, d), sum)
    const low = v128.shuffle<f32>(tap1, tap2, 0, 4, 1, 5)
    const high = v128.shuffle<f32>(tap1, tap2, 2, 6, 3, 7)
    v128.store(place, v128.shuffle<f32>(low, now, 0, 1, 4, 2))
    v128.store(place, v128.shuffle<f32>(v128.shuffle<f32>(low, now, 3, 5, 3, 3), high, 0, 1, 4, 5), 16)
    v128.store(place, v128.shuffle<f32>(now, high, 2, 6, 7, 3), 32)
  }
  if (word(op, CONV_SILU)) mapVectors<Silu>(at(out, first), at(out, end), at(out, first), scratch)
}
