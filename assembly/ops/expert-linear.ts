/**
 * The products of a mixture of experts: for each row and each of its choices j, out_j = W_e · x_j with the matrix of the chosen expert e.
 *
 * Rows that chose the same expert are gathered, up to EXPERT_ROWS at a time, and meet its panels in the kernels of `linear`;
 * the results go to their places from there. Each output is summed as `linear` does it, so the grouping decides no bit.
 * Reads x (nRows, nIn) or (nRows, topK · nIn), choices as `route` leaves them; writes out (nRows, topK · nOut), exactly its width.
 * Threads share the panels of every expert. A thread's scratch:
 *
 *   │ that of linear │ a record of linear │ EXPERT_ROWS addresses in out │ x gathered (EXPERT_ROWS, nIn) │ out (EXPERT_ROWS, EXPERT_PANELS · 8 or nOut) │
 */

import {
  EXPERT_CHOICES, EXPERT_CHOICES_STRIDE, EXPERT_ENTRY_FORMAT, EXPERT_ENTRY_PANEL_BYTES, EXPERT_ENTRY_WEIGHT, EXPERT_ENTRY_WORDS,
  EXPERT_N_EXPERTS, EXPERT_N_IN, EXPERT_N_OUT, EXPERT_OUT, EXPERT_OUT_STRIDE, EXPERT_PANELS, EXPERT_ROWS, EXPERT_SCRATCH, EXPERT_TABLE,
  EXPERT_TOP_K, EXPERT_X, EXPERT_X_STEP, EXPERT_X_STRIDE, LINEAR_FORMAT, LINEAR_N_IN, LINEAR_OUT, LINEAR_OUT_STRIDE, LINEAR_WEIGHT, LINEAR_X,
  LINEAR_X_STRIDE, OP_WORDS, PANEL_ROWS
} from '../abi'
import { at, firstOf, pointer, rowsOf, scratchOf, word } from '../control'
import { linearRows } from './linear'

export function expertLinear(control: usize, op: usize, thread: i32): void {
  const nRows = rowsOf(control, op)
  const topK = word(op, EXPERT_TOP_K)
  const nIn = word(op, EXPERT_N_IN)
  const record = scratchOf(control, thread) + pointer(op, EXPERT_SCRATCH)
  const places = at(record, OP_WORDS)
  const x = at(places, EXPERT_ROWS)
  memory.fill(record, 0, OP_WORDS << 2)
  store<i32>(at(record, LINEAR_X), <i32>x)
  store<i32>(at(record, LINEAR_X_STRIDE), nIn)
  store<i32>(at(record, LINEAR_N_IN), nIn)
  store<i32>(at(record, LINEAR_OUT), <i32>at(x, EXPERT_ROWS * nIn))
  const nPanels = (word(op, EXPERT_N_OUT) + PANEL_ROWS - 1) / PANEL_ROWS
  store<i32>(at(record, LINEAR_OUT_STRIDE), min(EXPERT_PANELS, nPanels) * PANEL_ROWS)
  for (let expert = 0; expert < word(op, EXPERT_N_EXPERTS); expert++) {
    let count = 0
    for (let row = 0; row < nRows; row++) {
      const choices = at(pointer(op, EXPERT_CHOICES), row * word(op, EXPERT_CHOICES_STRIDE))
      for (let j = 0; j < topK; j++) {
        if (load<f32>(at(choices, j)) != <f32>expert) continue
        const source = at(pointer(op, EXPERT_X), row * word(op, EXPERT_X_STRIDE) + j * word(op, EXPERT_X_STEP))
        memory.copy(at(x, count * nIn), source, <usize>nIn << 2)
        store<usize>(at(places, count), at(pointer(op, EXPERT_OUT), row * word(op, EXPERT_OUT_STRIDE) + j * word(op, EXPERT_N_OUT)))
        if (++count < EXPERT_ROWS) continue
        multiply(control, op, thread, expert, count, record)
        count = 0
      }
    }
    if (count > 0) multiply(control, op, thread, expert, count, record)
  }
}

/** The thread's panels of an expert, for the rows that are gathered. */
function multiply(control: usize, op: usize, thread: i32, expert: i32, count: i32, record: usize): void {
  const nOut = word(op, EXPERT_N_OUT)
  const nPanels = (nOut + PANEL_ROWS - 1) / PANEL_ROWS
  const entry = at(pointer(op, EXPERT_TABLE), expert * EXPERT_ENTRY_WORDS)
  const end = firstOf(control, nPanels, thread + 1)
  store<i32>(at(record, LINEAR_FORMAT), word(entry, EXPERT_ENTRY_FORMAT))
  for (let first = firstOf(control, nPanels, thread); first < end; first += EXPERT_PANELS) {
    const weight = pointer(entry, EXPERT_ENTRY_WEIGHT) + <usize>first * pointer(entry, EXPERT_ENTRY_PANEL_BYTES)
    store<usize>(at(record, LINEAR_WEIGHT), weight)
    linearRows(control, record, count, thread, 0, min(EXPERT_PANELS, end - first))
    const firstOutput = first * PANEL_ROWS
    const bytes = <usize>(min(nOut, min(end, first + EXPERT_PANELS) * PANEL_ROWS) - firstOutput) << 2
    for (let i = 0; i < count; i++) {
      memory.copy(at(pointer(at(record, OP_WORDS), i), firstOutput), at(pointer(record, LINEAR_OUT), i * word(record, LINEAR_OUT_STRIDE)), bytes)
    }
  }
}
