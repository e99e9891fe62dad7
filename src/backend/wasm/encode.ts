/** Writes a program into linear memory as the records of assembly/abi.ts. */

import * as abi from '../../../assembly/abi.ts'
import { isParameter, type Op, type OpKind, type OpOf, type Parameter, type Program, scanGroups, type ScanInput, type SelectiveScanOp, type View } from '../../program/ops.ts'
import type { MemoryMap } from './memory-map.ts'
import { groupChannels, type PanelForm, type PanelsLayout } from './packing.ts'

/** What a word of a record says: a number, or where a view (its address and its stride, in two words) or a parameter is; null for none. */
export type Field = number | View | Parameter | null

/** One record. */
export interface Record32 {
  /** `fields` by the word offsets of the ABI. */
  write(code: number, out: View, fields: Readonly<Record<number, Field>>): void
  /** The code of a packed matrix's format. */
  formatOf(parameter: Parameter): number
  readonly map: MemoryMap
  /** The whole of wasm memory. */
  readonly memory: ArrayBufferLike
}

/** A float32 as a word. */
export function floatBits(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0]
}

/** What Mamba-1's programs are made of, and with them the bare scan. */
type FirstKind = 'embed' | 'gatherRows' | 'rmsNorm' | 'linear' | 'conv1d' | 'selectiveScan'
/** All else is in further-ops.ts, and loaded for the programs that have it. */
export type FurtherKind = Exclude<OpKind, FirstKind>
export type Encoders<Kind extends OpKind> = { readonly [K in Kind]: (op: OpOf<K>, record: Record32) => void }

export function needsFurtherOps({ ops, keyValues }: Program): boolean {
  return keyValues.length > 0 || ops.some(({ kind }) => !Object.hasOwn(encoders, kind))
}

const FORMAT_CODES: Readonly<Record<PanelForm, number>> = {
  f32: abi.FORMAT_F32, bf16: abi.FORMAT_BF16, f16: abi.FORMAT_F16,
  q8: abi.FORMAT_Q8, q4: abi.FORMAT_Q4, q8Min: abi.FORMAT_Q8_MIN, q4Min: abi.FORMAT_Q4_MIN, q8Half: abi.FORMAT_Q8_HALF,
  q8Dot: abi.FORMAT_Q8_DOT, q4Dot: abi.FORMAT_Q4_DOT
}

export function formatCode({ form }: PanelsLayout): number {
  return FORMAT_CODES[form]
}

export interface EncodeOptions {
  readonly map: MemoryMap
  /** The whole of wasm memory. */
  readonly memory: ArrayBufferLike
  /** Where `needsFurtherOps` says so. */
  readonly further: Encoders<FurtherKind> | undefined
}

export function encodeProgram(program: Program, { map, memory, further }: EncodeOptions): void {
  const all = { ...encoders, ...further }
  program.ops.forEach((op, i) => {
    const encode = all[op.kind] as (op: Op, record: Record32) => void
    encode(op, createRecord({ map, memory }, recordAt(map, memory, i)))
  })
}

/** The words of op i's record. */
export function recordAt({ ops }: MemoryMap, memory: ArrayBufferLike, i: number): Uint32Array {
  return new Uint32Array(memory, ops + 4 * abi.OP_WORDS * i, abi.OP_WORDS)
}

export function panelsOf(map: MemoryMap, parameter: Parameter): PanelsLayout {
  const layout = map.layout(parameter)
  if (layout.kind !== 'panels') throw new TypeError(`${parameter.name}: needed as panels`)
  return layout
}

function createRecord({ map, memory }: Pick<Record32, 'map' | 'memory'>, words: Uint32Array): Record32 {
  return {
    write(code, out, fields) {
      words[abi.OP_CODE] = code
      words[abi.OP_FLAGS] = out.buffer.rows === 'token' ? 0 : abi.ROWS_LOGIT
      for (const [word, field] of Object.entries(fields)) words.set(wordsOf(map, field), Number(word))
    },
    formatOf: (parameter) => formatCode(panelsOf(map, parameter)),
    map,
    memory
  }
}

function wordsOf(map: MemoryMap, field: Field): readonly number[] {
  if (field === null) return [0]
  if (typeof field === 'number') return [field]
  if (isParameter(field)) return [map.parameter(field)]
  const { address, stride } = map.view(field)
  return [address, stride]
}

