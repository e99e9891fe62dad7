/**
 * Steps of single tokens wait more than they compute: each op is a dispatch, and a dispatch takes a GPU some microseconds even with nothing to do.
 * Here neighbouring ops become fewer kernels, which whole forwards take where the batch allows it; ops run by themselves as they are.
 *
 *   Mamba-1   rmsNorm + in_proj + conv1d │ x_proj │ norms of its parts + dt_proj + scan │ out_proj
 *   Mamba-2   rmsNorm + in_proj + conv1d │ ssdScan │ gated norm + out_proj
 *   others    rmsNorm or an activation + the linear ops that read it; the head with its rows gathered
 *
 * What only the ops of a group read is not written to memory.
 */

import type { ActivationOp, Conv1dOp, GatherRowsOp, LinearOp, Op, Program, RmsNormOp, View } from '../../program/ops.ts'
import type { BatchCounts, Kernel, KernelContext } from './kernel.ts'
import { fusedLinear, rowsOf } from './kernels/linear.ts'
import { fusedScan } from './kernels/scan-steps.ts'

/** Kernels in the place of those of ops [first, end). */
export interface Fusion {
  readonly first: number
  readonly end: number
  readonly kernels: readonly Kernel[]
  /** Whether they do all that the ops do with such a batch. */
  suits(counts: BatchCounts): boolean
}

/** None for a device that computes on the CPU, where a dispatch is cheap. */
export function findFusions(program: Program, context: KernelContext): Fusion[] {
  if (context.device.isSoftware) return []
  const fusions: Fusion[] = []
  for (let i = 0; i < program.ops.length; ) {
    const fusion = scanFusion(program, context, i) ?? linearFusion(program, context, i)
    if (fusion !== null) fusions.push(fusion)
    i = fusion?.end ?? i + 1
  }
  return fusions
}

/** Ops and fusions in the order in which they run such a batch: an index below nOps is an op's, one from there on a fusion's. */
export function entriesFor(nOps: number, fusions: readonly Fusion[], counts: BatchCounts): number[] {
  const entries: number[] = []
  let next = 0
  fusions.forEach((fusion, k) => {
    if (!fusion.suits(counts)) return
    while (next < fusion.first) entries.push(next++)
    entries.push(nOps + k)
    next = fusion.end
  })
  while (next < nOps) entries.push(next++)
  return entries
}

/** Up to which rows inputs are made by each workgroup for itself where that takes exponentials: of more rows they take longer than a dispatch. */
const MOST_ROWS_WITH_EXP = 1

/** Parts of a row with norms of their own: each has its scale in workgroup memory. */
const MOST_NORM_GROUPS = 64

/** [gatherRows], rmsNorm or an activation, and the linear ops that read it; conv1d of columns of the last one. */
function linearFusion(program: Program, context: KernelContext, first: number): Fusion | null {
  const { ops } = program
  const gather = opAt(ops, first, 'gatherRows')
  const inputs = inputsAt(ops, gather ? first + 1 : first, gather)
  const firstLinear = first + (gather ? 1 : 0) + (inputs ? 1 : 0)
  const linears = linearsFrom(ops, firstLinear, inputs)
  if (linears.length === 0 || (gather && !inputs)) return null
  const last = linears[linears.length - 1]
  const conv = convAt(ops, firstLinear + linears.length, last)
  if (!inputs && !conv) return null
  if (inputs?.kind === 'rmsNorm' && inputs.x.width > MOST_NORM_GROUPS * inputs.groupWidth) return null
  const end = firstLinear + linears.length + (conv ? 1 : 0)
  const read = [...(inputs ? readsOf(inputs) : [last.x]), ...(gather ? [gather.x] : [])]
  const written = [...linears.map(({ out }) => out), ...(conv ? [conv.out] : [])]
  const left = [gather?.out, inputs?.out, conv?.x].filter((view) => view !== undefined)
  // Workgroups read and write in any order, and what is left out nobody may miss.
  if (written.some((view) => read.some((other) => overlaps(view, other))) || !left.every((view) => isDead(program, view, end))) return null
  const fused = linears.map((op) => fusedLinear(op, context, { gather, inputs, conv: op === last ? conv : undefined }))
  const hasExp = inputs?.kind === 'activation' || (inputs?.gate ?? null) !== null
  const mostRows = Math.min(hasExp ? MOST_ROWS_WITH_EXP : Infinity, ...fused.map((each) => each.mostRows))
  return {
    first, end, kernels: fused.flatMap(({ kernels }) => kernels),
    suits(counts) {
      const nRows = rowsOf(last.x, counts)
      return nRows > 0 && nRows <= mostRows && (!conv || counts.maxSegmentRows === 1)
    }
  }
}

