/**
 * out[row][o] = Σ_k W[o][k] · x[row][k], k ascending from the first product, + bias[o], + out[row][o] where it accumulates.
 *
 * W (nOut, nIn) lies in panels of PANEL_ROWS output rows, inputs in sequence, the last panel padded with zeros (assembly/formats):
 * eight outputs are two vectors, and no sum crosses lanes. One order of summation for one row and for many: the same bits for prefill,
 * chunks, steps and batches. Threads share the panels, or those of each part of the outputs, and help each other with the last part (shares.ts).
 *
 * Memory levels, for many rows: a block of ROW_BLOCK rows of x in L2, one panel in L1, expanded to f32 or to 16-bit integers, four rows ×
 * 8 outputs in registers. For a few (linear-tile.ts says how many): the panels as they are stored, some of them in L2 for all tiles of rows.
 * For one row: the weights stream from DRAM once, four distant panels at a time.
 */

import {
  FORMAT_BF16, FORMAT_F16, FORMAT_F32, FORMAT_Q4, FORMAT_Q4_DOT, FORMAT_Q4_MIN, FORMAT_Q8, FORMAT_Q8_DOT, FORMAT_Q8_MIN, LINEAR_FORMAT, LINEAR_N_IN,
  LINEAR_N_OUT, LINEAR_N_PARTS, PANEL_ROWS, ROW_BLOCK
} from '../abi'
import { firstOf, rowsOf, scratchOf, word } from '../control'
import { Bf16, densePanelBytes, F16, F32, isF32 } from '../formats/dense'
import { blockPanelBytes, Bytes, Bytes16, BytesMin, formatOf, Nibbles, NibblesMin, SignedBytes, SignedNibbles } from '../formats/blocks'
import { helpEachOther, isHelped } from '../shares'
import { densePanelAt, oneRowDense, panelInF32, rowsDenseScalar, tileDense } from './linear-dense'
import { oneRowDot, tileDot } from './linear-dot'
import { STEPS } from './linear-panel'
import { oneRowQuantized, quantizeInputs, rowsQuantizedScalar } from './linear-quantized'
import { fourRowsQuantized, panelInI16 } from './linear-quantized-rows'
import { tileQuantized } from './linear-quantized-tile'
import { Four, groupPanels, manyRows, mostRows, One, Three, tileRows, Two } from './linear-tile'

const ROW_TILE: i32 = 4
/** Of fewer rows than these, but more than one, a step is too few panels for them to go over. */
const LEAST_HELPED: i32 = 32
/** Steps of a share for each block of many rows: some 20 µs of mamba-130m. */
const MANY_STEPS: i32 = 64

/** The block of rows that lies quantized in the thread's scratch. Every thread has an instance of its own. */
let quantizedBlock: i32 = -1

export function linear(control: usize, op: usize, thread: i32): void {
  const nRows = rowsOf(control, op)
  const nPanels = partPanels(op)
  const first = firstOf(control, nPanels, thread)
  const end = firstOf(control, nPanels, thread + 1)
  const hasSteps = nRows == 1 || nRows >= LEAST_HELPED
  if (!ASC_FEATURE_THREADS || !hasSteps || !isHelped(control, op)) return linearParts(control, op, nRows, thread, first, end, nParts(op))
  linearParts(control, op, nRows, thread, first, end, nParts(op) - 1)
  helpEachOther(control, op, thread, nPanels, (nRows + ROW_BLOCK - 1) / ROW_BLOCK * stepsOf(nRows), nRows == 1 ? STEPS / 2 : 0, lastPart)
}

// @ts-ignore: decorator
@inline
function nParts(op: usize): i32 {
  return max(1, word(op, LINEAR_N_PARTS))
}

/** Panels from one part of the outputs to the next. */
// @ts-ignore: decorator
@inline
function partPanels(op: usize): i32 {
  return (word(op, LINEAR_N_OUT) + PANEL_ROWS - 1) / PANEL_ROWS / nParts(op)
}

/** Panels [first, end) of every part, of nRows rows, whatever the batch has: the experts' products too. Scratch: from the start of the thread's. */
export function linearRows(control: usize, op: usize, nRows: i32, thread: i32, first: i32, end: i32): void {
  linearParts(control, op, nRows, thread, first, end, nParts(op))
}

/** Of the first `count` parts. */
function linearParts(control: usize, op: usize, nRows: i32, thread: i32, first: i32, end: i32, count: i32): void {
  quantizedBlock = -1
  const nPanels = partPanels(op)
  for (let block = 0; block * ROW_BLOCK < nRows; block++) {
    for (let part = 0; part < count; part++) blockPanels(control, op, nRows, thread, block, part * nPanels + first, part * nPanels + end, 0, STEPS)
  }
}

