/**
 * The tables of GGUF: the types of metadata values and of tensors, by their numbers in a file, and what a header holds.
 * The numbers are those of ggml's `gguf.h` and `ggml.h`.
 */
import type { TensorEntry } from './safetensors.ts'

/** 'GGUF', little-endian. */
export const GGUF_MAGIC = 0x46554747
export const DEFAULT_ALIGNMENT = 32
export const ALIGNMENT_KEY = 'general.alignment'

export type NumberArray = Uint8Array | Int8Array | Uint16Array | Int16Array | Uint32Array | Int32Array | Float32Array | Float64Array | BigUint64Array | BigInt64Array

type SmallNumberType = 'uint8' | 'int8' | 'uint16' | 'int16' | 'uint32' | 'int32' | 'float32' | 'float64'
type BigNumberType = 'uint64' | 'int64'
export type NumberType = SmallNumberType | BigNumberType

export type GgufScalar =
  | { readonly type: SmallNumberType; readonly value: number }
  | { readonly type: BigNumberType; readonly value: bigint }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string }

export type GgufArray =
  | { readonly type: 'array'; readonly itemType: NumberType; readonly value: NumberArray }
  | { readonly type: 'array'; readonly itemType: 'bool'; readonly value: readonly boolean[] }
  | { readonly type: 'array'; readonly itemType: 'string'; readonly value: readonly string[] }

/** A metadata value with the type that the file gives it. */
export type GgufValue = GgufScalar | GgufArray
export type GgufMetadata = ReadonlyMap<string, GgufValue>

export interface GgufHeader {
  /** For messages: the file's name. */
  readonly name: string
  readonly version: number
  readonly metadata: GgufMetadata
  /** By offset, shapes row-major: GGUF's dimensions reversed. `dtype` is ggml's name of the type: F32, Q8_0, … */
  readonly tensors: readonly TensorEntry[]
}

/** In the order of their numbers. */
export const VALUE_TYPES = ['uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'float32', 'bool', 'string', 'array', 'uint64', 'int64', 'float64'] as const
export type ValueType = (typeof VALUE_TYPES)[number]

/** How an array of them is read: little-endian, as every host is. A value alone is read as an array of one. */
export const NUMBER_TYPES: { readonly [T in NumberType]: { new (buffer: ArrayBuffer): NumberArray; readonly BYTES_PER_ELEMENT: number } } = {
  uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array, uint32: Uint32Array, int32: Int32Array,
  float32: Float32Array, float64: Float64Array, uint64: BigUint64Array, int64: BigInt64Array
}

/** A type of tensors: rows are whole blocks of `blockElements`, each of `blockBytes`. */
export interface TensorType {
  readonly name: string
  readonly blockElements: number
  readonly blockBytes: number
}

const TENSOR_TYPE_ROWS: readonly (readonly [id: number, name: string, blockElements: number, blockBytes: number])[] = [
  [0, 'F32', 1, 4],
  [1, 'F16', 1, 2],
  [2, 'Q4_0', 32, 18],
  [3, 'Q4_1', 32, 20],
  [6, 'Q5_0', 32, 22],
  [7, 'Q5_1', 32, 24],
  [8, 'Q8_0', 32, 34],
  [9, 'Q8_1', 32, 36],
  [10, 'Q2_K', 256, 84],
  [11, 'Q3_K', 256, 110],
  [12, 'Q4_K', 256, 144],
  [13, 'Q5_K', 256, 176],
  [14, 'Q6_K', 256, 210],
  [15, 'Q8_K', 256, 292],
  [16, 'IQ2_XXS', 256, 66],
  [17, 'IQ2_XS', 256, 74],
  [18, 'IQ3_XXS', 256, 98],
  [19, 'IQ1_S', 256, 50],
  [20, 'IQ4_NL', 32, 18],
  [21, 'IQ3_S', 256, 110],
  [22, 'IQ2_S', 256, 82],
  [23, 'IQ4_XS', 256, 136],
  [24, 'I8', 1, 1],
  [25, 'I16', 1, 2],
  [26, 'I32', 1, 4],
  [27, 'I64', 1, 8],
  [28, 'F64', 1, 8],
  [29, 'IQ1_M', 256, 56],
  [30, 'BF16', 1, 2],
  [34, 'TQ1_0', 256, 54],
  [35, 'TQ2_0', 256, 66],
  [39, 'MXFP4', 32, 17],
  [40, 'NVFP4', 64, 36],
  [41, 'Q1_0', 128, 18],
  [42, 'Q2_0', 64, 18]
]

/** By number. The missing ones ggml has taken back. */
export const TENSOR_TYPES: ReadonlyMap<number, TensorType> = new Map(
  TENSOR_TYPE_ROWS.map(([id, name, blockElements, blockBytes]) => [id, { name, blockElements, blockBytes }])
)
