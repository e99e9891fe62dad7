/** What both kernels of the selective scan know of an op: how its states are shared among lanes, its bindings, and how WGSL gets at its values. */

import { isParameter, type Parameter, scanGroups, type ScanInput, type SelectiveScanOp, type View } from '../../../program/ops.ts'
import type { Binding, DeviceFacts, KernelContext } from '../kernel.ts'
import { SILU } from './activation.ts'
import { elementOf } from './elements.ts'
import { hasLanes } from './lane-sums.ts'
import { activationQuads, type Quads, quadsOf } from './quads.ts'
import { LOG2_E, SOFTPLUS } from './scan-math.ts'

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
  readonly out: (row: string, channel: string) => string
  /** dt with its bias and softplus. */
  readonly timeStep: (row: string, channel: string) => string
  /** Of y = C · h. */
  readonly output: (y: string, x: string, row: string, channel: string) => string
  /** log2 e times four states of A. */
  readonly decayRates: (channel: string, quad: string) => string
  readonly B: ScanQuads
  readonly C: ScanQuads
  readonly state: Quads
}

export interface ScanQuads {
  /** Channels in a row that have the same; all those of a parameter have their own. */
  readonly groupChannels: number
  readonly isParameter: boolean
  readonly load: (row: string, channel: string, quad: string) => string
}

export function planScan(op: SelectiveScanOp, context: KernelContext): ScanPlan {
  const { dState } = op
  const { device, view } = context
  const dInner = op.x.width
  const lanes = lanesFor(dState, device)
  const nGroups = Math.ceil(dState / (4 * lanes))
  const nQuads = lanes * nGroups
  const at = (from: View) => elementOf(context, from)
  const bindings: Binding[] = []
  const declarations = [SOFTPLUS, SILU, activationQuads('quadOfToken', { width: dState, nQuads })]
  const bind = (binding: Binding): number => 1 + bindings.push(binding)
  const bindQuads = (name: string, binding: Binding, access: 'read' | 'read_write' = 'read'): Quads => {
    const quads = quadsOf(name, { width: dState, nQuads, binding: bind(binding), access })
    declarations.push(quads.declaration)
    return quads
  }
  const bindChannels = (name: string, parameter: Parameter): ((channel: string) => string) => {
    declarations.push(`@group(0) @binding(${bind({ kind: 'parameters', parameters: [parameter] })}) var<storage, read> ${name}: array<f32>;`)
    return (channel) => `${name}[${channel}]`
  }
  const input = (name: string, from: ScanInput): ScanQuads => {
    if (isParameter(from)) {
      const quads = bindQuads(name, { kind: 'parameters', parameters: [from] })
      return { groupChannels: 1, isParameter: true, load: (_, channel, quad) => quads.load(channel, quad) }
    }
    const groupChannels = dInner / scanGroups(op, from)
    const { offset, stride } = view(from)
    return {
      groupChannels, isParameter: false,
      load: (row, channel, quad) => `quadOfToken(${offset}u + (${row}) * ${stride}u + ${groupChannels === dInner ? '0u' : `(${channel}) / ${groupChannels}u * ${dState}u`}, ${quad})`
    }
  }
  const [x, dt, out] = [at(op.x), at(op.dt), at(op.out)]
  const z = op.z && at(op.z)
  const A = bindQuads('A', { kind: 'parameters', parameters: [op.A] })
  const B = input('B', op.B)
  // A buffer is bound once.
  const C = isParameter(op.C) && op.C === op.B ? B : input('C', op.C)
  const D = op.D && bindChannels('D', op.D)
  const dtBias = op.dtBias && bindChannels('dtBias', op.dtBias)
  const state = bindQuads('state', { kind: 'state', state: op.state }, 'read_write')
  const gated = (value: string, row: string, channel: string): string => (z ? `(${value}) * silu(${z(row, channel)})` : value)
  return {
    dInner, lanes, nGroups, bindings, declarations: declarations.join('\n'), x, out, B, C, state,
    timeStep(row, channel) {
      const raw = dtBias ? `${dt(row, channel)} + ${dtBias(channel)}` : dt(row, channel)
      return op.dtSoftplus ? `softplus(${raw})` : raw
    },
    output: (y, ofX, row, channel) => gated(D ? `fma(${D(channel)}, ${ofX}, ${y})` : y, row, channel),
    decayRates: (channel, quad) => `${LOG2_E} * ${A.load(channel, quad)}`
  }
}

/** Four where a channel has states for them and a subgroup has them: their sum of y takes shuffles. */
function lanesFor(dState: number, { subgroup }: DeviceFacts): number {
  let lanes = 1
  while (lanes < 4 && 4 * lanes < dState && hasLanes(subgroup, 2 * lanes)) lanes *= 2
  return lanes
}
