/** The selective scan as an op by itself, in whatever form and place. */
import { columns, type ProgramBuilder } from '../../src/program/builder.ts'
import type { Op, ScanInput, View } from '../../src/program/ops.ts'

/** Groups of channels with one B or C each, or 'fixed' for the same (D, N) at every token. */
export type Groups = number | 'fixed'

export interface Form {
  readonly dInner: number
  readonly dState: number
  readonly BGroups: Groups
  readonly CGroups: Groups
  readonly hasZ: boolean
  readonly hasD: boolean
  readonly hasDtBias: boolean
  readonly dtSoftplus: boolean
  /** z beside x, and dt, B and C in one buffer, as in a model. */
  readonly isInset: boolean
}

export function addScan(builder: ProgramBuilder, form: Form): Op {
  const { dInner, dState, isInset } = form
  const widthOf = (groups: Groups): number => (groups === 'fixed' ? 0 : groups * dState)
  const xz = isInset ? builder.buffer('xz', 2 * dInner) : null
  const BC = builder.buffer('BC', 3 + widthOf(form.BGroups) + widthOf(form.CGroups))
  const input = (name: string, groups: Groups, offset: number): ScanInput =>
    groups === 'fixed' ? builder.parameter(name, [dInner, dState]) : columns(BC, offset, widthOf(groups))
  const z = (): View => (xz ? columns(xz, dInner, dInner) : builder.buffer('z', dInner))
  builder.state('before', [5])
  const state = builder.state('ssm', [dInner, dState])
  builder.state('after', [3])
  return {
    kind: 'selectiveScan', dState, dtSoftplus: form.dtSoftplus, state,
    x: xz ? columns(xz, 0, dInner) : builder.buffer('x', dInner),
    dt: builder.buffer('dt', dInner),
    z: form.hasZ ? z() : null,
    A: builder.parameter('A', [dInner, dState]),
    B: input('B', form.BGroups, 3),
    C: input('C', form.CGroups, 3 + widthOf(form.BGroups)),
    D: form.hasD ? builder.parameter('D', [dInner]) : null,
    dtBias: form.hasDtBias ? builder.parameter('dtBias', [dInner]) : null,
    out: builder.buffer('out', dInner)
  }
}

export const PLAIN: Form = { dInner: 5, dState: 16, BGroups: 1, CGroups: 1, hasZ: true, hasD: true, hasDtBias: true, dtSoftplus: true, isInset: true }
