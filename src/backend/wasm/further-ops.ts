/** What the programs of other models than Mamba-1's need of this backend: their ops as records, rotary angles, keys and values. Loaded for those alone. */

import * as abi from '../../../assembly/abi.ts'
import { KEY_BLOCK, LANES } from '../../../assembly/abi.ts'
import type { Pace } from '../../pace.ts'
import type { ActivationFunction, ExpertLinearOp, Program } from '../../program/ops.ts'
import { rotaryRow } from '../../program/rotary.ts'
import type { Batch } from '../backend.ts'
import { type Encoders, type Field, floatBits, formatCode, type FurtherKind, panelsOf } from './encode.ts'
import { expertScratchStart, expertSizes, rotaryOf } from './further-sizes.ts'
import type { KeyValueLayout } from './key-value.ts'
import type { MemoryMap } from './memory-map.ts'
import { packedBytes, panelBytes, roundUp } from './packing.ts'

export { furtherSizes } from './further-sizes.ts'

const FUNCTION_CODES: Readonly<Record<ActivationFunction, number>> = { silu: abi.FUNCTION_SILU, gelu: abi.FUNCTION_GELU, relu2: abi.FUNCTION_RELU2 }

/** An entry for each expert: in one tensor they lie one after the other. */
function expertTable({ weights, nExperts }: ExpertLinearOp, map: MemoryMap): number[] {
  return Array.from({ length: nExperts }, (_, expert) => {
    const parameter = weights.length === 1 ? weights[0] : weights[expert]
    const layout = panelsOf(map, parameter)
    const offset = weights.length === 1 ? expert * (packedBytes(layout) / nExperts) : 0
    return [map.parameter(parameter) + offset, formatCode(layout), panelBytes(layout)]
  }).flat()
}

/** Where a layer's keys and values lie. */
function cacheFields({ keys, values, keyHeadBytes, valueHeadBytes, headDim, nHeads }: KeyValueLayout): Readonly<Record<number, Field>> {
  return {
    [abi.CACHE_KEYS]: keys,
    [abi.CACHE_VALUES]: values,
    [abi.CACHE_KEY_HEAD_BYTES]: keyHeadBytes,
    [abi.CACHE_VALUE_HEAD_BYTES]: valueHeadBytes,
    [abi.CACHE_HEAD_DIM]: headDim,
    [abi.CACHE_N_HEADS]: nHeads
  }
}

