/**
 * How parameters lie in GPU memory, and how slices of them become bytes for `queue.writeBuffer`. A matrix stays as narrow as its format and is
 * dequantized in registers (kernels/weight-reader.ts). Rows are whole vec4<u32>, so that any thread loads 16 bytes at a time and neighbouring
 * threads neighbouring ones:
 *
 *   f32, f16, bf16   │ nIn values, zeros up to 16 bytes │
 *   quantized        │ integers of 8 or 4 bits │ what scales and minima are made of, in up to two regions of whole 16 bytes │
 *
 * Bytes are the integers of inputs in sequence. Eight inputs of 4 bits are a word: byte i has input i in its low and input i + 4 in its high half.
 * Scales are kept as GGUF has them, in regions of their own: nothing is rounded, and no format takes more than its own bytes, but for five
 * and six bits, which are kept in eight. Everything that is no matrix is f32, as it is. Matrices of experts are bound end to end, with no gap.
 */

import { BLOCK_TYPES, type BlockFormat, isBlockFormat } from '../../ggml-blocks.ts'
import { createBlockParts, SPLITS } from '../../ggml-splits.ts'
import { elementsIn, FORMATS, type WeightData, type WeightFormat } from '../../program/formats.ts'
import { elementsOf, isParameter, type Op, type Parameter, type Program } from '../../program/ops.ts'

/** Of a vec4<u32>. */
export const UNIT_BYTES = 16

export type WeightLayout =
  /** f32, row-major. */
  | { readonly kind: 'plain'; readonly size: number }
  | MatrixLayout

export interface MatrixLayout {
  readonly kind: 'matrix'
  readonly format: WeightFormat
  readonly nRows: number
  readonly nIn: number
}

/** Bytes of every block that are kept as they are, one after the other. */
interface KeptBytes {
  readonly from: number
  readonly bytes: number
}

/** Of what the scales are made; `weight-reader.ts` makes them. */
export const KEPT_BYTES: Readonly<Record<BlockFormat, readonly KeptBytes[]>> = {
  q8_0: [{ from: 0, bytes: 2 }],
  q4_0: [{ from: 0, bytes: 2 }],
  q4_1: [{ from: 0, bytes: 4 }],
  q5_0: [{ from: 0, bytes: 2 }],
  q5_1: [{ from: 0, bytes: 4 }],
  q4_k: [{ from: 0, bytes: 16 }],
  q5_k: [{ from: 0, bytes: 16 }],
  q6_k: [{ from: 192, bytes: 16 }, { from: 208, bytes: 2 }]
}

/** A row of a matrix in vec4<u32>. */
export interface RowForm {
  /** Inputs in one of them. */
  readonly unitElements: number
  /** Of the inputs. */
  readonly nUnits: number
  /** Where each region of KEPT_BYTES starts. */
  readonly regions: readonly number[]
  /** From row to row. */
  readonly rowUnits: number
}

export function rowForm(format: WeightFormat, nIn: number): RowForm {
  const unitElements = UNIT_BYTES / storedBytes(format)
  const nUnits = Math.ceil(nIn / unitElements)
  let rowUnits = nUnits
  const regions: number[] = []
  if (isBlockFormat(format)) {
    for (const { bytes } of KEPT_BYTES[format]) {
      regions.push(rowUnits)
      rowUnits += Math.ceil((bytes * nIn) / FORMATS[format].blockElements / UNIT_BYTES)
    }
  }
  return { unitElements, nUnits, regions, rowUnits }
}

/** Of one weight. */
function storedBytes(format: WeightFormat): number {
  if (!isBlockFormat(format)) return FORMATS[format].blockBytes
  return hasNibbles(format) ? 0.5 : 1
}

function hasNibbles(format: BlockFormat): boolean {
  return BLOCK_TYPES[format].bits === 4
}

/** The layout of every parameter of a program. `formatOf`: the format that a matrix is to have. */
export function weightLayouts(program: Program, formatOf: (parameter: Parameter) => WeightFormat): Map<Parameter, WeightLayout> {
  const layouts = new Map<Parameter, WeightLayout>()
  const set = (parameter: Parameter, layout: WeightLayout): void => {
    const known = layouts.get(parameter)
    if (known !== undefined && known.kind !== layout.kind) throw new TypeError(`${parameter.name}: needed as ${known.kind} and as ${layout.kind}`)
    layouts.set(parameter, layout)
  }
  for (const op of program.ops) {
    const matrices = matricesOf(op)
    for (const parameter of parametersOf(op)) set(parameter, matrices.includes(parameter) ? matrixLayout(parameter, formatOf(parameter)) : { kind: 'plain', size: elementsOf(parameter.shape) })
  }
  return layouts
}

