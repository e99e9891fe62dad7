/** out = weight · x + bias: by kernels for one row, for a few and for many. */

import { elementsOf, type LinearOp, type View } from '../../../program/ops.ts'
import type { BatchCounts, Binding, Kernel, KernelContext } from '../kernel.ts'
import { type MatrixPart, matrixParts, rowForm } from '../weights.ts'
import { tileKernel, type TilePlan, tileSize } from './linear-tiles.ts'
import { vectorKernel, vectorOutputs, type VectorPlan } from './linear-vector.ts'
import { tilePlans, vectorChoices } from './plans.ts'
import { foldWorkgroups, type Product } from './product.ts'
import { weightReader } from './weight-reader.ts'

export function linear(op: LinearOp, context: KernelContext): readonly Kernel[] {
  const { rowUnits } = rowForm(context.formatOf(op.weight), op.x.width)
  const parts = matrixParts(op.out.width, rowUnits, context.device.maxBindingBytes)
  return parts.flatMap((part, i) => partKernels(op, context, { ...part, index: parts.length === 1 ? null : i }))
}

interface Part extends MatrixPart {
  /** Null where it is the whole. */
  readonly index: number | null
}

function partKernels(op: LinearOp, context: KernelContext, part: Part): Kernel[] {
  const shape = { format: context.formatOf(op.weight), nIn: op.x.width, nOut: part.nRows }
  const few = vectorChoices(shape, context.device)
  const mostFew = few[few.length - 1].most
  return [
    ...few.map(({ plan, most }, i) => linearVector(op, context, { part, plan, range: { least: i === 0 ? 1 : few[i - 1].most + 1, most } })),
    ...tilePlans(shape, context.device).map(({ plan, least, most }) => linearTiles(op, context, { part, plan, range: { least: Math.max(least, mostFew + 1), most } }))
  ]
}

/** Rows for which a kernel runs. */
interface RowRange {
  readonly least: number
  readonly most: number
}

interface Form<Plan> {
  readonly part: Part
  readonly plan: Plan
  readonly range: RowRange
}

export function linearVector(op: LinearOp, context: KernelContext, { part, plan, range }: Form<VectorPlan>): Kernel {
  const [x, y] = foldWorkgroups(Math.ceil(part.nRows / vectorOutputs(plan)), context.device.maxWorkgroups)
  return {
    label: `linear ${context.formatOf(op.weight)} vector ${plan.rows}`,
    ...vectorKernel(linearProduct(op, context, part), plan, context.device),
    bindings: bindingsOf(op, part),
    workgroups: (counts) => within(rowsOf(op.x, counts), range, (nRows) => [x, y, Math.ceil(nRows / plan.rows)])
  }
}

export function linearTiles(op: LinearOp, context: KernelContext, { part, plan, range }: Form<TilePlan>): Kernel {
  const tile = tileSize(plan)
  const [x, y] = foldWorkgroups(Math.ceil(part.nRows / tile.outputs), context.device.maxWorkgroups)
  return {
    label: `linear ${context.formatOf(op.weight)} tiles of ${tile.rows} × ${tile.outputs}`,
    ...tileKernel(linearProduct(op, context, part), plan),
    bindings: bindingsOf(op, part),
    workgroups: (counts) => within(rowsOf(op.x, counts), range, (nRows) => [x, y, Math.ceil(nRows / tile.rows)])
  }
}

function within<T>(nRows: number, { least, most }: RowRange, workgroups: (nRows: number) => T): T | null {
  return nRows >= least && nRows <= most ? workgroups(nRows) : null
}

export function rowsOf({ buffer }: View, { nTokens, nLogitRows }: BatchCounts): number {
  return buffer.rows === 'token' ? nTokens : nLogitRows
}

function bindingsOf({ weight, bias }: LinearOp, { index }: Part): Binding[] {
  return [
    { kind: 'parameters', parameters: [weight], ...(index !== null && { part: index }) },
    ...(bias === null ? [] : [{ kind: 'parameters', parameters: [bias] } as const])
  ]
}

function linearProduct({ x, weight, bias, out, accumulate }: LinearOp, context: KernelContext, { firstRow, nRows }: Part): Product {
  const reader = weightReader(context.formatOf(weight), x.width, 2)
  const [from, to] = [context.view(x), context.view(out)]
  const sum = ['value', ...(bias === null ? [] : [`bias[${firstRow}u + output]`])].join(' + ')
  return {
    reader, nIn: x.width, nOut: nRows, nWeightRows: nRows, setup: '', rowGroup: 'workgroup.z',
    code: `${reader.code}
${bias === null ? '' : `@group(0) @binding(3) var<storage, read> bias: array<f32, ${elementsOf(bias.shape)}>;`}
fn store(row: u32, output: u32, value: f32) {
  let at = ${to.offset + firstRow}u + row * ${to.stride}u + output;
  activations[at] = ${accumulate ? `activations[at] + (${sum})` : sum};
}`,
    nRows: x.buffer.rows === 'token' ? 'nTokens()' : 'nLogitRows()',
    x: (row) => `(${from.offset}u + ${row} * ${from.stride}u)`,
    weightRow: (output) => output,
    store: (row, output, value) => `store(${row}, ${output}, ${value});`
  }
}
