/**
 * How a parameter lies in wasm memory. What an op reads decides the layout; a parameter that two ops read (a tied embedding)
 * must have one that serves both. The formats of panels are drawn in assembly/formats.
 */

import { LANES, PANEL_ROWS } from '../../../assembly/abi.ts'
import { isBlockFormat } from '../../ggml-blocks.ts'
import { FORMATS, type WeightData, type WeightFormat } from '../../program/formats.ts'
import { elementsOf, isParameter, type Op, type Parameter, type Program, scanGroups, type SelectiveScanOp } from '../../program/ops.ts'
import { blockPanelBytes, packBlocks } from './panel-blocks.ts'

export type PackedLayout =
  /** As it is, row-major, padded to whole vectors. */
  | { readonly kind: 'plain'; readonly size: number }
  /** A matrix (nOut, nIn) in panels of PANEL_ROWS rows, inputs in sequence. */
  | { readonly kind: 'panels'; readonly format: WeightFormat; readonly nOut: number; readonly nIn: number }
  /** Convolution taps (width, 1, dConv) as (dConv, width). */
  | { readonly kind: 'taps'; readonly width: number; readonly nTaps: number }
  /** A · log2(e) of (dInner, dState) in tiles of (dState, LANES) within groups of channels. */
  | { readonly kind: 'tiles'; readonly dInner: number; readonly dState: number; readonly groupChannels: number }

/** The format that a matrix is to have. */
export type FormatOf = (parameter: Parameter) => WeightFormat

/** The layout of every parameter of a program. */
export function packedLayouts(program: Program, formatOf: FormatOf): Map<Parameter, PackedLayout> {
  const layouts = new Map<Parameter, PackedLayout>()
  const set = (parameter: Parameter | null, layout: PackedLayout): void => {
    if (parameter === null) return
    const known = layouts.get(parameter)
    if (known !== undefined && known.kind !== layout.kind) throw new TypeError(`${parameter.name}: needed as ${known.kind} and as ${layout.kind}`)
    layouts.set(parameter, layout)
  }
  for (const op of program.ops) for (const [parameter, layout] of layoutsOf(op, formatOf)) set(parameter, layout)
  return layouts
}

function layoutsOf(op: Op, formatOf: FormatOf): (readonly [Parameter | null, PackedLayout])[] {
  switch (op.kind) {
    case 'embed': return [[op.weight, panels(op.weight, formatOf)]]
    case 'gatherRows': return []
    case 'rmsNorm': return [[op.weight, plain(op.weight)]]
    case 'linear': return [[op.weight, panels(op.weight, formatOf)], [op.bias, plain(op.bias)]]
    case 'conv1d': return [
      [op.weight, { kind: 'taps', width: op.weight.shape[0], nTaps: op.weight.shape[2] }],
      [op.bias, plain(op.bias)]
    ]
    case 'selectiveScan': return [
      [op.A, { kind: 'tiles', dInner: op.x.width, dState: op.dState, groupChannels: groupChannels(op) }],
      [op.D, plain(op.D)],
      [op.dtBias, plain(op.dtBias)],
      ...[op.B, op.C].filter(isParameter).map((input) => [input, plain(input)] as const)
    ]
    case 'ssdScan': return [op.A, op.D, op.dtBias].map((parameter) => [parameter, plain(parameter)] as const)
  }
}

/** Neighbouring channels that share both a B and a C, wherever they start: a tile of the scan lies within them. */
export function groupChannels(op: SelectiveScanOp): number {
  let [a, b] = [op.x.width / scanGroups(op, op.B), op.x.width / scanGroups(op, op.C)]
  while (b > 0) [a, b] = [b, a % b]
  return a
}

function panels(parameter: Parameter, formatOf: FormatOf): PackedLayout {
  const [nOut, nIn] = parameter.shape
  return { kind: 'panels', format: panelFormat(formatOf(parameter), nIn), nOut, nIn }
}

/** Rows that are no whole number of blocks, or of the pairs that the half formats keep together, stay in f32. */
export function panelFormat(format: WeightFormat, nIn: number): WeightFormat {
  return nIn % Math.max(2, FORMATS[format].blockElements) === 0 ? format : 'f32'
}

