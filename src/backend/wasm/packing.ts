/**
 * How a parameter lies in wasm memory. What an op reads decides the layout; a parameter that two ops read (a tied embedding)
 * must have one that serves both. The formats of panels are drawn in assembly/formats.
 */

import { HIGH_ROWS_FACTOR, LANES, PANEL_ROWS, Q4_0_BLOCK_BYTES, Q8_0_BLOCK_BYTES } from '../../../assembly/abi.ts'
import { F16_VALUES } from '../../half.ts'
import { FORMATS, type WeightData, type WeightFormat } from '../../program/formats.ts'
import { elementsOf, isParameter, type Op, type Parameter, type Program, scanGroups, type SelectiveScanOp } from '../../program/ops.ts'

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
      const { blockElements, blockBytes } = FORMATS[layout.format]
      const panelBytes = isBlockFormat(layout.format) ? PANEL_BLOCK_BYTES[layout.format] : PANEL_ROWS * blockBytes
      return ((roundUp(layout.nOut, PANEL_ROWS) / PANEL_ROWS) * layout.nIn * panelBytes) / blockElements
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
  switch (format) {
    case 'f32': return packDense(new Float32Array(buffer, byteOffset, byteLength / 4), { nIn, group: 1 }, values, first)
    case 'bf16':
    case 'f16': return packDense(new Uint16Array(buffer, byteOffset, byteLength / 2), { nIn, group: 2 }, values, first)
    case 'q8_0':
    case 'q4_0': return packBlocks(target, { nIn, format }, values, first)
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

const SCALES_BYTES = 4 * PANEL_ROWS

/** Bytes of a panel for 32 inputs. */
const PANEL_BLOCK_BYTES = { q8_0: Q8_0_BLOCK_BYTES, q4_0: Q4_0_BLOCK_BYTES } as const
type BlockFormat = keyof typeof PANEL_BLOCK_BYTES

function isBlockFormat(format: WeightFormat): format is BlockFormat {
  return Object.hasOwn(PANEL_BLOCK_BYTES, format)
}

function packBlocks(target: Uint8Array, { nIn, format }: { nIn: number; format: BlockFormat }, values: WeightData, first: number): void {
  const { blockElements, blockBytes } = FORMATS[format]
  const floats = new Float32Array(target.buffer, target.byteOffset, target.byteLength / 4)
  const rowBlocks = nIn / blockElements
  const nBlocks = values.length / blockBytes
  for (let i = 0, source = 0; i < nBlocks; i++, source += blockBytes) {
    const block = first / blockElements + i
    const row = Math.floor(block / rowBlocks)
    const lane = row % PANEL_ROWS
    const place = (Math.floor(row / PANEL_ROWS) * rowBlocks + (block % rowBlocks)) * PANEL_BLOCK_BYTES[format]
    const scale = F16_VALUES[values[source] | (values[source + 1] << 8)]
    const weights = place + SCALES_BYTES
    if (format === 'q8_0') {
      floats[place / 4 + lane] = scale
      for (let k = 0; k < 32; k++) target[weights + (k >> 2) * 32 + 4 * lane + (k & 1) * 2 + ((k & 2) >> 1)] = values[source + 2 + k] ^ 128
    } else {
      floats[place / 4 + lane] = lane < 4 ? scale : scale / HIGH_ROWS_FACTOR
      for (let k = 0; k < 32; k++) {
        const nibble = k < 16 ? values[source + 2 + k] & 15 : values[source + 2 + k - 16] >> 4
        const byte = weights + (k >> 2) * 16 + (lane & 3) * 4 + (k & 1) * 2 + ((k & 2) >> 1)
        // Rows 0 to 3 in the low halves, rows 4 to 7 in the high.
        target[byte] = lane < 4 ? (target[byte] & 0xf0) | nibble : (target[byte] & 0x0f) | (nibble << 4)
      }
    }
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
