/** What the dense and the quantized kernels share: where eight outputs of a row go. */

import { LINEAR_ACCUMULATE, LINEAR_BIAS, LINEAR_OUT, LINEAR_OUT_STRIDE, PANEL_ROWS } from '../abi'
import { at, pointer, word } from '../control'

/** Steps of a thread's share of panels: a row's panels are taken from one step to another. */
export const STEPS: i32 = 16

/** The first of `count` that belongs to a step. */
// @ts-ignore: decorator
@inline
export function stepAt(count: i32, step: i32): i32 {
  return count * step / STEPS
}

/** Adds bias and the old output and stores eight outputs of one row. The output is padded to PANEL_ROWS. */
// @ts-ignore: decorator
@inline
export function storePanel(op: usize, row: i32, panel: i32, low: v128, high: v128): void {
  const out = at(pointer(op, LINEAR_OUT), row * word(op, LINEAR_OUT_STRIDE) + panel * PANEL_ROWS)
  const bias = pointer(op, LINEAR_BIAS)
  if (bias) {
    low = f32x4.add(low, v128.load(at(bias, panel * PANEL_ROWS)))
    high = f32x4.add(high, v128.load(at(bias, panel * PANEL_ROWS), 16))
  }
  if (word(op, LINEAR_ACCUMULATE)) {
    low = f32x4.add(low, v128.load(out))
    high = f32x4.add(high, v128.load(out, 16))
  }
  v128.store(out, low)
  v128.store(out, high, 16)
}

/** The same for one output. */
export function storeOutput(op: usize, row: i32, output: i32, sum: f32): void {
  const out = at(pointer(op, LINEAR_OUT), row * word(op, LINEAR_OUT_STRIDE) + output)
  const bias = pointer(op, LINEAR_BIAS)
  if (bias) sum += load<f32>(at(bias, output))
  if (word(op, LINEAR_ACCUMULATE)) sum += load<f32>(out)
  store<f32>(out, sum)
}
