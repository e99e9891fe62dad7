/** Writes a program into linear memory as the records of assembly/abi.ts. */

import * as abi from '../../../assembly/abi.ts'
import { planBarriers } from '../../program/barriers.ts'
import {
  type ActivationFunction, type ExpertLinearOp, isParameter, type KeyValuePart, type Op, type OpKind, type OpOf, type Parameter, type Program, scanGroups,
  type ScanInput, type View
} from '../../program/ops.ts'
import { expertScratchStart, expertSizes, type MemoryMap, rotaryOf } from './memory-map.ts'
import { groupChannels, packedBytes, panelBytes, type PanelForm, type PanelsLayout } from './packing.ts'

/** One record: `set` takes word offsets of the ABI. */
interface Record32 {
  set(word: number, value: number): void
  setFloat(word: number, value: number): void
  /** Address and stride of a view in two neighbouring words. */
  setView(word: number, view: View): void
  /** Address of a parameter, 0 for none. */
  setParameter(word: number, parameter: Parameter | null): void
  /** The format of a packed matrix. */
  setFormat(word: number, parameter: Parameter): void
  setCode(code: number, out: View): void
  /** Where a layer's keys and values lie. */
  setCache(part: KeyValuePart): void
  readonly map: MemoryMap
}

const FORMAT_CODES: Readonly<Record<PanelForm, number>> = {
  f32: abi.FORMAT_F32, bf16: abi.FORMAT_BF16, f16: abi.FORMAT_F16,
  q8: abi.FORMAT_Q8, q4: abi.FORMAT_Q4, q8Min: abi.FORMAT_Q8_MIN, q4Min: abi.FORMAT_Q4_MIN, q8Half: abi.FORMAT_Q8_HALF,
  q8Dot: abi.FORMAT_Q8_DOT, q4Dot: abi.FORMAT_Q4_DOT
}

const FUNCTION_CODES: Readonly<Record<ActivationFunction, number>> = { silu: abi.FUNCTION_SILU, gelu: abi.FUNCTION_GELU, relu2: abi.FUNCTION_RELU2 }

/** `memory` is the whole of wasm memory. */
export function encodeProgram(program: Program, map: MemoryMap, memory: ArrayBufferLike): void {
  const barriers = planBarriers(program.ops)
  program.ops.forEach((op, i) => {
    const address = map.ops + 4 * abi.OP_WORDS * i
    const words = new Uint32Array(memory, address, abi.OP_WORDS)
    encodeOp(op, createRecord(map, words, new Float32Array(memory, address, abi.OP_WORDS)))
    if (barriers[i]) words[abi.OP_FLAGS] |= abi.FLAG_BARRIER
    if (op.kind === 'expertLinear') new Uint32Array(memory, map.experts(op), abi.EXPERT_ENTRY_WORDS * op.nExperts).set(expertTable(op, map))
  })
}

/** An entry for each expert: in one tensor they lie one after the other. */
function expertTable({ weights, nExperts }: ExpertLinearOp, map: MemoryMap): number[] {
  return Array.from({ length: nExperts }, (_, expert) => {
    const parameter = weights.length === 1 ? weights[0] : weights[expert]
    const layout = panelsOf(map, parameter)
    const offset = weights.length === 1 ? expert * (packedBytes(layout) / nExperts) : 0
    return [map.parameter(parameter) + offset, FORMAT_CODES[layout.form], panelBytes(layout)]
  }).flat()
}

function panelsOf(map: MemoryMap, parameter: Parameter): PanelsLayout {
  const layout = map.layout(parameter)
  if (layout.kind !== 'panels') throw new TypeError(`${parameter.name}: needed as panels`)
  return layout
}

function createRecord(map: MemoryMap, words: Uint32Array, floats: Float32Array): Record32 {
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
      words[word] = FORMAT_CODES[panelsOf(map, parameter).form]
    },
    setCode(code, out) {
      words[abi.OP_CODE] = code
      words[abi.OP_FLAGS] = out.buffer.rows === 'token' ? 0 : abi.ROWS_LOGIT
    },
    setCache(part) {
      const { keys, values, keyHeadBytes, valueHeadBytes, headDim, nHeads } = map.keyValue(part)
      words[abi.CACHE_KEYS] = keys
      words[abi.CACHE_VALUES] = values
      words[abi.CACHE_KEY_HEAD_BYTES] = keyHeadBytes
      words[abi.CACHE_VALUE_HEAD_BYTES] = valueHeadBytes
      words[abi.CACHE_HEAD_DIM] = headDim
      words[abi.CACHE_N_HEADS] = nHeads
    },
    map
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

