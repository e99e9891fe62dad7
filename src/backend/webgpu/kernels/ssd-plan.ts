/** What the kernels of Mamba-2's state space know of an op, and how their WGSL gets at its values. */

import type { Parameter, SsdScanOp } from '../../../program/ops.ts'
import type { Binding, KernelContext } from '../kernel.ts'
import { type Binder, createBinder } from './binder.ts'
import { elementOf, float } from './elements.ts'
import { SOFTPLUS } from './scan-math.ts'

/** Segments of fewer rows go token by token in any form. */
export const SSD_LEAST_ROWS = 32

export interface SsdPlan {
  readonly nHeads: number
  readonly headDim: number
  readonly dState: number
  readonly nGroups: number
  readonly state: Binding
  /** WGSL; row of the batch and column are expressions. */
  readonly x: (row: string, column: string) => string
  readonly out: (row: string, column: string) => string
  /** Element of activations where B and C of a row and a group start. */
  readonly startOfB: (row: string, group: string) => string
  readonly startOfC: (row: string, group: string) => string
  readonly groupOf: (head: string) => string
  readonly binder: () => SsdBinder
}

/** Of one kernel. */
export interface SsdBinder extends Binder {
  /** Binds what they need: dt of a row and a head with its bias, softplus and limits; log2 e · A of a head. */
  steps(): { readonly timeStep: (row: string, head: string) => string; readonly decayRate: (head: string) => string }
  /** y + D · x */
  skip(): (y: string, x: string, head: string) => string
}

export function planSsd(op: SsdScanOp, context: KernelContext): SsdPlan {
  const { dState, dtLimit: [least, most] } = op
  const nHeads = op.dt.width
  const nGroups = op.B.width / dState
  const dt = elementOf(context, op.dt)
  const start = (from: typeof op.B) => {
    const { offset, stride } = context.view(from)
    return (row: string, group: string): string => `${offset}u + (${row}) * ${stride}u + (${group}) * ${dState}u`
  }
  const limited = (value: string): string => {
    const above = least > 0 ? `max(${value}, ${float(least)})` : value
    return most < 3e38 ? `min(${above}, ${float(most)})` : above
  }
  const binder = (): SsdBinder => {
    const inner = createBinder()
    const perHead = (name: string, parameter: Parameter) => inner.values(name, { kind: 'parameters', parameters: [parameter] })
    return {
      ...inner,
      steps() {
        inner.declare(SOFTPLUS)
        const A = perHead('A', op.A)
        const dtBias = op.dtBias && perHead('dtBias', op.dtBias)
        return {
          timeStep: (row, head) => limited(`softplus(${dt(row, head)}${dtBias ? ` + ${dtBias(head)}` : ''})`),
          decayRate: (head) => `${float(Math.LOG2E)} * ${A(head)}`
        }
      },
      skip() {
        const D = op.D && perHead('D', op.D)
        return (y, x, head) => (D ? `fma(${D(head)}, ${x}, ${y})` : y)
      }
    }
  }
  return {
    nHeads, headDim: op.x.width / nHeads, dState, nGroups, state: { kind: 'state', state: op.state },
    x: elementOf(context, op.x), out: elementOf(context, op.out), startOfB: start(op.B), startOfC: start(op.C),
    groupOf: (head) => `(${head}) * ${nGroups}u / ${nHeads}u`, binder
  }
}
