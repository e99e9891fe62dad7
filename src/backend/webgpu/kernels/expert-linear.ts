/**
 * The products of each row with the matrices of its chosen experts. Few rows: one product after the other, as for a single row. Many: the rows
 * of each expert are listed first, then each expert multiplies its own in tiles, so that its weights are read once for a tile of rows.
 */

import type { ExpertLinearOp } from '../../../program/ops.ts'
import type { Binding, Kernel, KernelContext } from '../kernel.ts'
import { type MatrixPart, matrixParts, rowForm } from '../weights.ts'
import { rowsOf } from './linear.ts'
import { tileKernel, tileSize } from './linear-tiles.ts'
import { vectorKernel, vectorOutputs } from './linear-vector.ts'
import { expertTile, vectorPlan } from './plans.ts'
import { foldWorkgroups, type Product } from './product.ts'
import { weightReader } from './weight-reader.ts'

/** Choices, rows times topK, up to which each is a product of its own. */
const FEW_CHOICES = 32

export function expertLinear(op: ExpertLinearOp, context: KernelContext): readonly Kernel[] {
  const shape = shapeOf(op)
  const parts = matrixParts(op.nExperts * shape.nOut, rowForm(context.formatOf(op.weights[0]), shape.nIn).rowUnits, context.device.maxBindingBytes)
  const withIndex = parts.map((part, i) => ({ ...part, index: parts.length === 1 ? null : i }))
  return [
    ...withIndex.map((part) => choiceKernel(op, context, part)),
    listKernel(op, context),
    ...withIndex.map((part) => tilesKernel(op, context, part))
  ]
}

interface Part extends MatrixPart {
  /** Null where it is the whole. */
  readonly index: number | null
}

function shapeOf({ x, out, topK, isPerChoice }: ExpertLinearOp): { readonly nIn: number; readonly nOut: number } {
  return { nIn: isPerChoice ? x.width / topK : x.width, nOut: out.width / topK }
}

function weightsOf({ weights }: ExpertLinearOp, { index }: Part): Binding {
  return { kind: 'parameters', parameters: weights, ...(index !== null && { part: index }) }
}

/** A choice is row · topK + j; `choice` stands for that of the row that a kernel multiplies, `expert` for its expert. */
function expertProduct(op: ExpertLinearOp, context: KernelContext, { firstRow, nRows }: Part): Omit<Product, 'nRows' | 'rowGroup' | 'setup'> {
  const { topK, isPerChoice } = op
  const { nIn, nOut } = shapeOf(op)
  const reader = weightReader(context.formatOf(op.weights[0]), nIn, 2, context.device)
  const [x, out] = [context.view(op.x), context.view(op.out)]
  return {
    reader, nIn, nOut, nWeightRows: nRows,
    code: `${reader.code}
var<private> expert: u32;
fn inputsOf(choice: u32) -> u32 { return ${x.offset}u + choice / ${topK}u * ${x.stride}u${isPerChoice ? ` + choice % ${topK}u * ${nIn}u` : ''}; }
fn store(choice: u32, output: u32, value: f32) {
  activations[${out.offset}u + choice / ${topK}u * ${out.stride}u + choice % ${topK}u * ${nOut}u + output] = value;
}`,
    x: (row) => `inputsOf(choiceOf(${row}))`,
    // Below the first row it is beyond the last.
    weightRow: (output) => `(expert * ${nOut}u + ${output} - ${firstRow}u)`,
    store: (row, output, value) => `store(choiceOf(${row}), ${output}, ${value});`
  }
}

/** The number of expert `j` of a row, as the choices have it. */
function chosen({ choices }: ExpertLinearOp, context: KernelContext, row: string, j: string): string {
  const { offset, stride } = context.view(choices)
  return `u32(activations[${offset}u + ${row} * ${stride}u + ${j}])`
}

function choiceKernel(op: ExpertLinearOp, context: KernelContext, part: Part): Kernel {
  const { device } = context
  const format = context.formatOf(op.weights[0])
  const plan = vectorPlan({ format, ...shapeOf(op) }, 1, device)
  const base = expertProduct(op, context, part)
  const product: Product = {
    ...base,
    code: `${base.code}
var<private> onlyChoice: u32;
fn choiceOf(row: u32) -> u32 { return onlyChoice; }`,
    setup: `onlyChoice = workgroup.z;
  expert = ${chosen(op, context, `(onlyChoice / ${op.topK}u)`, `onlyChoice % ${op.topK}u`)};`,
    nRows: '1u', rowGroup: '0u'
  }
  const [x, y] = foldWorkgroups(Math.ceil(base.nOut / vectorOutputs(plan)), device.maxWorkgroups)
  return {
    label: `expertLinear ${format} vector`,
    ...vectorKernel(product, plan, device),
    bindings: [weightsOf(op, part)],
    workgroups(counts) {
      const nRows = rowsOf(op.x, counts)
      return nRows > 0 && isFew(op, nRows) ? [x, y, nRows * op.topK] : null
    }
  }
}