export const furtherEncoders: Encoders<FurtherKind> = {
  ssdScan(op, record) {
    const nHeads = op.dt.width
    record.write(record.map.ssd === 'chunked' ? abi.CODE_SSD_CHUNKS : abi.CODE_SSD_SCAN, op.out, {
      [abi.SSD_X]: op.x,
      [abi.SSD_DT]: op.dt,
      [abi.SSD_A]: op.A,
      [abi.SSD_B]: op.B,
      [abi.SSD_C]: op.C,
      [abi.SSD_D]: op.D,
      [abi.SSD_DT_BIAS]: op.dtBias,
      [abi.SSD_DT_MIN]: floatBits(op.dtLimit[0]),
      [abi.SSD_DT_MAX]: floatBits(op.dtLimit[1]),
      [abi.SSD_N_HEADS]: nHeads,
      [abi.SSD_HEAD_DIM]: op.x.width / nHeads,
      [abi.SSD_D_STATE]: op.dState,
      [abi.SSD_GROUP_HEADS]: nHeads / (op.B.width / op.dState),
      [abi.SSD_STATE]: 4 * op.state.offset,
      [abi.SSD_OUT]: op.out
    })
  },

  rotary(op, record) {
    record.write(abi.CODE_ROTARY, op.out, {
      [abi.ROTARY_X]: op.x,
      [abi.ROTARY_N_HEADS]: op.x.width / op.headDim,
      [abi.ROTARY_HEAD_DIM]: op.headDim,
      [abi.ROTARY_DIM]: op.rotaryDim,
      [abi.ROTARY_TABLE]: rotaryOf(record.map.rotaries, op)?.address ?? 0
    })
  },

  cacheKeyValue(op, record) {
    record.write(abi.CODE_CACHE_KEY_VALUE, op.out, {
      ...cacheFields(record.map.keyValue(op.cache)),
      [abi.CACHE_KEY]: op.key,
      [abi.CACHE_VALUE]: op.value
    })
  },

  attention(op, record) {
    record.write(abi.CODE_ATTENTION, op.out, {
      ...cacheFields(record.map.keyValue(op.cache)),
      [abi.ATTENTION_Q]: op.q,
      [abi.ATTENTION_N_HEADS]: op.q.width / op.headDim,
      [abi.ATTENTION_SCALE]: floatBits(op.scale * Math.LOG2E),
      [abi.ATTENTION_OUT]: op.out
    })
  },

  activation(op, record) {
    record.write(abi.CODE_ACTIVATION, op.out, {
      [abi.ACTIVATION_X]: op.x,
      [abi.ACTIVATION_WIDTH]: op.out.width,
      [abi.ACTIVATION_FUNCTION]: FUNCTION_CODES[op.function],
      [abi.ACTIVATION_BY]: op.by,
      [abi.ACTIVATION_OUT]: op.out
    })
  },

  scaledAdd(op, record) {
    record.write(abi.CODE_SCALED_ADD, op.out, {
      [abi.SCALED_X]: op.x,
      [abi.SCALED_WIDTH]: op.out.width,
      [abi.SCALED_FACTOR]: floatBits(op.factor),
      [abi.SCALED_ACCUMULATE]: Number(op.accumulate),
      [abi.SCALED_OUT]: op.out
    })
  },

  route(op, record) {
    record.write(abi.CODE_ROUTE, op.out, {
      [abi.ROUTE_X]: op.x,
      [abi.ROUTE_N_EXPERTS]: op.x.width,
      [abi.ROUTE_TOP_K]: op.topK,
      [abi.ROUTE_OVER_ALL]: Number(op.softmaxOver === 'all'),
      [abi.ROUTE_OUT]: op.out
    })
  },

  expertLinear(op, record) {
    const { nIn, nOut } = expertSizes(op)
    new Uint32Array(record.memory, record.map.experts(op), abi.EXPERT_ENTRY_WORDS * op.nExperts).set(expertTable(op, record.map))
    record.write(abi.CODE_EXPERT_LINEAR, op.out, {
      [abi.EXPERT_X]: op.x,
      [abi.EXPERT_X_STEP]: op.isPerChoice ? nIn : 0,
      [abi.EXPERT_N_IN]: nIn,
      [abi.EXPERT_N_OUT]: nOut,
      [abi.EXPERT_CHOICES]: op.choices,
      [abi.EXPERT_TOP_K]: op.topK,
      [abi.EXPERT_N_EXPERTS]: op.nExperts,
      [abi.EXPERT_TABLE]: record.map.experts(op),
      [abi.EXPERT_SCRATCH]: expertScratchStart(op, (weight) => record.map.layout(weight)),
      [abi.EXPERT_OUT]: op.out
    })
  },

  mixExperts(op, record) {
    record.write(abi.CODE_MIX_EXPERTS, op.out, {
      [abi.MIX_X]: op.x,
      [abi.MIX_WIDTH]: op.out.width,
      [abi.MIX_CHOICES]: op.choices,
      [abi.MIX_TOP_K]: op.topK,
      [abi.MIX_ACCUMULATE]: Number(op.accumulate),
      [abi.MIX_OUT]: op.out
    })
  }
}

/** The angles by which each row's queries and keys are turned. */
export function writeAngles({ rotaries }: MemoryMap, memory: ArrayBufferLike, { segments }: Batch): void {
  for (const { theta, rotaryDim, address } of rotaries) {
    for (const { position, firstRow, nRows } of segments) {
      const rows = new Float32Array(memory, address + 4 * rotaryDim * firstRow, rotaryDim * nRows)
      for (let t = 0; t < nRows; t++) rows.set(rotaryRow(theta, rotaryDim, position + t), t * rotaryDim)
    }
  }
}