/** For kernels that store whole panels or vectors: what follows an output in its row must be padding, as far as the last panel goes. */
function checkPanelsFit({ buffer, offset, width }: View): void {
  const roundUp = (value: number): number => Math.ceil(value / abi.PANEL_ROWS) * abi.PANEL_ROWS
  const isLast = offset + width === buffer.width && offset + roundUp(width) <= roundUp(buffer.width)
  if (width % abi.PANEL_ROWS !== 0 && !isLast) {
    throw new TypeError(`buffer ${buffer.name}: output columns ${offset} to ${offset + width} neither fill panels of ${abi.PANEL_ROWS} nor end the row`)
  }
}

/** The scan's B or C: for each position or fixed, and the channels that share it. */
function inputFields(op: SelectiveScanOp, word: number, input: ScanInput): Readonly<Record<number, Field>> {
  return { [word]: input, [word + 2]: op.x.width / scanGroups(op, input) }
}

const encoders: Encoders<FirstKind> = {
  embed(op, record) {
    record.write(abi.CODE_EMBED, op.out, {
      [abi.EMBED_WEIGHT]: op.weight,
      [abi.EMBED_FORMAT]: record.formatOf(op.weight),
      [abi.EMBED_WIDTH]: op.out.width,
      [abi.EMBED_OUT]: op.out
    })
  },

  gatherRows(op, record) {
    record.write(abi.CODE_GATHER_ROWS, op.out, {
      [abi.GATHER_X]: op.x,
      [abi.GATHER_WIDTH]: op.out.width,
      [abi.GATHER_OUT]: op.out
    })
  },

  rmsNorm(op, record) {
    record.write(abi.CODE_RMS_NORM, op.out, {
      [abi.NORM_X]: op.x,
      [abi.NORM_WIDTH]: op.x.width,
      [abi.NORM_WEIGHT]: op.weight,
      [abi.NORM_EPS]: floatBits(op.eps),
      [abi.NORM_GROUP_WIDTH]: op.groupWidth,
      [abi.NORM_GATE]: op.gate,
      [abi.NORM_OUT]: op.out
    })
  },

  linear(op, record) {
    checkPanelsFit(op.out)
    record.write(abi.CODE_LINEAR, op.out, {
      [abi.LINEAR_X]: op.x,
      [abi.LINEAR_N_IN]: op.x.width,
      [abi.LINEAR_WEIGHT]: op.weight,
      [abi.LINEAR_FORMAT]: record.formatOf(op.weight),
      [abi.LINEAR_N_OUT]: op.out.width,
      [abi.LINEAR_BIAS]: op.bias,
      [abi.LINEAR_OUT]: op.out,
      [abi.LINEAR_ACCUMULATE]: Number(op.accumulate)
    })
  },

  conv1d(op, record) {
    checkPanelsFit(op.out)
    record.write(abi.CODE_CONV1D, op.out, {
      [abi.CONV_X]: op.x,
      [abi.CONV_WIDTH]: op.x.width,
      [abi.CONV_WEIGHT]: op.weight,
      [abi.CONV_N_TAPS]: op.weight.shape[2],
      [abi.CONV_BIAS]: op.bias,
      [abi.CONV_STATE]: 4 * op.state.offset,
      [abi.CONV_OUT]: op.out,
      [abi.CONV_SILU]: Number(op.activation === 'silu')
    })
  },

  selectiveScan(op, record) {
    record.write(abi.CODE_SELECTIVE_SCAN, op.out, {
      [abi.SCAN_X]: op.x,
      [abi.SCAN_DT]: op.dt,
      [abi.SCAN_Z]: op.z,
      [abi.SCAN_A]: op.A,
      ...inputFields(op, abi.SCAN_B, op.B),
      ...inputFields(op, abi.SCAN_C, op.C),
      [abi.SCAN_D]: op.D,
      [abi.SCAN_DT_BIAS]: op.dtBias,
      [abi.SCAN_DT_SOFTPLUS]: Number(op.dtSoftplus),
      [abi.SCAN_D_INNER]: op.x.width,
      [abi.SCAN_D_STATE]: op.dState,
      [abi.SCAN_GROUP_CHANNELS]: groupChannels(op),
      [abi.SCAN_STATE]: 4 * op.state.offset,
      [abi.SCAN_OUT]: op.out
    })
  }
}