/** Scratch: how many choices each expert has, then for each expert as many places as there may be rows. */
function scratchOf({ nExperts, x }: ExpertLinearOp, { capacity }: KernelContext): { readonly binding: Binding; readonly maxRows: number } {
  const maxRows = x.buffer.rows === 'token' ? capacity.maxRows : capacity.maxLogitRows
  return { binding: { kind: 'scratch', bytes: 4 * nExperts * (1 + maxRows) }, maxRows }
}

const LIST_THREADS = 64

/** Lists the choices of each expert, in the order of the rows: a workgroup has an expert, a thread neighbouring rows. */
function listKernel(op: ExpertLinearOp, context: KernelContext): Kernel {
  const { binding, maxRows } = scratchOf(op, context)
  const eachOwn = (statement: string): string => `for (var row = firstRow; row < endRow; row++) {
    for (var j = 0u; j < ${op.topK}u; j++) {
      if (${chosen(op, context, 'row', 'j')} == workgroup.x) { ${statement} }
    }
  }`
  return {
    label: 'expertLinear lists',
    bindings: [binding],
    workgroups: (counts) => (isFew(op, rowsOf(op.x, counts)) ? null : [op.nExperts, 1, 1]),
    code: `
@group(0) @binding(2) var<storage, read_write> scratch: array<u32>;
var<workgroup> counts: array<u32, ${LIST_THREADS}>;
@compute @workgroup_size(${LIST_THREADS})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let nRows = ${op.x.buffer.rows === 'token' ? 'nTokens()' : 'nLogitRows()'};
  let ownRows = (nRows + ${LIST_THREADS - 1}u) / ${LIST_THREADS}u;
  let firstRow = thread * ownRows;
  let endRow = min(firstRow + ownRows, nRows);
  var count = 0u;
  ${eachOwn('count++;')}
  counts[thread] = count;
  workgroupBarrier();
  var at = 0u;
  for (var i = 0u; i < thread; i++) { at += counts[i]; }
  if (thread == ${LIST_THREADS - 1}u) { scratch[workgroup.x] = at + count; }
  at += ${op.nExperts}u + workgroup.x * ${maxRows}u;
  ${eachOwn(`scratch[at] = row * ${op.topK}u + j; at++;`)}
}
`
  }
}

function isFew({ topK }: ExpertLinearOp, nRows: number): boolean {
  return nRows * topK <= FEW_CHOICES
}

function tilesKernel(op: ExpertLinearOp, context: KernelContext, part: Part): Kernel {
  const { binding, maxRows } = scratchOf(op, context)
  const base = expertProduct(op, context, part)
  const { nExperts } = op
  const plan = expertTile({ format: context.formatOf(op.weights[0]), nIn: base.nIn, nOut: base.nOut }, context.device)
  const tile = tileSize(plan)
  const product: Product = {
    ...base,
    code: `${base.code}
@group(0) @binding(3) var<storage, read_write> scratch: array<u32>;
var<workgroup> nListed: u32;
fn choiceOf(row: u32) -> u32 { return scratch[${nExperts}u + expert * ${maxRows}u + row]; }`,
    setup: `expert = workgroup.z % ${nExperts}u;
  if (thread == 0u) { nListed = scratch[expert]; }`,
    nRows: 'workgroupUniformLoad(&nListed)', rowGroup: `(workgroup.z / ${nExperts}u)`
  }
  const [x, y] = foldWorkgroups(Math.ceil(base.nOut / tile.outputs), context.device.maxWorkgroups)
  return {
    label: `expertLinear ${context.formatOf(op.weights[0])} tiles of ${tile.rows} × ${tile.outputs}`,
    ...tileKernel(product, plan),
    bindings: [weightsOf(op, part), binding],
    workgroups(counts) {
      const nRows = rowsOf(op.x, counts)
      return isFew(op, nRows) ? null : [x, y, nExperts * Math.ceil(nRows / tile.rows)]
    }
  }
}