/** Pairs of a row and a position that it looks at: what an attention takes grows with them. */
export function scoresOf({ segments }: Batch): number {
  return segments.reduce((sum, { position, nRows }) => sum + nRows * position + (nRows * (nRows + 1)) / 2, 0)
}

/** An attention that takes longer than a slice: `run` over some of the rows at a time. */
export async function attendInParts(control: Int32Array, nParts: number, run: () => Promise<void>): Promise<void> {
  const count = control[abi.CONTROL_N_TOKENS]
  const step = Math.max(1, Math.floor(count / nParts))
  for (let first = 0; first < count; first += step) {
    control[abi.CONTROL_ATTENTION_FIRST] = first
    control[abi.CONTROL_ATTENTION_END] = Math.min(count, first + step)
    await run()
  }
  control[abi.CONTROL_ATTENTION_FIRST] = 0
}

/** A slot and the canonical state of the sequence in it. */
export interface SlotCopy {
  readonly memory: ArrayBufferLike
  /** Address of the slot. */
  readonly slot: number
  /** Tokens. */
  readonly position: number
  readonly state: Float32Array
  readonly map: MemoryMap
  readonly pace: Pace
}

/** Copies the caches, a head of a layer at a time with a pause after each, since thousands of tokens take their time. */
export async function copyKeyValues(way: 'read' | 'write', { keyValues, stateSize }: Program, { map, pace, ...copy }: SlotCopy): Promise<void> {
  for (const part of keyValues) {
    const layout = map.keyValue(part)
    const first = stateSize + copy.position * part.offset
    const canonical = copy.state.subarray(first, first + 2 * copy.position * part.width)
    for (let head = 0; head < layout.nHeads; head++) {
      const copyHead = way === 'read' ? readKeyValue : writeKeyValue
      copyHead(layout, { ...copy, head, canonical })
      await pace.pause()
    }
  }
}

interface KeyValueCopy {
  readonly memory: ArrayBufferLike
  /** Address of the slot. */
  readonly slot: number
  readonly head: number
  /** Tokens. */
  readonly position: number
  /** Of all heads: keys (position, width), then values (position, width). */
  readonly canonical: Float32Array
}

/** A head's keys and values of the first `position` tokens from a slot to their canonical form. */
function readKeyValue(layout: KeyValueLayout, copy: KeyValueCopy): void {
  const { headDim, nHeads } = layout
  const { head, position, canonical } = copy
  const { keys, values } = viewsOf(layout, copy)
  for (let t = 0; t < position; t++) {
    const [key, row] = [keyIndex(t, headDim), (t * nHeads + head) * headDim]
    for (let i = 0; i < headDim; i++) canonical[row + i] = keys[key + i * KEY_BLOCK]
    const value = t * roundUp(headDim, LANES)
    canonical.set(values.subarray(value, value + headDim), position * nHeads * headDim + row)
  }
}

/** The other way. */
function writeKeyValue(layout: KeyValueLayout, copy: KeyValueCopy): void {
  const { headDim, nHeads } = layout
  const { head, position, canonical } = copy
  const { keys, values } = viewsOf(layout, copy)
  for (let t = 0; t < position; t++) {
    const [key, row] = [keyIndex(t, headDim), (t * nHeads + head) * headDim]
    for (let i = 0; i < headDim; i++) keys[key + i * KEY_BLOCK] = canonical[row + i]
    const value = position * nHeads * headDim + row
    values.set(canonical.subarray(value, value + headDim), t * roundUp(headDim, LANES))
  }
}

/** What a head has in a slot. */
function viewsOf({ keys, values, keyHeadBytes, valueHeadBytes }: KeyValueLayout, { memory, slot, head }: KeyValueCopy): { readonly keys: Float32Array; readonly values: Float32Array } {
  return {
    keys: new Float32Array(memory, slot + keys + head * keyHeadBytes, keyHeadBytes / 4),
    values: new Float32Array(memory, slot + values + head * valueHeadBytes, valueHeadBytes / 4)
  }
}

/** Element of column 0 of a position; the next column's is KEY_BLOCK on. */
function keyIndex(position: number, headDim: number): number {
  const lane = position % KEY_BLOCK
  return (position - lane) * headDim + lane
}
