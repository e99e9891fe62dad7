/** Mamba-2's scan as an op by itself, in whatever form and place. */
import { columns, type ProgramBuilder } from '../../src/program/builder.ts'
import type { Op } from '../../src/program/ops.ts'

export interface SsdShape {
  readonly nHeads: number
  readonly headDim: number
  readonly dState: number
  readonly nGroups: number
  readonly hasD: boolean
  readonly hasDtBias: boolean
  readonly dtLimit: readonly [number, number]
  /** x, B and C in one buffer, dt in another one, as in a model. */
  readonly isInset: boolean
}

export function addScan(builder: ProgramBuilder, { nHeads, headDim, dState, nGroups, isInset, ...form }: SsdShape): Op {
  const [width, groupWidth] = [nHeads * headDim, nGroups * dState]
  const xBC = builder.buffer('xBC', width + 2 * groupWidth)
  builder.state('before', [5])
  const state = builder.state('ssm', [nHeads, headDim, dState])
  builder.state('after', [3])
  return {
    kind: 'ssdScan', dState, dtLimit: form.dtLimit, state,
    x: isInset ? columns(xBC, 0, width) : builder.buffer('x', width),
    dt: isInset ? columns(builder.buffer('zdt', 3 + nHeads), 3, nHeads) : builder.buffer('dt', nHeads),
    A: builder.parameter('A', [nHeads]),
    B: columns(xBC, width, groupWidth),
    C: columns(xBC, width + groupWidth, groupWidth),
    D: form.hasD ? builder.parameter('D', [nHeads]) : null,
    dtBias: form.hasDtBias ? builder.parameter('dtBias', [nHeads]) : null,
    out: isInset ? columns(builder.buffer('wide', 3 + width + 5), 3, width) : builder.buffer('out', width)
  }
}

export const PLAIN: SsdShape = { nHeads: 4, headDim: 8, dState: 16, nGroups: 1, hasD: true, hasDtBias: true, dtLimit: [0, Infinity], isInset: true }
