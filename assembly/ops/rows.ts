/**
 * Ops that move rows: `embed` looks up token rows, `gatherRows` picks the rows whose logits are asked for.
 * Threads share the rows. Bound by memory; nothing to block.
 */

import {
  CONTROL_LOGIT_ROWS, CONTROL_TOKENS, EMBED_OUT, EMBED_OUT_STRIDE, EMBED_WEIGHT, EMBED_WIDTH,
  GATHER_OUT, GATHER_OUT_STRIDE, GATHER_WIDTH, GATHER_X, GATHER_X_STRIDE, PANEL_ROWS
} from '../abi'
import { at, firstOf, pointer, rowsOf, word } from '../control'

/** out[row] = W[token of row]; W is stored in panels (see linear.ts), as a tied head needs it. */
export function embed(control: usize, op: usize, thread: i32): void {
  const nRows = rowsOf(control, op)
  const width = word(op, EMBED_WIDTH)
  const end = firstOf(control, nRows, thread + 1)
  for (let row = firstOf(control, nRows, thread); row < end; row++) {
    const token = load<i32>(at(pointer(control, CONTROL_TOKENS), row))
    const panel = pointer(op, EMBED_WEIGHT) + ((<usize>(token / PANEL_ROWS) * width * PANEL_ROWS) << 2)
    let source = at(panel, token % PANEL_ROWS)
    const out = at(pointer(op, EMBED_OUT), row * word(op, EMBED_OUT_STRIDE))
    for (let i = 0; i < width; i++) {
      store<f32>(at(out, i), load<f32>(source))
      source += PANEL_ROWS << 2
    }
  }
}

/** out[i] = x[logitRows[i]] */
export function gatherRows(control: usize, op: usize, thread: i32): void {
  const nRows = rowsOf(control, op)
  const bytes = <usize>word(op, GATHER_WIDTH) << 2
  const end = firstOf(control, nRows, thread + 1)
  for (let row = firstOf(control, nRows, thread); row < end; row++) {
    const source = load<i32>(at(pointer(control, CONTROL_LOGIT_ROWS), row))
    memory.copy(
      at(pointer(op, GATHER_OUT), row * word(op, GATHER_OUT_STRIDE)),
      at(pointer(op, GATHER_X), source * word(op, GATHER_X_STRIDE)),
      bytes
    )
  }
}
