/** Writes a program into linear memory as the records of assembly/abi.ts. */

import * as abi from '../../../assembly/abi.ts'
import { isParameter, type Op, type OpKind, type OpOf, type Parameter, type Program, scanGroups, type ScanInput, type View } from '../../program/ops.ts'
import type { MemoryMap } from './memory-map.ts'
import { groupChannels, type PanelForm, type PanelsLayout } from './packing.ts'

/** One record: `set` takes word offsets of the ABI. */
export interface Record32 {
  set(word: number, value: number): void
  setFloat(word: number, value: number): void
  /** Address and stride of a view in two neighbouring words. */
  setView(word: number, view: View): void
  /** Address of a parameter, 0 for none. */
  setParameter(word: number, parameter: Parameter | null): void
  /** The format of a packed matrix. */
  setFormat(word: number, parameter: Parameter): void
  setCode(code: number, out: View): void
  readonly map: MemoryMap
  /** The whole of wasm memory. */
  readonly memory: ArrayBufferLike
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
  /** After which ops threads meet; undefined where there is one alone. */
  readonly barriers: readonly boolean[] | undefined
}

export function encodeProgram(program: Program, { map, memory, further, barriers }: EncodeOptions): void {
  const all = { ...encoders, ...further }
  program.ops.forEach((op, i) => {
    const address = map.ops + 4 * abi.OP_WORDS * i
    const words = new Uint32Array(memory, address, abi.OP_WORDS)
    const encode = all[op.kind] as (op: Op, record: Record32) => void
    encode(op, createRecord({ map, memory }, words, new Float32Array(memory, address, abi.OP_WORDS)))
    if (barriers?.[i]) words[abi.OP_FLAGS] |= abi.FLAG_BARRIER
  })
}

export function panelsOf(map: MemoryMap, parameter: Parameter): PanelsLayout {
  const layout = map.layout(parameter)
  if (layout.kind !== 'panels') throw new TypeError(`${parameter.name}: needed as panels`)
  return layout
}

function createRecord({ map, memory }: Pick<Record32, 'map' | 'memory'>, words: Uint32Array, floats: Float32Array): Record32 {
  return {
    set(word, value) {
      words[word] = value
    },
    setFloat(word, value) {
      floats[word] = value
    },
    setView(word, view) {
      const { address, stride } = map.view(view)
      words[word] = address
      words[word + 1] = stride
    },
    setParameter(word, parameter) {
      words[word] = parameter === null ? 0 : map.parameter(parameter)
    },
    setFormat(word, parameter) {
      words[word] = formatCode(panelsOf(map, parameter))
    },
    setCode(code, out) {
      words[abi.OP_CODE] = code
      words[abi.OP_FLAGS] = out.buffer.rows === 'token' ? 0 : abi.ROWS_LOGIT
    },
    map,
    memory
  }
}

/** For kernels that store whole panels or vectors: what follows an output in its row must be padding, as far as the last panel goes. */
function checkPanelsFit({ buffer, offset, width }: View): void {
  const roundUp = (value: number): number => Math.ceil(value / abi.PANEL_ROWS) * abi.PANEL_ROWS
  const isLast = offset + width === buffer.width && offset + roundUp(width) <= roundUp(buffer.width)
  if (width % abi.PANEL_ROWS !== 0 && !isLast) {
    throw new TypeError(`buffer ${buffer.name}: output columns ${offset} to ${offset + width} neither fill panels of ${abi.PANEL_ROWS} nor end the row`)
  }
}

const encoders: Encoders<FirstKind> = {
  embed(op, record) {
    record.setCode(abi.CODE_EMBED, op.out)
    record.setParameter(abi.EMBED_WEIGHT, op.weight)
    record.setFormat(abi.EMBED_FORMAT, op.weight)
    record.set(abi.EMBED_WIDTH, op.out.width)
    record.setView(abi.EMBED_OUT, op.out)
  },

  gatherRows(op, record) {
    record.setCode(abi.CODE_GATHER_ROWS, op.out)
    record.setView(abi.GATHER_X, op.x)
    record.set(abi.GATHER_WIDTH, op.out.width)
    record.setView(abi.GATHER_OUT, op.out)
  },

  rmsNorm(op, record) {
    record.setCode(abi.CODE_RMS_NORM, op.out)
    record.setView(abi.NORM_X, op.x)
    record.set(abi.NORM_WIDTH, op.x.width)
    record.setParameter(abi.NORM_WEIGHT, op.weight)
    record.setFloat(abi.NORM_EPS, op.eps)
    record.set(abi.NORM_GROUP_WIDTH, op.groupWidth)
    if (op.gate) record.setView(abi.NORM_GATE, op.gate)
    record.setView(abi.NORM_OUT, op.out)
  },

  linear(op, record) {
    checkPanelsFit(op.out)
    record.setCode(abi.CODE_LINEAR, op.out)
    record.setView(abi.LINEAR_X, op.x)
    record.set(abi.LINEAR_N_IN, op.x.width)
    record.setParameter(abi.LINEAR_WEIGHT, op.weight)
    record.setFormat(abi.LINEAR_FORMAT, op.weight)
    record.set(abi.LINEAR_N_OUT, op.out.width)
    record.setParameter(abi.LINEAR_BIAS, op.bias)
    record.setView(abi.LINEAR_OUT, op.out)
    record.set(abi.LINEAR_ACCUMULATE, Number(op.accumulate))
  },

  conv1d(op, record) {
    checkPanelsFit(op.out)
    record.setCode(abi.CODE_CONV1D, op.out)
    record.setView(abi.CONV_X, op.x)
    record.set(abi.CONV_WIDTH, op.x.width)
    record.setParameter(abi.CONV_WEIGHT, op.weight)
    record.set(abi.CONV_N_TAPS, op.weight.shape[2])
    record.setParameter(abi.CONV_BIAS, op.bias)
    record.set(abi.CONV_STATE, 4 * op.state.offset)
    record.setView(abi.CONV_OUT, op.out)
    record.set(abi.CONV_SILU, Number(op.activation === 'silu'))
  },

  selectiveScan(op, record) {
    const setInput = (word: number, input: ScanInput): void => {
      if (isParameter(input)) {
        record.setParameter(word, input)
        record.set(word + 1, 0)
      } else {
        record.setView(word, input)
      }
      record.set(word + 2, op.x.width / scanGroups(op, input))
    }
    record.setCode(abi.CODE_SELECTIVE_SCAN, op.out)
    record.setView(abi.SCAN_X, op.x)
    record.setView(abi.SCAN_DT, op.dt)
    if (op.z) record.setView(abi.SCAN_Z, op.z)
    record.setParameter(abi.SCAN_A, op.A)
    setInput(abi.SCAN_B, op.B)
    setInput(abi.SCAN_C, op.C)
    record.setParameter(abi.SCAN_D, op.D)
    record.setParameter(abi.SCAN_DT_BIAS, op.dtBias)
    record.set(abi.SCAN_DT_SOFTPLUS, Number(op.dtSoftplus))
    record.set(abi.SCAN_D_INNER, op.x.width)
    record.set(abi.SCAN_D_STATE, op.dState)
    record.set(abi.SCAN_GROUP_CHANNELS, groupChannels(op))
    record.set(abi.SCAN_STATE, 4 * op.state.offset)
    record.setView(abi.SCAN_OUT, op.out)
  }
}
