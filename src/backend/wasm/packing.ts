/**
 * How a parameter lies in wasm memory. What an op reads decides the layout; a parameter that two ops read (a tied embedding)
 * must have one that serves both. The formats of panels are drawn in assembly/formats.
 */

import { LANES, PANEL_ROWS } from '../../../assembly/abi.ts'
import { type BlockFormat, isBlockFormat } from '../../ggml-blocks.ts'
import { FORMATS, type WeightData, type WeightFormat } from '../../program/formats.ts'
import { elementsOf, isParameter, type Op, type Parameter, type Program, scanGroups, type SelectiveScanOp } from '../../program/ops.ts'
import type { MapOptions } from './memory-map.ts'
import { type BlockForm, blockFormOf, blockPanelBytes } from './panel-blocks.ts'

export type PackedLayout =
  /** As it is, row-major, padded to whole vectors. */
  | { readonly kind: 'plain'; readonly size: number }
  /** nMatrices matrices (nOut, nIn), each in panels of its own of PANEL_ROWS rows, inputs in sequence. */
  | { readonly kind: 'panels'; readonly format: WeightFormat; readonly form: PanelForm; readonly nMatrices: number; readonly nOut: number; readonly nIn: number }
  /** (nChannels, nEach), times a factor, in tiles of (nEach, LANES) within groups of channels: the taps of a convolution, A · log2(e) of a scan. */
  | { readonly kind: 'tiles'; readonly nChannels: number; readonly nEach: number; readonly groupChannels: number; readonly factor: number }

/** Names as the codes FORMAT_* of the ABI have them. */
export type PanelForm = Exclude<WeightFormat, BlockFormat> | BlockForm

/** The format that a matrix is to have. */
export type FormatOf = (parameter: Parameter) => WeightFormat

/** What the layouts of matrices depend on. */
export interface Matrices {
  readonly formatOf: FormatOf
  /** For a build that multiplies bytes; false by default. */
  readonly hasDot?: boolean | undefined
}

/** A parameter, null for none, and how it is packed. */
export type ParameterLayout = readonly [Parameter | null, PackedLayout]

/** The layout of every parameter of a program. */
export function packedLayouts(program: Program, matrices: Matrices & Pick<MapOptions, 'further'>): Map<Parameter, PackedLayout> {
  const layouts = new Map<Parameter, PackedLayout>()
  const set = (parameter: Parameter | null, layout: PackedLayout): void => {
    if (parameter === null) return
    const known = layouts.get(parameter)
    if (known !== undefined && known.kind !== layout.kind) throw new TypeError(`${parameter.name}: needed as ${known.kind} and as ${layout.kind}`)
    layouts.set(parameter, layout)
  }
  for (const op of program.ops) for (const [parameter, layout] of layoutsOf(op, matrices)) set(parameter, layout)
  return layouts
}

function layoutsOf(op: Op, { further, ...matrices }: Matrices & Pick<MapOptions, 'further'>): readonly ParameterLayout[] {
  switch (op.kind) {
    case 'embed': return [[op.weight, panels(op.weight, matrices)]]
    case 'gatherRows': return []
    case 'rmsNorm': return [[op.weight, plain(op.weight)]]
    case 'linear': return [[op.weight, panels(op.weight, matrices)], [op.bias, plain(op.bias)]]
    case 'conv1d': return [
      [op.weight, tiles(op.weight.shape[0], op.weight.shape[2])],
      [op.bias, plain(op.bias)]
    ]
    case 'selectiveScan': return [
      [op.A, tiles(op.x.width, op.dState, groupChannels(op), Math.LOG2E)],
      [op.D, plain(op.D)],
      [op.dtBias, plain(op.dtBias)],
      ...[op.B, op.C].filter(isParameter).map((input) => [input, plain(input)] as const)
    ]
    default: return further?.layoutsOf(op, matrices) ?? []
  }
}

/** Neighbouring channels that share both a B and a C, wherever they start: a tile of the scan lies within them. */
export function groupChannels(op: SelectiveScanOp): number {
  let [a, b] = [op.x.width / scanGroups(op, op.B), op.x.width / scanGroups(op, op.C)]
  while (b > 0) [a, b] = [b, a % b]
  return a
}

export function panels(parameter: Parameter, { formatOf, hasDot = false }: Matrices): PackedLayout {
  const [nOut, nIn] = parameter.shape.slice(-2)
  const format = panelFormat(formatOf(parameter), nIn)
  return { kind: 'panels', format, form: isBlockFormat(format) ? blockFormOf(format, hasDot) : format, nMatrices: elementsOf(parameter.shape.slice(0, -2)), nOut, nIn }
}

/** Rows that are no whole number of blocks, or of the pairs that the half formats keep together, stay in f32. */
export function panelFormat(format: WeightFormat, nIn: number): WeightFormat {
  return nIn % Math.max(2, FORMATS[format].blockElements) === 0 ? format : 'f32'
}

