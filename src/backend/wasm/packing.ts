/**
 * How a parameter lies in wasm memory. What an op reads decides the layout; a parameter that two ops read (a tied embedding)
 * must have one that serves both.
 */

import { LANES, PANEL_ROWS } from '../../../assembly/abi.ts'
import { elementsOf, isParameter, type Op, type Parameter, type Program, scanGroups, type SelectiveScanOp } from '../../program/ops.ts'

export type PackedLayout =
  /** As it is, row-major, padded to whole vectors. */
  | { readonly kind: 'plain'; readonly size: number }
  /** A matrix (nOut, nIn) in panels of PANEL_ROWS rows, inputs in sequence. */
  | { readonly kind: 'panels'; readonly nOut: number; readonly nIn: number }
  /** Convolution taps (width, 1, dConv) as (dConv, width). */
  | { readonly kind: 'taps'; readonly width: number; readonly nTaps: number }
  /** A · log2(e) of (dInner, dState) in tiles of (dState, LANES) within groups of channels. */
  | { readonly kind: 'tiles'; readonly dInner: number; readonly dState: number; readonly groupChannels: number }

/** The layout of every parameter of a program. */
export function packedLayouts(program: Program): Map<Parameter, PackedLayout> {
  const layouts = new Map<Parameter, PackedLayout>()
  const set = (parameter: Parameter | null, layout: PackedLayout): void => {
    if (parameter === null) return
    const known = layouts.get(parameter)
    if (known !== undefined && known.kind !== layout.kind) throw new TypeError(`${parameter.name}: needed as ${known.kind} and as ${layout.kind}`)
    layouts.set(parameter, layout)
  }
  for (const op of program.ops) for (const [parameter, layout] of layoutsOf(op)) set(parameter, layout)
  return layouts
}

function layoutsOf(op: Op): (readonly [Parameter | null, PackedLayout])[] {
  switch (op.kind) {
    case 'embed': return [[op.weight, panels(op.weight)]]
    case 'gatherRows': return []
    case 'rmsNorm': return [[op.weight, plain(op.weight)]]
    case 'linear': return [[op.weight, panels(op.weight)], [op.bias, plain(op.bias)]]
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
  }
}

/** Channels that share both a B and a C. */
function groupChannels(op: SelectiveScanOp): number {
  return op.x.width / Math.max(scanGroups(op, op.B), scanGroups(op, op.C))
}

function panels({ shape }: Parameter): PackedLayout {
  return { kind: 'panels', nOut: shape[0], nIn: shape[1] }
}

function plain(parameter: Parameter | null): PackedLayout {
  return { kind: 'plain', size: parameter === null ? 0 : elementsOf(parameter.shape) }
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple
}

/** f32 elements of a packed parameter. */
export function packedSize(layout: PackedLayout): number {
  switch (layout.kind) {
    case 'plain': return roundUp(layout.size, PANEL_ROWS)
    case 'panels': return roundUp(layout.nOut, PANEL_ROWS) * layout.nIn
    case 'taps': return roundUp(layout.width, LANES) * layout.nTaps
    case 'tiles': return (layout.dInner / layout.groupChannels) * roundUp(layout.groupChannels, LANES) * layout.dState
  }
}

/** Writes values, row-major from element `first` of the parameter, to their places in `target`, its packed memory. */
export function pack(layout: PackedLayout, target: Float32Array, values: Float32Array, first: number): void {
  switch (layout.kind) {
    case 'plain': return target.set(values, first)
    case 'panels': return packPanels(layout.nIn, target, values, first)
    case 'taps': return packTaps(layout.nTaps, roundUp(layout.width, LANES), target, values, first)
    case 'tiles': return packTiles(layout, target, values, first)
  }
}

function packPanels(nIn: number, target: Float32Array, values: Float32Array, first: number): void {
  let row = Math.floor(first / nIn)
  let column = first % nIn
  for (let i = 0; i < values.length; row++) {
    const count = Math.min(nIn - column, values.length - i)
    let place = (Math.floor(row / PANEL_ROWS) * nIn + column) * PANEL_ROWS + (row % PANEL_ROWS)
    for (const end = i + count; i < end; i++, place += PANEL_ROWS) target[place] = values[i]
    column = 0
  }
}

function packTaps(nTaps: number, paddedWidth: number, target: Float32Array, values: Float32Array, first: number): void {
  for (let i = 0; i < values.length; i++) {
    const element = first + i
    target[(element % nTaps) * paddedWidth + Math.floor(element / nTaps)] = values[i]
  }
}

type Tiles = Extract<PackedLayout, { kind: 'tiles' }>

function packTiles({ dState, groupChannels }: Tiles, target: Float32Array, values: Float32Array, first: number): void {
  const groupTiles = Math.ceil(groupChannels / LANES)
  const log2E = Math.fround(1.4426950408889634)
  for (let i = 0; i < values.length; i++) {
    const channel = Math.floor((first + i) / dState)
    const n = (first + i) % dState
    const inGroup = channel % groupChannels
    const tile = Math.floor(channel / groupChannels) * groupTiles + Math.floor(inGroup / LANES)
    target[(tile * dState + n) * LANES + (inGroup % LANES)] = Math.fround(values[i] * log2E)
  }
}
