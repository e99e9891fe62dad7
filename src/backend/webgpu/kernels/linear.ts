/** out = weight · x + bias: by kernels for one row, for a few and for many. */

import type { ActivationOp, Conv1dOp, GatherRowsOp, LinearOp, RmsNormOp, View } from '../../../program/ops.ts'
import type { BatchCounts, Binding, Kernel, KernelContext } from '../kernel.ts'
import { type MatrixPart, matrixParts, rowForm } from '../weights.ts'
import { functionCode, SILU } from './activation.ts'
import { type Binder, createBinder } from './binder.ts'
import { elementOf } from './elements.ts'
import { tileKernel, type TilePlan, tileSize } from './linear-tiles.ts'
import { vectorKernel, vectorOutputs, type VectorPlan } from './linear-vector.ts'
import { type MatrixShape, tilePlans, vectorChoices } from './plans.ts'
import { foldWorkgroups, type Owner, type Product, type Source, unroll } from './product.ts'
import { weightReader } from './weight-reader.ts'

/** Ops that a linear op's kernels for few rows may do on the way. */
export interface Company {
  /** Before `inputs`, whose x it makes. */
  readonly gather?: GatherRowsOp | undefined
  /** Makes the linear op's x. */
  readonly inputs?: RmsNormOp | ActivationOp | undefined
  /** Its x are columns of the linear op's out, which then stay as they were. Where segments are single rows. */
  readonly conv?: Conv1dOp | undefined
}

export function linear(op: LinearOp, context: KernelContext): readonly Kernel[] {
  return partsOf(op, context).flatMap((part) => {
    const { few, mostFew } = fewForms(op, context, part)
    return [
      ...few.map((form) => linearVector(op, context, form)),
      ...tilePlans(shapeOf(op, context, part), context.device).map(({ plan, least, most }) => linearTiles(op, context, { part, plan, range: { least: Math.max(least, mostFew + 1), most } }))
    ]
  })
}

/** The kernels for few rows, together with other ops; `mostRows`: for how many there are some. */
export function fusedLinear(op: LinearOp, context: KernelContext, company: Company): { readonly kernels: readonly Kernel[]; readonly mostRows: number } {
  const forms = partsOf(op, context).map((part) => fewForms(op, context, part))
  return { kernels: forms.flatMap(({ few }) => few.map((form) => linearVector(op, context, form, company))), mostRows: Math.min(...forms.map(({ mostFew }) => mostFew)) }
}

interface Part extends MatrixPart {
  /** Null where it is the whole. */
  readonly index: number | null
}

function partsOf(op: LinearOp, context: KernelContext): Part[] {
  const { rowUnits } = rowForm(context.formatOf(op.weight), op.x.width)
  const parts = matrixParts(op.out.width, rowUnits, context.device.maxBindingBytes)
  return parts.map((part, i) => ({ ...part, index: parts.length === 1 ? null : i }))
}

function shapeOf(op: LinearOp, context: KernelContext, { nRows }: Part): MatrixShape {
  return { format: context.formatOf(op.weight), nIn: op.x.width, nOut: nRows }
}

