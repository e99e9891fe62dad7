/** Reading the control block, the records and one thread's share. */

import {
  CONTROL_N_LOGIT_ROWS, CONTROL_N_SEGMENTS, CONTROL_N_THREADS, CONTROL_N_TOKENS, CONTROL_SCRATCH, CONTROL_SCRATCH_BYTES,
  CONTROL_SEGMENTS, CONTROL_SLOT_BYTES, CONTROL_STATE, EACH_ONE, OP_FLAGS, ROWS_LOGIT, SEGMENT_SLOT, SEGMENT_WORDS
} from './abi'

/** Word `index` of a record. */
// @ts-ignore: decorator
@inline
export function word(record: usize, index: i32): i32 {
  return load<i32>(record + (<usize>index << 2))
}

/** Word `index` of a record as an address. */
// @ts-ignore: decorator
@inline
export function pointer(record: usize, index: i32): usize {
  return <usize>load<u32>(record + (<usize>index << 2))
}

/** Address of element `index` of f32s at `base`. */
// @ts-ignore: decorator
@inline
export function at(base: usize, index: i32): usize {
  return base + (<usize>index << 2)
}

/** Rows of an op: those of the tokens, or those whose logits are asked for. */
// @ts-ignore: decorator
@inline
export function rowsOf(control: usize, op: usize): i32 {
  return word(control, word(op, OP_FLAGS) & ROWS_LOGIT ? CONTROL_N_LOGIT_ROWS : CONTROL_N_TOKENS)
}

/** First of the `count` items that fall to `thread`; its last is before the first of thread + 1. */
// @ts-ignore: decorator
@inline
export function firstOf(control: usize, count: i32, thread: i32): i32 {
  return <i32>(<i64>count * thread / word(control, CONTROL_N_THREADS))
}

/** First of an op's rows that `thread` does, whose last is before `endRowOf`. */
// @ts-ignore: decorator
@inline
export function firstRowOf(control: usize, op: usize, thread: i32): i32 {
  return isForEach(control, op) ? 0 : firstOf(control, rowsOf(control, op), thread)
}

// @ts-ignore: decorator
@inline
export function endRowOf(control: usize, op: usize, thread: i32): i32 {
  return isForEach(control, op) ? rowsOf(control, op) : firstOf(control, rowsOf(control, op), thread + 1)
}

// @ts-ignore: decorator
@inline
function isForEach(control: usize, op: usize): bool {
  return (word(op, OP_FLAGS) & EACH_ONE) != 0 && word(control, CONTROL_N_TOKENS) == 1
}

// @ts-ignore: decorator
@inline
export function scratchOf(control: usize, thread: i32): usize {
  return pointer(control, CONTROL_SCRATCH) + <usize>thread * pointer(control, CONTROL_SCRATCH_BYTES)
}

// @ts-ignore: decorator
@inline
export function nSegments(control: usize): i32 {
  return word(control, CONTROL_N_SEGMENTS)
}

// @ts-ignore: decorator
@inline
export function segmentAt(control: usize, index: i32): usize {
  return at(pointer(control, CONTROL_SEGMENTS), index * SEGMENT_WORDS)
}

/** The state slot of a segment. */
// @ts-ignore: decorator
@inline
export function slotOf(control: usize, segment: usize): usize {
  return pointer(control, CONTROL_STATE) + <usize>word(segment, SEGMENT_SLOT) * pointer(control, CONTROL_SLOT_BYTES)
}
