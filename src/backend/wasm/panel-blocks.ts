/** Quantized matrices in panels: which form of assembly/formats/blocks.ts each of GGUF's types takes, and how its blocks are moved there. */

import {
  HALF_QUANT_BLOCK, HIGH_ROWS_FACTOR, PANEL_ROWS, Q4_BLOCK_BYTES, Q4_MIN_BLOCK_BYTES, Q4_ZERO, Q8_BLOCK_BYTES, Q8_HALF_BLOCK_BYTES,
  Q8_MIN_BLOCK_BYTES, Q8_ZERO, QUANT_BLOCK
} from '../../../assembly/abi.ts'
import { BLOCK_TYPES, type BlockFormat, type BlockType, createBlockParts } from '../../ggml-blocks.ts'

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
  const parts = createBlockParts(type)
  const floats = new Float32Array(target.buffer, target.byteOffset, target.byteLength / 4)
  const panelBytes = blockPanelBytes(format, nIn)
  const groupBytes = FORMS[blockFormOf(format)].bytes
  for (let at = 0, element = first; at < bytes.length; at += type.blockBytes, element += type.blockElements) {
    type.split(bytes, at, parts)
    const row = paddedRow(Math.floor(element / nIn))
    const place = Math.floor(row / PANEL_ROWS) * panelBytes + ((element % nIn) / type.groupElements) * groupBytes
    for (let group = 0; group < parts.scales.length; group++) {
      placeGroup(target, floats, { type, lane: row % PANEL_ROWS, place: place + group * groupBytes }, parts, group)
    }
  }
}

interface GroupPlace {
  readonly type: BlockType
  readonly lane: number
  /** Byte of the panel's block. */
  readonly place: number
}

const HALF_ROWS = PANEL_ROWS / 2

function placeGroup(
  target: Uint8Array, floats: Float32Array, { type, lane, place }: GroupPlace,
  { integers, scales, minima }: { readonly integers: Int8Array; readonly scales: Float32Array; readonly minima: Float32Array }, group: number
): void {
  const { groupElements, hasMinimum, bits } = type
  const isNibbles = bits === 4
  floats[place / 4 + lane] = isNibbles && lane >= HALF_ROWS ? scales[group] / HIGH_ROWS_FACTOR : scales[group]
  if (hasMinimum) floats[place / 4 + PANEL_ROWS + lane] = minima[group]
  const weights = place + 4 * PANEL_ROWS * (hasMinimum ? 2 : 1)
  const zero = hasMinimum ? 0 : isNibbles ? Q4_ZERO : Q8_ZERO
  for (let k = 0; k < groupElements; k++) {
    const stored = integers[group * groupElements + k] + zero
    const inQuad = (k & 1) * 2 + ((k & 2) >> 1)
    if (!isNibbles) {
      target[weights + (k >> 2) * 32 + lane * 4 + inQuad] = stored
    } else {
      const byte = weights + (k >> 2) * 16 + (lane & 3) * 4 + inQuad
      // Rows 0 to 3 in the low halves, rows 4 to 7 in the high.
      target[byte] = lane < HALF_ROWS ? (target[byte] & 0xf0) | stored : (target[byte] & 0x0f) | (stored << 4)
    }
  }
}