function fewForms(op: LinearOp, context: KernelContext, part: Part): { readonly few: readonly Form<VectorPlan>[]; readonly mostFew: number } {
  const few = vectorChoices(shapeOf(op, context, part), context.device)
  return {
    few: few.map(({ plan, most }, i) => ({ part, plan, range: { least: i === 0 ? 1 : few[i - 1].most + 1, most } })),
    mostFew: few[few.length - 1].most
  }
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

export function linearVector(op: LinearOp, context: KernelContext, { part, plan, range }: Form<VectorPlan>, company: Company = {}): Kernel {
  const [x, y] = foldWorkgroups(Math.ceil(part.nRows / vectorOutputs(plan)), context.device.maxWorkgroups)
  const { product, bindings } = linearProduct(op, context, { part, company })
  const others = [company.gather, company.inputs, company.conv].flatMap((other) => (other ? [other.kind] : []))
  return {
    label: [`${nameOf(op, context, part)} vector ${plan.rows}`, ...others].join(' + '),
    ...vectorKernel(product, plan, context.device),
    bindings,
    workgroups: (counts) => within(rowsOf(op.x, counts), range, (nRows) => [x, y, Math.ceil(nRows / plan.rows)])
  }
}

export function linearTiles(op: LinearOp, context: KernelContext, { part, plan, range }: Form<TilePlan>): Kernel {
  const tile = tileSize(plan)
  const [x, y] = foldWorkgroups(Math.ceil(part.nRows / tile.outputs), context.device.maxWorkgroups)
  const { product, bindings } = linearProduct(op, context, { part, company: {} })
  return {
    label: `${nameOf(op, context, part)} tiles of ${tile.rows} × ${tile.outputs}`,
    ...tileKernel(product, plan),
    bindings,
    workgroups: (counts) => within(rowsOf(op.x, counts), range, (nRows) => [x, y, Math.ceil(nRows / tile.rows)])
  }
}

/** With the matrix, so that a profile tells them apart. */
function nameOf({ weight, x }: LinearOp, context: KernelContext, { nRows }: Part): string {
  return `linear ${context.formatOf(weight)} ${x.width} → ${nRows}`
}

function within<T>(nRows: number, { least, most }: RowRange, workgroups: (nRows: number) => T): T | null {
  return nRows >= least && nRows <= most ? workgroups(nRows) : null
}

export function rowsOf({ buffer }: View, { nTokens, nLogitRows }: BatchCounts): number {
  return buffer.rows === 'token' ? nTokens : nLogitRows
}

function linearProduct(op: LinearOp, context: KernelContext, { part, company }: { part: Part; company: Company }): { readonly product: Product; readonly bindings: readonly Binding[] } {
  const { x, weight, bias, out, accumulate } = op
  const { firstRow, nRows, index } = part
  const binder = createBinder()
  const reader = weightReader(context.formatOf(weight), x.width, binder.place({ kind: 'parameters', parameters: [weight], ...(index !== null && { part: index }) }), context.device)
  const biasAt = bias && binder.values('bias', { kind: 'parameters', parameters: [bias] })
  const outAt = (row: string, output: string): string => elementOf(context, out)(row, `${firstRow}u + ${output}`)
  const before = (row: string, output: string): string[] => [...(biasAt ? [biasAt(`${firstRow}u + ${output}`)] : []), ...(accumulate ? [outAt(row, output)] : [])]
  const plainOwner: Owner = {
    declare: 'var before = 0.0;',
    find: () => '',
    load(row, output) {
      const terms = before(row, output)
      return terms.length > 0 ? `before = ${terms.join(' + ')};` : ''
    },
    store: (row, output, value) => `${outAt(row, output)} = ${value} + before;`
  }
  const source = company.inputs && sourceOf(company.inputs, company.gather, context, binder)
  const { conv } = company
  const owner = conv ? convOwner(conv, { context, binder, plain: plainOwner, outputOf: (output) => `${firstRow}u + ${output} - ${conv.x.offset - out.offset}u` }) : plainOwner
  const from = context.view(x)
  return {
    bindings: binder.bindings,
    product: {
      reader, nIn: x.width, nOut: nRows, nWeightRows: nRows, setup: '', rowGroup: 'workgroup.z',
      code: `${reader.code}
${binder.declarations()}`,
      nRows: x.buffer.rows === 'token' ? 'nTokens()' : 'nLogitRows()',
      x: (row) => `(${from.offset}u + ${row} * ${from.stride}u)`,
      weightRow: (output) => output,
      store: (row, output, value) => `${outAt(row, output)} = ${[value, ...before(row, output)].join(' + ')};`,
      owner,
      ...(source && { source })
    }
  }
}

function sourceOf(op: RmsNormOp | ActivationOp, gather: GatherRowsOp | undefined, context: KernelContext, binder: Binder): Source {
  const from = elementOf(context, gather?.x ?? op.x)
  const at = (row: string, column: string): string => from(gather ? `tokenRowOf(${row})` : row, column)
  if (op.kind === 'activation') {
    const byAt = op.by && elementOf(context, op.by)
    binder.declare(functionCode(op.function))
    return { norm: null, value: (row, column) => `${op.function}(${at(row, column)})${byAt ? ` * ${byAt(row, column)}` : ''}` }
  }
  const { weight, eps, groupWidth } = op
  const gateAt = op.gate && elementOf(context, op.gate)
  if (gateAt) binder.declare(SILU)
  const quads = weight && binder.quads('normWeight', { kind: 'parameters', parameters: [weight] }, { width: op.x.width, nQuads: Math.ceil(op.x.width / 4) })
  return {
    value: (row, column) => `${at(row, column)}${gateAt ? ` * silu(${gateAt(row, column)})` : ''}`,
    norm: { eps, groupWidth, weight: quads && ((quad) => quads.load('0u', quad)) }
  }
}

/** The owner of a column of the convolution's inputs has its channel to itself: state, taps and output. */
function convOwner({ weight, bias, activation, state, x, out }: Conv1dOp, { context, binder, plain, outputOf }: {
  context: KernelContext; binder: Binder; plain: Owner; outputOf: (output: string) => string
}): Owner {
  const nPast = weight.shape[2] - 1
  const tapAt = binder.values('taps', { kind: 'parameters', parameters: [weight] })
  const biasAt = bias && binder.values('convBias', { kind: 'parameters', parameters: [bias] })
  const pastAt = binder.values('state', { kind: 'state', state })
  if (activation === 'silu') binder.declare(SILU)
  const place = (of: string): string => `(segment.${of} * ${x.width}u + d) * ${nPast}u`
  const sum = [`x${nPast} * tap${nPast}`, ...Array.from({ length: nPast }, (_, j) => `x${j} * tap${j}`), ...(bias ? ['offset'] : [])].join(' + ')
  return {
    declare: `${plain.declare}
  var segment = Segment();
  ${bias ? 'var offset = 0.0;' : ''}
  ${unroll(nPast + 1, (j) => `var tap${j} = 0.0;`)}
  ${unroll(nPast, (j) => `var x${j} = 0.0;`)}`,
    find: (row) => `segment = segmentOf(${row});`,
    load: (row, output) => `${plain.load(row, output)}
      // What is before the channels is beyond them.
      let d = ${outputOf(output)};
      if (d < ${x.width}u) {
        let past = ${place('stateFrom')};
        ${biasAt ? `offset = ${biasAt('d')};` : ''}
        ${unroll(nPast + 1, (j) => `tap${j} = ${tapAt(`d * ${nPast + 1}u + ${j}u`)};`)}
        ${unroll(nPast, (j) => `x${j} = ${pastAt(`past + ${j}u`)};`)}
      }`,
    store: (row, output, value) => `let d = ${outputOf(output)};
    if (d < ${x.width}u) {
      let next = ${place('stateTo')};
      let x${nPast} = ${value} + before;
      let value = ${sum};
      ${elementOf(context, out)(row, 'd')} = ${activation === 'silu' ? 'silu(value)' : 'value'};
      ${unroll(nPast, (j) => `${pastAt(`next + ${j}u`)} = x${j + 1};`)}
    } else {
      ${plain.store(row, output, value)}
    }`
  }
}
