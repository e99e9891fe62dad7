/**
 * What comes before attention: `rotary` turns queries and keys by their positions, `cacheKeyValue` stores keys and values in the slots.
 * Threads share the rows. Bound by memory; a row is read and written once.
 */

import {
  CACHE_HEAD_DIM, CACHE_KEY, CACHE_KEYS, CACHE_KEY_HEAD_BYTES, CACHE_KEY_STRIDE, CACHE_N_HEADS, CACHE_VALUE, CACHE_VALUES,
  CACHE_VALUE_HEAD_BYTES, CACHE_VALUE_STRIDE, KEY_BLOCK, LANES, ROTARY_DIM, ROTARY_HEAD_DIM, ROTARY_N_HEADS, ROTARY_TABLE, ROTARY_X,
  ROTARY_X_STRIDE, SEGMENT_FIRST_ROW, SEGMENT_N_ROWS, SEGMENT_POSITION
} from '../abi'
import { at, firstOf, nSegments, pointer, rowsOf, segmentAt, slotOf, word } from '../control'

/** (a, b) → (a · cos − b · sin, b · cos + a · sin) for column i and column i + rotaryDim / 2 of each head, in place. */
export function rotary(control: usize, op: usize, thread: i32): void {
  const nRows = rowsOf(control, op)
  const rotaryDim = word(op, ROTARY_DIM)
  const half = rotaryDim >> 1
  const nHeads = word(op, ROTARY_N_HEADS)
  const end = firstOf(control, nRows, thread + 1)
  for (let row = firstOf(control, nRows, thread); row < end; row++) {
    const cosines = at(pointer(op, ROTARY_TABLE), row * rotaryDim)
    let a = at(pointer(op, ROTARY_X), row * word(op, ROTARY_X_STRIDE))
    for (let head = 0; head < nHeads; head++) {
      turn(a, at(a, half), cosines, at(cosines, half), half)
      a = at(a, word(op, ROTARY_HEAD_DIM))
    }
  }
}

// @ts-ignore: decorator
@inline
function turn(a: usize, b: usize, cosines: usize, sines: usize, count: i32): void {
  let i = 0
  if (ASC_FEATURE_SIMD) {
    for (; i + LANES <= count; i += LANES) {
      const first = v128.load(at(a, i))
      const second = v128.load(at(b, i))
      const cos = v128.load(at(cosines, i))
      const sin = v128.load(at(sines, i))
      v128.store(at(a, i), f32x4.sub(f32x4.mul(first, cos), f32x4.mul(second, sin)))
      v128.store(at(b, i), f32x4.add(f32x4.mul(second, cos), f32x4.mul(first, sin)))
    }
  }
  for (; i < count; i++) {
    const first = load<f32>(at(a, i))
    const second = load<f32>(at(b, i))
    const cos = load<f32>(at(cosines, i))
    const sin = load<f32>(at(sines, i))
    store<f32>(at(a, i), first * cos - second * sin)
    store<f32>(at(b, i), second * cos + first * sin)
  }
}

/** The rows' keys and values to their positions in the slots, laid out as attention.ts draws them. */
export function cacheKeyValue(control: usize, op: usize, thread: i32): void {
  const nRows = rowsOf(control, op)
  const first = firstOf(control, nRows, thread)
  const end = firstOf(control, nRows, thread + 1)
  for (let i = 0; i < nSegments(control); i++) {
    const segment = segmentAt(control, i)
    const firstRow = word(segment, SEGMENT_FIRST_ROW)
    const lastRow = min(end, firstRow + word(segment, SEGMENT_N_ROWS))
    for (let row = max(first, firstRow); row < lastRow; row++) {
      storeRow(op, slotOf(control, segment), row, word(segment, SEGMENT_POSITION) + row - firstRow)
    }
  }
}

function storeRow(op: usize, slot: usize, row: i32, position: i32): void {
  const headDim = word(op, CACHE_HEAD_DIM)
  const padded = (headDim + LANES - 1) / LANES * LANES
  let key = at(pointer(op, CACHE_KEY), row * word(op, CACHE_KEY_STRIDE))
  let value = at(pointer(op, CACHE_VALUE), row * word(op, CACHE_VALUE_STRIDE))
  let keys = at(slot + pointer(op, CACHE_KEYS), position / KEY_BLOCK * KEY_BLOCK * headDim + position % KEY_BLOCK)
  let values = at(slot + pointer(op, CACHE_VALUES), position * padded)
  for (let head = 0; head < word(op, CACHE_N_HEADS); head++) {
    for (let i = 0; i < headDim; i++) store<f32>(at(keys, i * KEY_BLOCK), load<f32>(at(key, i)))
    memory.copy(values, value, <usize>headDim << 2)
    // Nobody reads what comes of the padding, but NaN and subnormals in it would be slow.
    memory.fill(at(values, headDim), 0, <usize>(padded - headDim) << 2)
    key = at(key, headDim)
    value = at(value, headDim)
    keys += pointer(op, CACHE_KEY_HEAD_BYTES)
    values += pointer(op, CACHE_VALUE_HEAD_BYTES)
  }
}