const encoders: { readonly [K in OpKind]: (op: OpOf<K>, record: Record32) => void } = {
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
  },

  ssdScan(op, record) {
    const nHeads = op.dt.width
    record.setCode(record.map.ssd === 'chunked' ? abi.CODE_SSD_CHUNKS : abi.CODE_SSD_SCAN, op.out)
    record.setView(abi.SSD_X, op.x)
    record.setView(abi.SSD_DT, op.dt)
    record.setParameter(abi.SSD_A, op.A)
    record.setView(abi.SSD_B, op.B)
    record.setView(abi.SSD_C, op.C)
    record.setParameter(abi.SSD_D, op.D)
    record.setParameter(abi.SSD_DT_BIAS, op.dtBias)
    record.setFloat(abi.SSD_DT_MIN, op.dtLimit[0])
    record.setFloat(abi.SSD_DT_MAX, op.dtLimit[1])
    record.set(abi.SSD_N_HEADS, nHeads)
    record.set(abi.SSD_HEAD_DIM, op.x.width / nHeads)
    record.set(abi.SSD_D_STATE, op.dState)
    record.set(abi.SSD_GROUP_HEADS, nHeads / (op.B.width / op.dState))
    record.set(abi.SSD_STATE, 4 * op.state.offset)
    record.setView(abi.SSD_OUT, op.out)
  },

  rotary(op, record) {
    record.setCode(abi.CODE_ROTARY, op.out)
    record.setView(abi.ROTARY_X, op.x)
    record.set(abi.ROTARY_N_HEADS, op.x.width / op.headDim)
    record.set(abi.ROTARY_HEAD_DIM, op.headDim)
    record.set(abi.ROTARY_DIM, op.rotaryDim)
    record.set(abi.ROTARY_TABLE, rotaryOf(record.map.rotaries, op)?.address ?? 0)
  },

  cacheKeyValue(op, record) {
    record.setCode(abi.CODE_CACHE_KEY_VALUE, op.out)
    record.setCache(op.cache)
    record.setView(abi.CACHE_KEY, op.key)
    record.setView(abi.CACHE_VALUE, op.value)
  },

  attention(op, record) {
    record.setCode(abi.CODE_ATTENTION, op.out)
    record.setCache(op.cache)
    record.setView(abi.ATTENTION_Q, op.q)
    record.set(abi.ATTENTION_N_HEADS, op.q.width / op.headDim)
    record.setFloat(abi.ATTENTION_SCALE, op.scale * Math.LOG2E)
    record.setView(abi.ATTENTION_OUT, op.out)
  },

  activation(op, record) {
    record.setCode(abi.CODE_ACTIVATION, op.out)
    record.setView(abi.ACTIVATION_X, op.x)
    record.set(abi.ACTIVATION_WIDTH, op.out.width)
    record.set(abi.ACTIVATION_FUNCTION, FUNCTION_CODES[op.function])
    if (op.by) record.setView(abi.ACTIVATION_BY, op.by)
    record.setView(abi.ACTIVATION_OUT, op.out)
  },

  scaledAdd(op, record) {
    record.setCode(abi.CODE_SCALED_ADD, op.out)
    record.setView(abi.SCALED_X, op.x)
    record.set(abi.SCALED_WIDTH, op.out.width)
    record.setFloat(abi.SCALED_FACTOR, op.factor)
    record.set(abi.SCALED_ACCUMULATE, Number(op.accumulate))
    record.setView(abi.SCALED_OUT, op.out)
  },

  route(op, record) {
    record.setCode(abi.CODE_ROUTE, op.out)
    record.setView(abi.ROUTE_X, op.x)
    record.set(abi.ROUTE_N_EXPERTS, op.x.width)
    record.set(abi.ROUTE_TOP_K, op.topK)
    record.set(abi.ROUTE_OVER_ALL, Number(op.softmaxOver === 'all'))
    record.setView(abi.ROUTE_OUT, op.out)
  },

  expertLinear(op, record) {
    const { nIn, nOut } = expertSizes(op)
    record.setCode(abi.CODE_EXPERT_LINEAR, op.out)
    record.setView(abi.EXPERT_X, op.x)
    record.set(abi.EXPERT_X_STEP, op.isPerChoice ? nIn : 0)
    record.set(abi.EXPERT_N_IN, nIn)
    record.set(abi.EXPERT_N_OUT, nOut)
    record.setView(abi.EXPERT_CHOICES, op.choices)
    record.set(abi.EXPERT_TOP_K, op.topK)
    record.set(abi.EXPERT_N_EXPERTS, op.nExperts)
    record.set(abi.EXPERT_TABLE, record.map.experts(op))
    record.set(abi.EXPERT_SCRATCH, expertScratchStart(op, (weight) => record.map.layout(weight)))
    record.setView(abi.EXPERT_OUT, op.out)
  },

  mixExperts(op, record) {
    record.setCode(abi.CODE_MIX_EXPERTS, op.out)
    record.setView(abi.MIX_X, op.x)
    record.set(abi.MIX_WIDTH, op.out.width)
    record.setView(abi.MIX_CHOICES, op.choices)
    record.set(abi.MIX_TOP_K, op.topK)
    record.set(abi.MIX_ACCUMULATE, Number(op.accumulate))
    record.setView(abi.MIX_OUT, op.out)
  }
}

function encodeOp(op: Op, record: Record32): void {
  const encode = encoders[op.kind] as (op: Op, record: Record32) => void
  encode(op, record)
}