function tiles(nChannels: number, nEach: number, groupChannels = nChannels, factor = 1): PackedLayout {
  return { kind: 'tiles', nChannels, nEach, groupChannels, factor: Math.fround(factor) }
}

export function plain(parameter: Parameter | null): PackedLayout {
  return { kind: 'plain', size: parameter === null ? 0 : elementsOf(parameter.shape) }
}

export function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple
}

export function packedBytes(layout: PackedLayout): number {
  switch (layout.kind) {
    case 'plain': return 4 * roundUp(layout.size, PANEL_ROWS)
    case 'panels': return layout.nMatrices * Math.ceil(layout.nOut / PANEL_ROWS) * panelBytes(layout)
    case 'tiles': return 4 * (layout.nChannels / layout.groupChannels) * roundUp(layout.groupChannels, LANES) * layout.nEach
  }
}

export function panelBytes({ form, nIn }: PanelsLayout): number {
  return isDense(form) ? PANEL_ROWS * nIn * FORMATS[form].blockBytes : blockPanelBytes(form, nIn)
}

export function isDense(form: PanelForm): form is Exclude<PanelForm, BlockForm> {
  return form in FORMATS
}

/** The format in which `pack` takes a parameter's values. */
export function formatOfLayout(layout: PackedLayout): WeightFormat {
  return layout.kind === 'panels' ? layout.format : 'f32'
}

/** Writes values, row-major from element `first` of the parameter, to their places in `target`, its packed memory. Quantized blocks: pack-blocks.ts. */
export function pack(layout: PackedLayout, target: Uint8Array, values: WeightData, first: number): void {
  const { buffer, byteOffset, byteLength } = target
  const floats = new Float32Array(buffer, byteOffset, byteLength / 4)
  switch (layout.kind) {
    case 'plain': return floats.set(values, first)
    case 'panels': return packPanels(layout, target, values, first)
    case 'tiles': return packTiles(layout, floats, values, first)
  }
}

export type PanelsLayout = Extract<PackedLayout, { kind: 'panels' }>

/** The row among those of all panels, where a matrix fills its last one or not. */
export function paddedRow(row: number, nOut: number): number {
  return Math.floor(row / nOut) * roundUp(nOut, PANEL_ROWS) + (row % nOut)
}

function packPanels({ format, nOut, nIn }: PanelsLayout, target: Uint8Array, values: WeightData, first: number): void {
  const { buffer, byteOffset, byteLength } = target
  if (format === 'f32') {
    packDense(new Float32Array(buffer, byteOffset, byteLength / 4), { nOut, nIn, group: 1 }, values, first)
  } else {
    packDense(new Uint16Array(buffer, byteOffset, byteLength / 2), { nOut, nIn, group: 2 }, values, first)
  }
}

/** Inputs in groups of one or two: for each group, the group's inputs of row 0, of row 1, … */
function packDense(target: Float32Array | Uint16Array, { nOut, nIn, group }: { nOut: number; nIn: number; group: 1 | 2 }, values: WeightData, first: number): void {
  let matrixRow = Math.floor(first / nIn)
  let column = first % nIn
  const { length } = values
  for (let i = 0; i < length; matrixRow++) {
    const end = Math.min(length, i + nIn - column)
    const row = paddedRow(matrixRow, nOut)
    const inGroup = column % group
    let at = Math.floor(row / PANEL_ROWS) * PANEL_ROWS * nIn + (row % PANEL_ROWS) * group + (column - inGroup) * PANEL_ROWS + inGroup
    // 2^20 floats in 1.0 ms, halves in 1.7; with each place computed by itself 2.8 and 4.3.
    if (group === 1) for (; i < end; i++, at += PANEL_ROWS) target[at] = values[i]
    else for (; i < end; i++, at += at % 2 === 0 ? 1 : 2 * PANEL_ROWS - 1) target[at] = values[i]
    column = 0
  }
}

type Tiles = Extract<PackedLayout, { kind: 'tiles' }>

function packTiles({ nEach, groupChannels, factor }: Tiles, target: Float32Array, values: WeightData, first: number): void {
  const groupTiles = Math.ceil(groupChannels / LANES)
  let channel = Math.floor(first / nEach)
  let n = first % nEach
  for (let i = 0; i < values.length; channel++) {
    const end = Math.min(values.length, i + nEach - n)
    const inGroup = channel % groupChannels
    const tile = Math.floor(channel / groupChannels) * groupTiles + Math.floor(inGroup / LANES)
    // A NaN of the caller's may carry bits that exp2, and silu's exp, would take for an exponent.
    for (let at = (tile * nEach + n) * LANES + (inGroup % LANES); i < end; i++, at += LANES) target[at] = Number.isNaN(values[i]) ? NaN : Math.fround(values[i] * factor)
    n = 0
  }
}
