/** Quantized blocks to their places in panels (panel-blocks.ts), by way of numbers. Loaded where there are other ones than Q8_0, which the core packs itself. */

import { HIGH_ROWS_FACTOR, PANEL_ROWS, Q4_ZERO, Q8_ZERO, SUM_BITS } from '../../../assembly/abi.ts'
import { BLOCK_TYPES, type BlockFormat, type BlockType, isBlockFormat } from '../../ggml-blocks.ts'
import { type BlockParts, createBlockParts, SPLITS } from '../../ggml-splits.ts'
import { isDense, paddedRow, type PanelsLayout } from './packing.ts'
import { type BlockForm, blockPanelBytes } from './panel-blocks.ts'

/** Writes blocks, row-major from element `first` of the matrices on, to their places in `target`, their packed memory. */
export function packBlocks({ format, form, nOut, nIn }: PanelsLayout, target: Uint8Array, bytes: Uint8Array, first: number): void {
  if (!isBlockFormat(format) || isDense(form)) throw new TypeError(`${format}: no format of blocks`)
  packMatrix(target, { nIn, format, form, paddedRow: (row) => paddedRow(row, nOut) }, bytes, first)
}

interface BlockMatrix {
  readonly nIn: number
  readonly format: BlockFormat
  readonly form: BlockForm
  /** The row among those of all panels: several matrices fill their last panels or not. */
  readonly paddedRow: (row: number) => number
}

/** Moves whole blocks of a matrix with rows of nIn, from its element `first` on, to their places in `target`. */
function packMatrix(target: Uint8Array, { nIn, format, form, paddedRow }: BlockMatrix, bytes: Uint8Array, first: number): void {
  const type = BLOCK_TYPES[format]
  const { blockBytes, blockElements, groupElements } = type
  const parts = createBlockParts(type)
  const split = SPLITS[format]
  const panels: Panels = {
    floats: new Float32Array(target.buffer, target.byteOffset, target.byteLength / 4),
    words: new Uint32Array(target.buffer, target.byteOffset, target.byteLength / 4)
  }
  const place = type.bits === 4 ? placeNibbles : placeBytes
  const panelWords = blockPanelBytes(form, nIn) / 4
  const groupWords = (panelWords * groupElements) / nIn
  let matrixRow = Math.floor(first / nIn)
  let column = first % nIn
  for (let at = 0; at < bytes.length; at += blockBytes) {
    split(bytes, at, parts)
    const row = paddedRow(matrixRow)
    let word = Math.floor(row / PANEL_ROWS) * panelWords + (column / groupElements) * groupWords
    for (let group = 0; group < parts.scales.length; group++, word += groupWords) place(panels, { word, lane: row % PANEL_ROWS, form }, type, parts, group)
    column += blockElements
    if (column === nIn) {
      column = 0
      matrixRow++
    }
  }
}

/** The same memory twice. */
interface Panels {
  readonly floats: Float32Array
  readonly words: Uint32Array
}

interface GroupPlace {
  /** Where the panel's block starts. */
  readonly word: number
  readonly lane: number
  readonly form: BlockForm
}

const HALF_ROWS = PANEL_ROWS / 2

function isDot(form: BlockForm): boolean {
  return form === 'q8Dot' || form === 'q4Dot'
}

/** The sum of a row's block, for the low bits of its scale. */
function sumBits(integers: BlockParts['integers'], first: number, end: number): number {
  let sum = 0
  for (let k = first; k < end; k++) sum += integers[k]
  return sum & (2 ** SUM_BITS - 1)
}

/** A row's four inputs are a word: the first, the third, the second, the fourth. */
function placeBytes({ floats, words }: Panels, { word, lane, form }: GroupPlace, { groupElements, hasMinimum }: BlockType, { integers, scales, minima }: BlockParts, group: number): void {
  const first = group * groupElements
  floats[word + lane] = scales[group]
  if (hasMinimum) floats[word + PANEL_ROWS + lane] = minima[group]
  if (isDot(form)) words[word + lane] |= sumBits(integers, first, first + groupElements)
  const zero = hasMinimum || isDot(form) ? 0 : Q8_ZERO
  let at = word + PANEL_ROWS * (hasMinimum ? 2 : 1) + lane
  for (let k = first; k < first + groupElements; k += 4, at += PANEL_ROWS) {
    words[at] = ((integers[k] + zero) & 255) | (((integers[k + 2] + zero) & 255) << 8) | (((integers[k + 1] + zero) & 255) << 16) | ((integers[k + 3] + zero) << 24)
  }
}

/** The same in halves of bytes: rows 0 to 3 in the low ones, rows 4 to 7 in the high ones of the same words. */
function placeNibbles({ floats, words }: Panels, { word, lane, form }: GroupPlace, { groupElements, hasMinimum }: BlockType, { integers, scales, minima }: BlockParts, group: number): void {
  const isHigh = lane >= HALF_ROWS
  const first = group * groupElements
  floats[word + lane] = isHigh || isDot(form) ? scales[group] / HIGH_ROWS_FACTOR : scales[group]
  if (hasMinimum) floats[word + PANEL_ROWS + lane] = minima[group]
  if (isDot(form)) words[word + lane] |= sumBits(integers, first, first + groupElements)
  const zero = hasMinimum || isDot(form) ? 0 : Q4_ZERO
  const shift = isHigh ? 4 : 0
  const others = isHigh ? 0x0f0f0f0f : 0xf0f0f0f0
  let at = word + PANEL_ROWS * (hasMinimum ? 2 : 1) + (lane % HALF_ROWS)
  for (let k = first; k < first + groupElements; k += 4, at += HALF_ROWS) {
    // A number below 0 has ones above its four bits.
    const quad = ((integers[k] + zero) & 15) | (((integers[k + 2] + zero) & 15) << 8) | (((integers[k + 1] + zero) & 15) << 16) | (((integers[k + 3] + zero) & 15) << 24)
    words[at] = (words[at] & others) | (quad << shift)
  }
}