function matricesOf(op: Op): readonly Parameter[] {
  switch (op.kind) {
    case 'embed':
    case 'linear': return [op.weight]
    case 'expertLinear': return op.weights
    default: return []
  }
}

function parametersOf(op: Op): Parameter[] {
  const isOne = (value: unknown): value is Parameter => typeof value === 'object' && value !== null && isParameter(value as Parameter)
  return (Object.values(op) as unknown[]).flatMap((value) => (Array.isArray(value) ? (value as unknown[]) : [value])).filter(isOne)
}

/** Rows that are no whole number of blocks stay in f32. */
function matrixLayout({ shape }: Parameter, format: WeightFormat): MatrixLayout {
  const nIn = shape[shape.length - 1]
  return { kind: 'matrix', nIn, nRows: elementsOf(shape.slice(0, -1)), format: nIn % FORMATS[format].blockElements === 0 ? format : 'f32' }
}

/** The format in which a writer takes a parameter's values. */
export function formatOfLayout(layout: WeightLayout): WeightFormat {
  return layout.kind === 'matrix' ? layout.format : 'f32'
}

/** A multiple of 16. */
export function layoutBytes(layout: WeightLayout): number {
  if (layout.kind === 'plain') return Math.ceil((4 * layout.size) / UNIT_BYTES) * UNIT_BYTES
  return layout.nRows * rowBytes(layout)
}

function rowBytes({ format, nIn }: MatrixLayout): number {
  return rowForm(format, nIn).rowUnits * UNIT_BYTES
}

/** Rows of matrices that are bound end to end. */
export interface MatrixPart {
  readonly firstRow: number
  readonly nRows: number
}

/** Every part but the last is a multiple of 256 bytes, at which bindings start. */
const PART_ROWS = 256 / UNIT_BYTES

/** As few parts as the limit allows. */
export function matrixParts(nRows: number, rowUnits: number, maxBindingBytes: number): MatrixPart[] {
  const bytes = rowUnits * UNIT_BYTES
  const most = nRows * bytes <= maxBindingBytes ? nRows : Math.floor(maxBindingBytes / bytes / PART_ROWS) * PART_ROWS
  if (most === 0) throw new RangeError(`a matrix with rows of ${bytes} bytes: expected bindings of at least ${PART_ROWS} of them, got maxStorageBufferBindingSize ${maxBindingBytes}`)
  return Array.from({ length: Math.ceil(nRows / most) }, (_, i) => ({ firstRow: i * most, nRows: Math.min(most, nRows - i * most) }))
}

export interface ByteRange {
  readonly start: number
  readonly end: number
}

/** Which bytes of parameters laid end to end a binding has: all, or those of a part. */
export function boundBytes(layouts: readonly WeightLayout[], part: number | undefined, maxBindingBytes: number): ByteRange {
  const [layout] = layouts
  if (part === undefined || layout.kind === 'plain') return { start: 0, end: layouts.reduce((sum, each) => sum + layoutBytes(each), 0) }
  const nRows = layouts.reduce((sum, each) => sum + (each.kind === 'matrix' ? each.nRows : 0), 0)
  const { firstRow, nRows: rows } = matrixParts(nRows, rowForm(layout.format, layout.nIn).rowUnits, maxBindingBytes)[part]
  return { start: firstRow * rowBytes(layout), end: (firstRow + rows) * rowBytes(layout) }
}

/** Bytes for the place `offset` bytes after the parameter's start; both are multiples of 4. */
export interface WeightWrite {
  readonly offset: number
  readonly bytes: Uint8Array<ArrayBuffer>
}

/** Takes the values of a parameter, row-major from element `first` (a block's first), in slices of any size. */
export type WeightWriter = (values: WeightData, first: number) => WeightWrite

export function createWeightWriter(layout: WeightLayout): WeightWriter {
  if (layout.kind === 'plain' || isWithoutGaps(layout)) return (values, first) => ({ offset: values.BYTES_PER_ELEMENT * first, bytes: bytesOf(values) })
  return createRowWriter(layout)
}