/** Steps of a block of rows. */
// @ts-ignore: decorator
@inline
function stepsOf(nRows: i32): i32 {
  return nRows == 1 ? STEPS : MANY_STEPS
}

/** Steps [from, to) of panels [first, end) of the last part, block by block: of many rows a step is a range of panels. */
function lastPart(control: usize, op: usize, thread: i32, first: i32, end: i32, from: i32, to: i32): void {
  const nRows = rowsOf(control, op)
  const nSteps = stepsOf(nRows)
  const base = (nParts(op) - 1) * partPanels(op) + first
  const nPanels = end - first
  while (from < to) {
    const block = from / nSteps
    const start = block * nSteps
    const stop = min(to, start + nSteps)
    if (nRows == 1) blockPanels(control, op, nRows, thread, block, base, base + nPanels, from, stop)
    else blockPanels(control, op, nRows, thread, block, base + nPanels * (from - start) / nSteps, base + nPanels * (stop - start) / nSteps, 0, STEPS)
    from = stop
  }
}

/** Steps [from, to) of panels [first, end) for a block of rows. */
function blockPanels(control: usize, op: usize, nRows: i32, thread: i32, block: i32, first: i32, end: i32, from: i32, to: i32): void {
  if (first == end) return
  const row = block * ROW_BLOCK
  const count = min(ROW_BLOCK, nRows - row)
  const inputs = scratchOf(control, thread)
  if (!isDense(op) && block != quantizedBlock) {
    quantizeInputs(op, row, count, inputs)
    quantizedBlock = block
  }
  panels(op, inputs, row, count, first, end, from, to)
}

// @ts-ignore: decorator
@inline
function isDense(op: usize): bool {
  const format = word(op, LINEAR_FORMAT)
  return format == FORMAT_F32 || format == FORMAT_BF16 || format == FORMAT_F16
}

/** `count` rows from `block` on times panels [first, end); `inputs` are the rows quantized, or scratch. */
function panels(op: usize, inputs: usize, block: i32, count: i32, first: i32, end: i32, from: i32, to: i32): void {
  switch (word(op, LINEAR_FORMAT)) {
    case FORMAT_F32: dense<F32>(op, inputs, block, count, first, end, from, to); break
    case FORMAT_BF16: dense<Bf16>(op, inputs, block, count, first, end, from, to); break
    case FORMAT_F16: dense<F16>(op, inputs, block, count, first, end, from, to); break
    // Builds that multiply bytes have these two in the forms for that.
    case FORMAT_Q8: if (!ASC_FEATURE_RELAXED_SIMD) quantized<Bytes>(op, inputs, block, count, first, end, from, to); break
    case FORMAT_Q4: if (!ASC_FEATURE_RELAXED_SIMD) quantized<Nibbles>(op, inputs, block, count, first, end, from, to); break
    case FORMAT_Q8_DOT: if (ASC_FEATURE_RELAXED_SIMD) dotted<SignedBytes>(op, inputs, block, count, first, end, from, to); break
    case FORMAT_Q4_DOT: if (ASC_FEATURE_RELAXED_SIMD) dotted<SignedNibbles>(op, inputs, block, count, first, end, from, to); break
    case FORMAT_Q8_MIN: quantized<BytesMin>(op, inputs, block, count, first, end, from, to); break
    case FORMAT_Q4_MIN: quantized<NibblesMin>(op, inputs, block, count, first, end, from, to); break
    default: quantized<Bytes16>(op, inputs, block, count, first, end, from, to)
  }
}

function dense<F>(op: usize, scratch: usize, block: i32, count: i32, first: i32, end: i32, from: i32, to: i32): void {
  if (!ASC_FEATURE_SIMD) return rowsDenseScalar(op, block, count, first, end)
  const blockEnd = block + count
  if (count == 1) {
    oneRowDense<F>(op, block, first, end, from, to)
  } else if (isF32<F>() && count <= 3) {
    pairsDense<F>(op, block, count, first, end)
  } else if (count < manyRows<F>()) {
    const step = groupPanels(densePanelBytes(word(op, LINEAR_FORMAT), word(op, LINEAR_N_IN)))
    for (let group = first; group < end; group += step) fewRowsDense<F>(op, block, blockEnd, group, min(end, group + step))
  } else {
    for (let panel = first; panel < end; panel++) {
      const weights = panelInF32<F>(op, panel, scratch)
      for (let row = block; row < blockEnd; ) {
        const n = tileRows(blockEnd - row, mostRows<F32>())
        rowsDense<F32>(op, row, n, panel, weights)
        row += n
      }
    }
  }
}

