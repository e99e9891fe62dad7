/** Quantized matrices in panels: which form of assembly/formats/blocks.ts each of GGUF's types takes, and their sizes. How blocks are moved there: pack-blocks.ts. */

import { HALF_QUANT_BLOCK, Q4_BLOCK_BYTES, Q4_MIN_BLOCK_BYTES, Q8_BLOCK_BYTES, Q8_HALF_BLOCK_BYTES, Q8_MIN_BLOCK_BYTES, QUANT_BLOCK } from '../../../assembly/abi.ts'
import { BLOCK_TYPES, type BlockFormat } from '../../ggml-blocks.ts'

/** Names as the codes FORMAT_* of the ABI have them. */
export type BlockForm = 'q8' | 'q4' | 'q8Min' | 'q4Min' | 'q8Half' | 'q8Dot' | 'q4Dot'

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
  q8Half: { inputs: HALF_QUANT_BLOCK, bytes: Q8_HALF_BLOCK_BYTES },
  q8Dot: { inputs: QUANT_BLOCK, bytes: Q8_BLOCK_BYTES },
  q4Dot: { inputs: QUANT_BLOCK, bytes: Q4_BLOCK_BYTES }
}

/** Five and six bits are kept in eight: their products are as fast, and unpacking them is not. `hasDot`: for a build that multiplies bytes. */
export function blockFormOf(format: BlockFormat, hasDot: boolean): BlockForm {
  const { bits, hasMinimum, groupElements } = BLOCK_TYPES[format]
  if (groupElements === HALF_QUANT_BLOCK) return 'q8Half'
  if (bits === 4) return hasMinimum ? 'q4Min' : hasDot ? 'q4Dot' : 'q4'
  return hasMinimum ? 'q8Min' : hasDot ? 'q8Dot' : 'q8'
}

/** Bytes of PANEL_ROWS rows of nIn inputs. */
export function blockPanelBytes(form: BlockForm, nIn: number): number {
  const { inputs, bytes } = FORMS[form]
  return (nIn / inputs) * bytes
}

/** Inputs that share a scale in a panel of this form: the activations have theirs for as many. */
export function blockInputsOf(form: BlockForm): number {
  return FORMS[form].inputs
}