/** Norms without weights of what x_proj made, dt_proj and the scan. */
function scanFusion(program: Program, context: KernelContext, first: number): Fusion | null {
  const { ops } = program
  const norms: RmsNormOp[] = []
  for (let norm = opAt(ops, first, 'rmsNorm'); norm; norm = opAt(ops, first + norms.length, 'rmsNorm')) norms.push(norm)
  const product = opAt(ops, first + norms.length, 'linear')
  const scan = opAt(ops, first + norms.length + 1, 'selectiveScan')
  if (!product || !scan || product.bias || product.accumulate || !isSame(product.out, scan.dt) || product.out.width !== scan.x.width) return null
  const inputs = [product.x, ...[scan.B, scan.C].filter(isView)]
  const isOfToken = inputs.length === 3 && [scan.B, scan.C].every((view) => isView(view) && view.width === scan.dState)
  const isPlain = ({ x, gate, weight, groupWidth, out }: RmsNormOp): boolean =>
    gate === null && weight === null && groupWidth === x.width && isSame(x, out) && inputs.some((view) => isSame(view, x))
  const end = first + norms.length + 2
  const read = [...inputs, scan.x, ...(scan.z ? [scan.z] : [])]
  if (!isOfToken || !norms.every(isPlain) || read.some((view) => overlaps(view, scan.out)) || ![product.out, ...norms.map(({ out }) => out)].every((view) => isDead(program, view, end))) return null
  return { first, end, kernels: [fusedScan(scan, context, { norms, product })], suits: ({ maxSegmentRows }) => maxSegmentRows === 1 }
}

function opAt<K extends Op['kind']>(ops: readonly Op[], i: number, kind: K): Extract<Op, { kind: K }> | undefined {
  const op = ops[i] as Op | undefined
  return op?.kind === kind ? (op as Extract<Op, { kind: K }>) : undefined
}

function inputsAt(ops: readonly Op[], i: number, gather: GatherRowsOp | undefined): RmsNormOp | ActivationOp | undefined {
  const norm = opAt(ops, i, 'rmsNorm')
  if (!gather) return norm ?? opAt(ops, i, 'activation')
  return norm && norm.gate === null && isSame(norm.x, gather.out) ? norm : undefined
}

/** Those that read `inputs`, or the first one whatever it reads. */
function linearsFrom(ops: readonly Op[], first: number, inputs: Op | undefined): LinearOp[] {
  const linears: LinearOp[] = []
  for (let op = opAt(ops, first, 'linear'); op && (inputs ? isSame(op.x, inputs.out) : linears.length === 0); op = opAt(ops, first + linears.length, 'linear')) linears.push(op)
  return linears
}

function convAt(ops: readonly Op[], i: number, { out, accumulate }: LinearOp): Conv1dOp | undefined {
  const conv = opAt(ops, i, 'conv1d')
  return conv && !accumulate && conv.weight.shape[2] > 1 && covers(out, conv.x) && !overlaps(out, conv.out) ? conv : undefined
}

/** True where no op from `from` on reads what is there by then. */
function isDead({ ops, logits }: Program, view: View, from: number): boolean {
  for (const op of ops.slice(from)) {
    if (readsOf(op).some((read) => overlaps(read, view))) return false
    if (op.kind !== 'cacheKeyValue' && covers(op.out, view)) return true
  }
  return logits === null || !overlaps(logits, view)
}

/** Its views but for one that it only writes. */
function readsOf(op: Op): View[] {
  const views = Object.entries(op).filter(([name]) => name !== 'out' || ('accumulate' in op && op.accumulate)).map(([, value]: [string, unknown]) => value)
  return views.filter(isView)
}

function isView(value: unknown): value is View {
  return typeof value === 'object' && value !== null && 'buffer' in value
}

function isSame(a: View, b: View): boolean {
  return a.buffer === b.buffer && a.offset === b.offset && a.width === b.width
}

function overlaps(a: View, b: View): boolean {
  return a.buffer === b.buffer && a.offset < b.offset + b.width && b.offset < a.offset + a.width
}

/** True where all of `b` is in `a`. */
function covers(a: View, b: View): boolean {
  return a.buffer === b.buffer && a.offset <= b.offset && b.offset + b.width <= a.offset + a.width
}
