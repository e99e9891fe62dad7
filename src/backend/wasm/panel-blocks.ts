/** Quantized matrices in panels: which form of assembly/formats/blocks.ts each of GGUF's types takes, and how its blocks are moved there. */

import {
  HALF_QUANT_BLOCK, HIGH_ROWS_FACTOR, PANEL_ROWS, Q4_BLOCK_BYTES, Q4_MIN_BLOCK_BYTES, Q4_ZERO, Q8_BLOCK_BYTES, Q8_HALF_BLOCK_BYTES,
  Q8_MIN_BLOCK_BYTES, Q8_ZERO, QUANT_BLOCK
} from '../../../assembly/abi.ts'
import { BLOCK_TYPES, type BlockFormat, type BlockParts, type BlockType, createBlockParts } from '../../ggml-blocks.ts'

/** Names as the codes FORMAT_* of the ABI have them. */
export type BlockForm = 'q8' | 'q4' | 'q8Min' | 'q4Min' | 'q8Half'

interface FormLayout {
  /** Inputs of a block, the group of a scale. */
  readonly inputs: number
  /** Of a panel's block. */
  readonly bytes: number
}

const FORMS: Readonly<Record<BlockForm, FormLayout>> = {
  q8: { inputs: QUANT_BLOCK, bytes: Q8_BLOCK_BYTES },
  q4: { inputs: QUANT_BLOCK, bytes: Q4_BLOCK_BYTES },
  q8Min: { inputs: QUANT_BLOCK, bytes: Q8_MIN_BLOCK_BYTES },
  q4Min: { inputs: QUANT_BLOCK, bytes: Q4_MIN_BLOCK_BYTES },
  q8Half: { inputs: HALF_QUANT_BLOCK, bytes: Q8_HALF_BLOCK_BYTES }
}

/** Five and six bits are kept in eight: their products are as fast, and unpacking them is not. */
export function blockFormOf(format: BlockFormat): BlockForm {
  const { bits, hasMinimum, groupElements } = BLOCK_TYPES[format]
  if (groupElements === HALF_QUANT_BLOCK) return 'q8Half'
  if (bits === 4) return hasMinimum ? 'q4Min' : 'q4'
  return hasMinimum ? 'q8Min' : 'q8'
}

/** Bytes of PANEL_ROWS rows of nIn inputs. */
export function blockPanelBytes(format: BlockFormat, nIn: number): number {
  const { inputs, bytes } = FORMS[blockFormOf(format)]
  return (nIn / inputs) * bytes
}

/** Inputs that share a scale in a panel of this format: the activations have theirs for as many. */
export function blockInputsOf(format: BlockFormat): number {
  return FORMS[blockFormOf(format)].inputs
}

interface BlockMatrix {
  readonly nIn: number
  readonly format: BlockFormat
  /** The row among those of all panels: several matrices fill their last panels or not. */
  readonly paddedRow: (row: number) => number
}

/** Moves whole blocks of a matrix with rows of nIn, from its element `first` on, to their places in `target`. */
export function packBlocks(target: Uint8Array, { nIn, format, paddedRow }: BlockMatrix, bytes: Uint8Array, first: number): void {
  const type = BLOCK_TYPES[format]
  const { blockBytes, blockElements, groupElements } = type
  const parts = createBlockParts(type)
  const panels: Panels = {
    floats: new Float32Array(target.buffer, target.byteOffset, target.byteLength / 4),
    words: new Uint32Array(target.buffer, target.byteOffset, target.byteLength / 4)
  }
  const place = type.bits === 4 ? placeNibbles : placeBytes
  const panelWords = blockPanelBytes(format, nIn) / 4
  const groupWords = FORMS[blockFormOf(format)].bytes / 4
  let matrixRow = Math.floor(first / nIn)
  let column = first % nIn
  for (let at = 0; at < bytes.length; at += blockBytes) {
    type.split(bytes, at, parts)
    const row = paddedRow(matrixRow)
    let word = Math.floor(row / PANEL_ROWS) * panelWords + (column / groupElements) * groupWords
    for (let group = 0; group < parts.scales.length; group++, word += groupWords) place(panels, { word, lane: row % PANEL_ROWS }, type, parts, group)
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
}

const HALF_ROWS = PANEL_ROWS / 2

/** A row's four inputs are a word: the first, the third, the second, the fourth. */
function placeBytes({ floats, words }: Panels, { word, lane }: GroupPlace, { groupElements, hasMinimum }: BlockType, { integers, scales, minima }: BlockParts, group: number): void {
  floats[word + lane] = scales[group]
  if (hasMinimum) floats[word + PANEL_ROWS + lane] = minima[group]
  const zero = hasMinimum ? 0 : Q8_ZERO
  let at = word + PANEL_ROWS * (hasMinimum ? 2 : 1) + lane
  const first = group * groupElements
  for (let k = first; k < first + groupElements; k += 4, at += PANEL_ROWS) {
    words[at] = ((integers[k] + zero) & 255) | (((integers[k + 2] + zero) & 255) << 8) | (((integers[k + 1] + zero) & 255) << 16) | ((integers[k + 3] + zero) << 24)
  }
}

/** The same in halves of bytes: rows 0 to 3 in the low ones, rows 4 to 7 in the high ones of the same words. */
function placeNibbles({ floats, words }: Panels, { word, lane }: GroupPlace, { groupElements, hasMinimum }: BlockType, { integers, scales, minima }: BlockParts, group: number): void {
  const isHigh = lane >= HALF_ROWS
  floats[word + lane] = isHigh ? scales[group] / HIGH_ROWS_FACTOR : scales[group]
  if (hasMinimum) floats[word + PANEL_ROWS + lane] = minima[group]
  const zero = hasMinimum ? 0 : Q4_ZERO
  const shift = isHigh ? 4 : 0
  const others = isHigh ? 0x0f0f0f0f : 0xf0f0f0f0
  let at = word + PANEL_ROWS * (hasMinimum ? 2 : 1) + (lane % HALF_ROWS)
  const first = group * groupElements
  for (let k = first; k < first + groupElements; k += 4, at += HALF_ROWS) {
    const quad = (integers[k] + zero) | ((integers[k + 2] + zero) << 8) | ((integers[k + 1] + zero) << 16) | ((integers[k + 3] + zero) << 24)
    words[at] = (words[at] & others) | (quad << shift)
  }
}
