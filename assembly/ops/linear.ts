/**
 * out[row][o] = Σ_k W[o][k] · x[row][k], k ascending from the first product, + bias[o], + out[row][o] where it accumulates.
 *
 * W (nOut, nIn) lies in panels of PANEL_ROWS output rows, inputs in sequence, the last panel padded with zeros (assembly/formats):
 * eight outputs are two vectors, and no sum crosses lanes. One order of summation for one row and for many: the same bits for prefill,
 * chunks, steps and batches. Threads share the panels.
 *
 * Memory levels, for many rows: a block of ROW_BLOCK rows of x in L2, one panel in L1, expanded to f32 or to 16-bit integers, ROW_TILE rows ×
 * 8 outputs in registers.
 * For one row: the weights stream from DRAM once, four distant panels at a time.
 */

import {
  FORMAT_BF16, FORMAT_F16, FORMAT_F32, FORMAT_Q4, FORMAT_Q4_MIN, FORMAT_Q8, FORMAT_Q8_MIN, LINEAR_FORMAT, LINEAR_N_OUT, PANEL_ROWS, ROW_BLOCK
} from '../abi'
import { firstOf, rowsOf, scratchOf, word } from '../control'
import { Bf16, F16, F32 } from '../formats/dense'
import { Bytes, Bytes16, BytesMin, Nibbles, NibblesMin } from '../formats/blocks'
import { fourRowsDense, oneRowDense, panelInF32, rowsDenseScalar } from './linear-dense'
import { oneRowQuantized, quantizeInputs, rowsQuantizedScalar } from './linear-quantized'
import { fourRowsQuantized, panelInI16 } from './linear-quantized-rows'

const ROW_TILE: i32 = 4

export function linear(control: usize, op: usize, thread: i32): void {
  const nPanels = (word(op, LINEAR_N_OUT) + PANEL_ROWS - 1) / PANEL_ROWS
  linearRows(control, op, rowsOf(control, op), thread, firstOf(control, nPanels, thread), firstOf(control, nPanels, thread + 1))
}

/** Panels [first, end) of nRows rows, whatever the batch has: the experts' products too. Scratch: from the start of the thread's. */
export function linearRows(control: usize, op: usize, nRows: i32, thread: i32, first: i32, end: i32): void {
  if (first == end) return
  switch (word(op, LINEAR_FORMAT)) {
    case FORMAT_F32: dense<F32>(control, op, nRows, thread, first, end); break
    case FORMAT_BF16: dense<Bf16>(control, op, nRows, thread, first, end); break
    case FORMAT_F16: dense<F16>(control, op, nRows, thread, first, end); break
    case FORMAT_Q8: quantized<Bytes>(control, op, nRows, thread, first, end); break
    case FORMAT_Q4: quantized<Nibbles>(control, op, nRows, thread, first, end); break
    case FORMAT_Q8_MIN: quantized<BytesMin>(control, op, nRows, thread, first, end); break
    case FORMAT_Q4_MIN: quantized<NibblesMin>(control, op, nRows, thread, first, end); break
    default: quantized<Bytes16>(control, op, nRows, thread, first, end)
  }
}

function dense<F>(control: usize, op: usize, nRows: i32, thread: i32, first: i32, end: i32): void {
  const scratch = scratchOf(control, thread)
  if (!ASC_FEATURE_SIMD) return rowsDenseScalar(op, nRows, first, end)
  for (let block = 0; block < nRows; block += ROW_BLOCK) {
    const blockEnd = min(nRows, block + ROW_BLOCK)
    const tiled = block + (blockEnd - block) / ROW_TILE * ROW_TILE
    if (tiled > block) {
      for (let panel = first; panel < end; panel++) {
        const weights = panelInF32<F>(op, panel, scratch)
        for (let row = block; row < tiled; row += ROW_TILE) fourRowsDense(op, row, panel, weights)
      }
    }
    for (let row = tiled; row < blockEnd; row++) oneRowDense<F>(op, row, first, end)
  }
}

/** Each thread quantizes the block's activations for itself, which is cheaper than to meet. */
function quantized<F>(control: usize, op: usize, nRows: i32, thread: i32, first: i32, end: i32): void {
  for (let block = 0; block < nRows; block += ROW_BLOCK) {
    const count = min(ROW_BLOCK, nRows - block)
    const inputs = quantizeInputs(control, op, thread, block, count)
    if (!ASC_FEATURE_SIMD) {
      rowsQuantizedScalar(op, inputs, block, count, first, end)
      continue
    }
    const tiled = count / ROW_TILE * ROW_TILE
    if (tiled > 0) {
      for (let panel = first; panel < end; panel++) {
        const weights = panelInI16<F>(op, inputs, count, panel)
        for (let row = 0; row < tiled; row += ROW_TILE) fourRowsQuantized(op, inputs, block, count, row, panel, weights)
      }
    }
    for (let row = tiled; row < count; row++) oneRowQuantized<F>(op, inputs, block, count, row, first, end)
  }
}