/**
 * Two rows or three: two rows times two panels at a time, half the range apart, since two streams from memory are faster than one, by which
 * a tile of three rows is bound; the third row then finds a group of panels in L2.
 */
function pairsDense<F>(op: usize, row: i32, n: i32, first: i32, end: i32): void {
  const half = (end - first) >> 1
  const step = n == 2 ? half : max(4, groupPanels(densePanelBytes(word(op, LINEAR_FORMAT), word(op, LINEAR_N_IN))) & ~3)
  for (let group = first; group < first + half; group += step) {
    const stop = min(first + half, group + step)
    for (let panel = group; panel < stop; panel++) tileDense<F, Two, Two>(op, row, panel, densePanelAt(op, panel), half)
    if (n == 2) continue
    oneRowDense<F>(op, row + 2, group, stop, 0, STEPS)
    oneRowDense<F>(op, row + 2, group + half, stop + half, 0, STEPS)
  }
  if (first + 2 * half < end) rowsDense<F>(op, row, n, end - 1, densePanelAt(op, end - 1))
}

/** Rows [row, endRow) times panels [first, end), tile by tile, on the weights as they are stored. */
function fewRowsDense<F>(op: usize, row: i32, endRow: i32, first: i32, end: i32): void {
  while (row < endRow) {
    const n = tileRows(endRow - row, mostRows<F>())
    for (let panel = first; panel < end; panel++) rowsDense<F>(op, row, n, panel, densePanelAt(op, panel))
    row += n
  }
}

// @ts-ignore: decorator
@inline
function rowsDense<F>(op: usize, row: i32, n: i32, panel: i32, weights: usize): void {
  if (mostRows<F>() > 3 && n == 4) tileDense<F, Four, One>(op, row, panel, weights, 0)
  else if (n == 3) tileDense<F, Three, One>(op, row, panel, weights, 0)
  else tileDense<F, Two, One>(op, row, panel, weights, 0)
}

function quantized<F>(op: usize, inputs: usize, block: i32, count: i32, first: i32, end: i32, from: i32, to: i32): void {
  if (!ASC_FEATURE_SIMD) return rowsQuantizedScalar(op, inputs, block, count, first, end)
  if (count == 1) return oneRowQuantized<F>(op, inputs, block, count, 0, first, end, from, to)
  // The last rows of many, where they are no four, meet the panels as they are stored.
  const tiled = count < manyRows<F>() ? 0 : (count % ROW_TILE == 1 ? count - ROW_TILE - 1 : count) / ROW_TILE * ROW_TILE
  if (tiled > 0) {
    for (let panel = first; panel < end; panel++) {
      const weights = panelInI16<F>(op, inputs, count, panel)
      for (let row = 0; row < tiled; row += ROW_TILE) fourRowsQuantized(op, inputs, block, count, row, panel, weights)
    }
  }
  if (tiled == count) return
  const step = groupPanels(blockPanelBytes(formatOf<F>(), word(op, LINEAR_N_IN)))
  for (let group = first; group < end; group += step) fewRowsQuantized<F>(op, inputs, block, count, tiled, group, min(end, group + step))
}

/** By products of bytes, rows two by two: some panels stay in L2 for all of them. */
function dotted<F>(op: usize, inputs: usize, block: i32, count: i32, first: i32, end: i32, from: i32, to: i32): void {
  const step = count == 1 ? end - first : groupPanels(blockPanelBytes(formatOf<F>(), word(op, LINEAR_N_IN)))
  for (let group = first; group < end; group += step) {
    const stop = min(end, group + step)
    for (let row = 0; row + 1 < count; row += 2) {
      for (let panel = group; panel < stop; panel++) tileDot<F, Two, One>(op, inputs, block, count, row, panel, 0)
    }
    if (count & 1) oneRowDot<F>(op, inputs, block, count, count - 1, group, stop, from, to)
  }
}

/** Rows [row, count) of the block times panels [first, end), as `fewRowsDense`. */
function fewRowsQuantized<F>(op: usize, inputs: usize, block: i32, count: i32, row: i32, first: i32, end: i32): void {
  while (row < count) {
    const n = tileRows(count - row, mostRows<F>())
    for (let panel = first; panel < end; panel++) {
      if (mostRows<F>() > 3 && n == 4) tileQuantized<F, Four>(op, inputs, block, count, row, panel)
      else if (n == 3) tileQuantized<F, Three>(op, inputs, block, count, row, panel)
      else tileQuantized<F, Two>(op, inputs, block, count, row, panel)
    }
    row += n
  }
}
