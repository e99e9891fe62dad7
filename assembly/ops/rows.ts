/**
 * Ops that move rows: `embed` looks up token rows, `gatherRows` picks the rows whose logits are asked for.
 * Threads share the rows, and each does a token's alone. Bound by memory; nothing to block.
 */

import {
  CONTROL_LOGIT_ROWS, CONTROL_TOKENS, EMBED_FORMAT, EMBED_OUT, EMBED_OUT_STRIDE, EMBED_WEIGHT, EMBED_WIDTH,
  FORMAT_F16, GATHER_OUT, GATHER_OUT_STRIDE, GATHER_WIDTH, GATHER_X, GATHER_X_STRIDE, PANEL_ROWS
} from '../abi'
import { at, endRowOf, firstRowOf, pointer, word } from '../control'
import { blockPanelBytes, blockWeight } from '../formats/blocks'
import { densePanelBytes, denseWeight } from '../formats/dense'

/** out[row] = W[token of row]; W is stored in panels, as a tied head needs it. */
export function embed(control: usize, op: usize, thread: i32): void {
  const width = word(op, EMBED_WIDTH)
  const format = word(op, EMBED_FORMAT)
  const isDense = format <= FORMAT_F16
  const panelBytes = isDense ? densePanelBytes(format, width) : blockPanelBytes(format, width)
  const end = endRowOf(control, op, thread)
  for (let row = firstRowOf(control, op, thread); row < end; row++) {
    const token = load<i32>(at(pointer(control, CONTROL_TOKENS), row))
    const panel = pointer(op, EMBED_WEIGHT) + <usize>(token / PANEL_ROWS) * panelBytes
    const lane = token % PANEL_ROWS
    const out = at(pointer(op, EMBED_OUT), row * word(op, EMBED_OUT_STRIDE))
    for (let k = 0; k < width; k++) {
      store<f32>(at(out, k), isDense ? denseWeight(format, panel, lane, k) : blockWeight(format, panel, lane, k))
    }
  }
}

/** out[i] = x[logitRows[i]] */
export function gatherRows(control: usize, op: usize, thread: i32): void {
  const bytes = <usize>word(op, GATHER_WIDTH) << 2
  const end = endRowOf(control, op, thread)
  for (let row = firstRowOf(control, op, thread); row < end; row++) {
    const source = load<i32>(at(pointer(control, CONTROL_LOGIT_ROWS), row))
    memory.copy(
      at(pointer(op, GATHER_OUT), row * word(op, GATHER_OUT_STRIDE)),
      at(pointer(op, GATHER_X), source * word(op, GATHER_X_STRIDE)),
      bytes
    )
  }
}