/** Such values go where they go as they are. */
function isWithoutGaps({ format, nIn }: MatrixLayout): boolean {
  return !isBlockFormat(format) && nIn % rowForm(format, nIn).unitElements === 0 && FORMATS[format].blockBytes === 4
}

function bytesOf(values: WeightData): Uint8Array<ArrayBuffer> {
  const { buffer, byteOffset, byteLength } = values
  return buffer instanceof ArrayBuffer ? new Uint8Array(buffer, byteOffset, byteLength) : new Uint8Array(values.buffer, byteOffset, byteLength).slice()
}

/** Writes whole rows; one that a slice leaves unfinished is kept until its other values come, and is written with each of them. */
function createRowWriter({ format, nIn, ...layout }: MatrixLayout): WeightWriter {
  const stride = rowBytes({ format, nIn, ...layout })
  const unfinished = new Map<number, { readonly bytes: Uint8Array; count: number }>()
  return (values, first) => {
    const place = createPlacer(format, nIn, values)
    const end = first + elementsIn(format, values)
    const firstRow = Math.floor(first / nIn)
    const endRow = Math.ceil(end / nIn)
    const bytes = new Uint8Array((endRow - firstRow) * stride)
    for (let row = firstRow; row < endRow; row++) {
      const start = Math.max(first, row * nIn)
      const count = Math.min(end, (row + 1) * nIn) - start
      const target = bytes.subarray((row - firstRow) * stride, (row - firstRow + 1) * stride)
      const known = unfinished.get(row)
      if (known !== undefined) target.set(known.bytes)
      place(target, { column: start - row * nIn, source: start - first, count })
      const total = count + (known?.count ?? 0)
      if (total < nIn) unfinished.set(row, { bytes: target.slice(), count: total })
      else unfinished.delete(row)
    }
    return { offset: firstRow * stride, bytes }
  }
}

/** `count` elements from element `source` of the values go to a row from `column` on. */
interface Run {
  readonly column: number
  readonly source: number
  readonly count: number
}

type Placer = (row: Uint8Array, run: Run) => void

function createPlacer(format: WeightFormat, nIn: number, values: WeightData): Placer {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  if (isBlockFormat(format)) return createBlockPlacer(format, nIn, bytes)
  const size = FORMATS[format].blockBytes
  return (row, { column, source, count }) => row.set(bytes.subarray(source * size, (source + count) * size), column * size)
}

function createBlockPlacer(format: BlockFormat, nIn: number, bytes: Uint8Array): Placer {
  const type = BLOCK_TYPES[format]
  const { blockElements, blockBytes } = type
  const { regions } = rowForm(format, nIn)
  const parts = createBlockParts(type)
  const placeIntegers = hasNibbles(format) ? placeNibbles : placeBytes
  return (row, { column, source, count }) => {
    for (let k = 0; k < count; k += blockElements) {
      const at = ((source + k) / blockElements) * blockBytes
      if (format === 'q8_0') placeQ80(row, column + k, bytes, at)
      else {
        SPLITS[format](bytes, at, parts)
        placeIntegers(row, column + k, parts.integers, type.hasMinimum ? 0 : NIBBLE_ZERO)
      }
      KEPT_BYTES[format].forEach((kept, i) => {
        const to = regions[i] * UNIT_BYTES + ((column + k) / blockElements) * kept.bytes
        for (let b = 0; b < kept.bytes; b++) row[to + b] = bytes[at + kept.from + b]
      })
    }
  }
}

/** Integers of 4 bits and either sign are kept with this added. */
export const NIBBLE_ZERO = 8

function placeQ80(row: Uint8Array, column: number, bytes: Uint8Array, at: number): void {
  for (let j = 0; j < 32; j++) row[column + j] = bytes[at + 2 + j]
}

function placeBytes(row: Uint8Array, column: number, integers: Int8Array): void {
  for (let j = 0; j < integers.length; j++) row[column + j] = integers[j]
}

function placeNibbles(row: Uint8Array, column: number, integers: Int8Array, zero: number): void {
  for (let j = 0; j < integers.length; j += 8) {
    const to = (column + j) / 2
    for (let i = 0; i < 4; i++) row[to + i] = (integers[j + i] + zero) | ((integers[j + i + 4] + zero) << 4)
  }
}