function plain(parameter: Parameter | null): PackedLayout {
  return { kind: 'plain', size: parameter === null ? 0 : elementsOf(parameter.shape) }
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple
}

export function packedBytes(layout: PackedLayout): number {
  switch (layout.kind) {
    case 'plain': return 4 * roundUp(layout.size, PANEL_ROWS)
    case 'panels': {
      const { format, nIn } = layout
      const panelBytes = isBlockFormat(format) ? blockPanelBytes(format, nIn) : PANEL_ROWS * nIn * FORMATS[format].blockBytes
      return (roundUp(layout.nOut, PANEL_ROWS) / PANEL_ROWS) * panelBytes
    }
    case 'taps': return 4 * roundUp(layout.width, LANES) * layout.nTaps
    case 'tiles': return 4 * (layout.dInner / layout.groupChannels) * roundUp(layout.groupChannels, LANES) * layout.dState
  }
}

/** The format in which `pack` takes a parameter's values. */
export function formatOfLayout(layout: PackedLayout): WeightFormat {
  return layout.kind === 'panels' ? layout.format : 'f32'
}

/** Writes values, row-major from element `first` of the parameter, to their places in `target`, its packed memory. */
export function pack(layout: PackedLayout, target: Uint8Array, values: WeightData, first: number): void {
  const { buffer, byteOffset, byteLength } = target
  const floats = new Float32Array(buffer, byteOffset, byteLength / 4)
  switch (layout.kind) {
    case 'plain': return floats.set(values, first)
    case 'panels': return packPanels(layout, target, values, first)
    case 'taps': return packTaps(layout.nTaps, roundUp(layout.width, LANES), floats, values, first)
    case 'tiles': return packTiles(layout, floats, values, first)
  }
}

type Panels = Extract<PackedLayout, { kind: 'panels' }>

function packPanels({ format, nIn }: Panels, target: Uint8Array, values: WeightData, first: number): void {
  const { buffer, byteOffset, byteLength } = target
  if (isBlockFormat(format)) {
    packBlocks(target, { nIn, format }, new Uint8Array(values.buffer, values.byteOffset, values.byteLength), first)
  } else if (format === 'f32') {
    packDense(new Float32Array(buffer, byteOffset, byteLength / 4), { nIn, group: 1 }, values, first)
  } else {
    packDense(new Uint16Array(buffer, byteOffset, byteLength / 2), { nIn, group: 2 }, values, first)
  }
}

/** Inputs in groups: for each group, the group's inputs of row 0, of row 1, … */
function packDense(target: Float32Array | Uint16Array, { nIn, group }: { nIn: number; group: number }, values: WeightData, first: number): void {
  let row = Math.floor(first / nIn)
  let column = first % nIn
  for (let i = 0; i < values.length; row++) {
    const end = Math.min(values.length, i + nIn - column)
    const panel = Math.floor(row / PANEL_ROWS) * PANEL_ROWS * nIn + (row % PANEL_ROWS) * group
    for (; i < end; i++, column++) target[panel + (column - (column % group)) * PANEL_ROWS + (column % group)] = values[i]
    column = 0
  }
}

function packTaps(nTaps: number, paddedWidth: number, target: Float32Array, values: WeightData, first: number): void {
  for (let i = 0; i < values.length; i++) {
    const element = first + i
    target[(element % nTaps) * paddedWidth + Math.floor(element / nTaps)] = values[i]
  }
}

type Tiles = Extract<PackedLayout, { kind: 'tiles' }>

function packTiles({ dState, groupChannels }: Tiles, target: Float32Array, values: WeightData, first: number): void {
  const groupTiles = Math.ceil(groupChannels / LANES)
  const log2E = Math.fround(Math.LOG2E)
  for (let i = 0; i < values.length; i++) {
    const channel = Math.floor((first + i) / dState)
    const n = (first + i) % dState
    const inGroup = channel % groupChannels
    const tile = Math.floor(channel / groupChannels) * groupTiles + Math.floor(inGroup / LANES)
    // A NaN of the caller's may carry bits that exp2 would take for an exponent.
    target[(tile * dState + n) * LANES + (inGroup % LANES)] = Number.isNaN(values[i]) ? NaN : Math.fround(values[i] * log2E)
  }
}
