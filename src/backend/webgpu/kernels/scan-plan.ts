/** What both kernels of the selective scan know of an op: how its states are shared among lanes, its bindings, and how WGSL gets at its values. */

import { isParameter, type LinearOp, type Parameter, scanGroups, type ScanInput, type SelectiveScanOp, type View } from '../../../program/ops.ts'
import type { Binding, DeviceFacts, KernelContext } from '../kernel.ts'
import { SILU } from './activation.ts'
import { createBinder } from './binder.ts'
import { elementOf, float } from './elements.ts'
import { hasLanes } from './lane-sums.ts'
import { activationQuads, type Quads } from './quads.ts'
import { SOFTPLUS } from './scan-math.ts'
import { type WeightReader, weightReader } from './weight-reader.ts'

export interface ScanPlan {
  readonly dInner: number
  /** Neighbouring threads that share the states of a channel, four each at a time. */
  readonly lanes: number
  /** Times four states of each lane that a channel has. */
  readonly nGroups: number
  readonly bindings: readonly Binding[]
  /** Before main: bindings, softplus, silu, and the functions that the expressions below call. */
  readonly declarations: string
  /** WGSL; row of the batch and channel are expressions. */
  readonly x: (row: string, channel: string) => string
  readonly dt: (row: string, channel: string) => string
  /** The gate before its silu, or null without one. */
  readonly z: ((row: string, channel: string) => string) | null
  readonly out: (row: string, channel: string) => string
  /** Statements: what `timeStep` and `output` need of a channel. */
  readonly constants: (channel: string) => string
  /** Of dt as it is: with its bias and softplus. */
  readonly timeStep: (dt: string) => string
  /** Of y = C · h. */
  readonly output: (y: string, x: string, z: string) => string
  /** log2 e times four states of A: decays are exp2 of dt times it, one multiplication fewer for each of them. */
  readonly decayRates: (channel: string, quad: string) => string
  readonly B: ScanQuads
  readonly C: ScanQuads
  readonly state: Quads
  /** Of dt's matrix, where the scan makes dt. */
  readonly dtReader: WeightReader | null
}

export interface ScanQuads {
  /** Channels in a row that have the same; all those of a parameter have their own. */
  readonly groupChannels: number
  readonly isParameter: boolean
  readonly load: (row: string, channel: string, quad: string) => string
}

/** `dtProduct`: the op that makes dt, for a kernel that does it, too. */
export function planScan(op: SelectiveScanOp, context: KernelContext, dtProduct?: LinearOp): ScanPlan {
  const { dState } = op
  const { device, view } = context
  const dInner = op.x.width
  const lanes = lanesFor(dState, device)
  const nGroups = Math.ceil(dState / (4 * lanes))
  const nQuads = lanes * nGroups
  const at = (from: View) => elementOf(context, from)
  const binder = createBinder()
  const row = { width: dState, nQuads }
  const channels = (name: string, parameter: Parameter) => binder.values(name, { kind: 'parameters', parameters: [parameter] })
  const states = (name: string, parameter: Parameter): Quads => binder.quads(name, { kind: 'parameters', parameters: [parameter] }, row)
  for (const code of [SOFTPLUS, SILU, activationQuads('quadOfToken', row)]) binder.declare(code)
  const input = (name: string, from: ScanInput): ScanQuads => {
    if (isParameter(from)) {
      const quads = states(name, from)
      return { groupChannels: 1, isParameter: true, load: (_, channel, quad) => quads.load(channel, quad) }
    }
    const groupChannels = dInner / scanGroups(op, from)
    const { offset, stride } = view(from)
    return {
      groupChannels, isParameter: false,
      load: (row, channel, quad) => `quadOfToken(${offset}u + (${row}) * ${stride}u + ${groupChannels === dInner ? '0u' : `(${channel}) / ${groupChannels}u * ${dState}u`}, ${quad})`
    }
  }
  const A = states('A', op.A)
  const B = input('B', op.B)
  // A buffer is bound once.
  const C = isParameter(op.C) && op.C === op.B ? B : input('C', op.C)
  const D = op.D && channels('D', op.D)
  const dtBias = op.dtBias && channels('dtBias', op.dtBias)
  const state = binder.quads('state', { kind: 'state', state: op.state }, row)
  const dtReader = dtProduct ? weightReader(context.formatOf(dtProduct.weight), dtProduct.x.width, binder.place({ kind: 'parameters', parameters: [dtProduct.weight] }), device) : null
  if (dtReader) binder.declare(dtReader.code)
  return {
    dInner, lanes, nGroups, bindings: binder.bindings, declarations: binder.declarations(), B, C, state, dtReader,
    x: at(op.x), dt: at(op.dt), z: op.z && at(op.z), out: at(op.out),
    constants: (channel) => [D && `let skip = ${D(channel)};`, dtBias && `let bias = ${dtBias(channel)};`].filter(Boolean).join('\n'),
    timeStep(dt) {
      const raw = dtBias ? `${dt} + bias` : dt
      return op.dtSoftplus ? `softplus(${raw})` : raw
    },
    output(y, x, z) {
      const sum = D ? `fma(skip, ${x}, ${y})` : y
      return op.z ? `${sum} * silu(${z})` : sum
    },
    decayRates: (channel, quad) => `${float(Math.LOG2E)} * ${A.load(channel, quad)}`
  }
}

/** Four where a channel has states for them and a subgroup has them: their sum of y takes shuffles. */
function lanesFor(dState: number, { subgroup }: DeviceFacts): number {
  let lanes = 1
  while (lanes < 4 && 4 * lanes < dState && hasLanes(subgroup, 2 * lanes)) lanes *= 2
  return lanes
}
