/**
 * Matrix × many rows, the work of a prompt: a workgroup makes a tile of rows × outputs, of which each thread has a few of each in registers.
 * A few inputs at a time of the tile's rows and of its weights, dequantized, come to workgroup memory (the next ones are loaded meanwhile);
 * rows there are an odd number of vec4 apart, so that neighbouring threads read neighbouring rows without conflicts.
 * Every output is one sum over the inputs in sequence, whatever the tile.
 */

import type { Kernel } from '../kernel.ts'
import { type Product, unroll, WORKGROUP_INDEX } from './product.ts'

export interface TilePlan {
  /** Threads along rows and outputs. */
  readonly rowThreads: number
  readonly outputThreads: number
  /** Rows and outputs of a thread. */
  readonly rows: number
  readonly outputs: number
  /** Inputs at a time, by four. */
  readonly quads: number
  /** Groups of threads, each of which takes its share of these inputs for the whole tile: for tiles so few that they leave a GPU without work. */
  readonly splits: number
}

export function tileSize({ rowThreads, outputThreads, rows, outputs }: TilePlan): { readonly rows: number; readonly outputs: number } {
  return { rows: rowThreads * rows, outputs: outputThreads * outputs }
}

/** Of a row in workgroup memory, in vec4. */
function strideOf({ quads }: TilePlan): number {
  return quads % 2 === 0 ? quads + 1 : quads
}

/** Of the tile's weights, and later of sums. */
function weightVectors(plan: TilePlan): number {
  const { rowThreads, outputThreads, rows, outputs, splits } = plan
  return Math.max(tileSize(plan).outputs * strideOf(plan), splits > 1 ? (rowThreads * outputThreads * rows * outputs) / 4 : 0)
}

/** Workgroup memory. */
export function tileBytes(plan: TilePlan): number {
  return 16 * (tileSize(plan).rows * strideOf(plan) + weightVectors(plan))
}

export function tileKernel(product: Product, plan: TilePlan): Pick<Kernel, 'code' | 'enables'> {
  const { nIn, nOut } = product
  const { quads, splits } = plan
  const tile = tileSize(plan)
  const groupThreads = plan.rowThreads * plan.outputThreads
  const threads = groupThreads * splits
  const sums = plan.rows * plan.outputs
  const stride = strideOf(plan)
  // Quads that a thread loads.
  const xLoads = Math.ceil((tile.rows * quads) / threads)
  const nQuads = Math.ceil(nIn / 4)
  const weights = createWeights(product, plan)
  const load = `
    ${unroll(xLoads, (i) => `x${i} = inputQuad(firstRow + (thread + ${i * threads}u) / ${quads}u, quad + (thread + ${i * threads}u) % ${quads}u, nRows);`)}
    ${weights.load}`
  const place = (count: number, total: number, line: (i: number) => string): string =>
    unroll(count, (i) => ((i + 1) * threads <= total ? line(i) : `if (thread + ${i * threads}u < ${total}u) { ${line(i)} }`))
  const at = (i: number): string => `(thread + ${i * threads}u) / ${quads}u * ${stride}u + (thread + ${i * threads}u) % ${quads}u`
  const code = `${product.code}
var<workgroup> xTile: array<vec4<f32>, ${tile.rows * stride}>;
var<workgroup> weightTile: array<vec4<f32>, ${weightVectors(plan)}>;

fn inputQuad(row: u32, quad: u32, nRows: u32) -> vec4<f32> {
  if (row >= nRows || quad >= ${nQuads}u) { return vec4<f32>(); }
  let at = ${product.x('row')} + 4u * quad;
  ${nIn % 4 === 0 ? '' : `if (quad == ${nQuads - 1}u) {
    return vec4<f32>(activations[at]${[1, 2, 3].map((i) => (i < nIn % 4 ? `, activations[at + ${i}u]` : ', 0.0')).join('')});
  }`}
  return vec4<f32>(activations[at], activations[at + 1u], activations[at + 2u], activations[at + 3u]);
}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  ${product.setup}
  let nRows = ${product.nRows};
  let firstRow = ${product.rowGroup} * ${tile.rows}u;
  let firstOutput = (${WORKGROUP_INDEX}) * ${tile.outputs}u;
  let group = thread / ${groupThreads}u;
  let rowThread = thread % ${groupThreads}u / ${plan.outputThreads}u;
  let outputThread = thread % ${plan.outputThreads}u;
  ${unroll(sums, (i) => `var sum${i} = 0.0;`)}
  ${unroll(xLoads, (i) => `var x${i}: vec4<f32>;`)}
  ${weights.declare}
  // A workgroup without rows has nothing to sum.
  let endQuad = select(0u, ${nQuads}u, firstRow < nRows);
  var quad = 0u;
  ${load}
  while (quad < endQuad) {
    workgroupBarrier();
    ${place(xLoads, tile.rows * quads, (i) => `xTile[${at(i)}] = x${i};`)}
    ${weights.place}
    workgroupBarrier();
    quad += ${quads}u;
    ${load}
    for (var q = group * ${quads / splits}u; q < (group + 1u) * ${quads / splits}u; q++) {
      ${products(plan, stride)}
    }
  }
  ${addSplits(plan)}
  ${unroll(plan.rows, (r) => `{
    let row = firstRow + rowThread + ${r * plan.rowThreads}u;
    if (${splits > 1 ? 'group == 0u && ' : ''}row < nRows) {
      ${unroll(plan.outputs, (o) => `{
        let output = firstOutput + outputThread + ${o * plan.outputThreads}u;
        if (output < ${nOut}u && ${product.weightRow('output')} < ${product.nWeightRows}u) { ${product.store('row', 'output', `sum${r * plan.outputs + o}`)} }
      }`)}
    }
  }`)}
}
`
  return { code }
}

/** Statements: the products of four inputs. What a thread has fewer of stays in registers. */
function products({ rows, outputs, rowThreads, outputThreads }: TilePlan, stride: number): string {
  const row = (r: number): string => `let a${r} = xTile[(rowThread + ${r * rowThreads}u) * ${stride}u + q];`
  const output = (o: number): string => `let b${o} = weightTile[(outputThread + ${o * outputThreads}u) * ${stride}u + q];`
  const add = (r: number, o: number): string => {
    const sum = `sum${r * outputs + o}`
    return `${sum} = fma(a${r}.w, b${o}.w, fma(a${r}.z, b${o}.z, fma(a${r}.y, b${o}.y, fma(a${r}.x, b${o}.x, ${sum}))));`
  }
  return rows <= outputs
    ? `${unroll(rows, row)} ${unroll(outputs, (o) => `{ ${output(o)} ${unroll(rows, (r) => add(r, o))} }`)}`
    : `${unroll(outputs, output)} ${unroll(rows, (r) => `{ ${row(r)} ${unroll(outputs, (o) => add(r, o))} }`)}`
}

/** Statements for the weights of a tile on their way, a unit of 16 bytes at a time, of which a step has a whole number in each row. */
function createWeights(product: Product, plan: TilePlan): { readonly declare: string; readonly load: string; readonly place: string } {
  const { reader, nOut, nWeightRows } = product
  const unitQuads = reader.unitElements / 4
  const units = plan.quads / unitQuads
  if (!Number.isInteger(units)) throw new TypeError(`a tile of ${plan.quads} quads: expected a multiple of ${unitQuads}`)
  const stride = strideOf(plan)
  const threads = plan.rowThreads * plan.outputThreads * plan.splits
  const count = tileSize(plan).outputs * units
  const loads = Math.ceil(count / threads)
  const inTile = (i: number, line: string): string => ((i + 1) * threads <= count ? `{ ${line} }` : `if (thread + ${i * threads}u < ${count}u) { ${line} }`)
  const weight = (i: number, j: number): string => {
    const quad = reader.quad(`unit${i}`, j)
    return reader.hasFactors ? `factors${i}.x * ${quad}${reader.hasMinimum ? ` + factors${i}.y` : ''}` : quad
  }
  return {
    declare: unroll(loads, (i) => `var unit${i} = vec4<u32>();${reader.hasFactors ? ` var factors${i} = vec2<f32>();` : ''}`),
    load: unroll(loads, (i) => inTile(i, `
      let output = firstOutput + (thread + ${i * threads}u) / ${units}u;
      let row = ${product.weightRow('output')};
      let at = quad / ${unitQuads}u + (thread + ${i * threads}u) % ${units}u;
      // What is no weight is zero in every format.
      unit${i} = vec4<u32>();
      ${reader.hasFactors ? `factors${i} = vec2<f32>();` : ''}
      if (output < ${nOut}u && row < ${nWeightRows}u && at < ${reader.nUnits}u) {
        unit${i} = weightUnit(row, at);
        ${reader.hasFactors ? `factors${i} = weightFactors(row, at);` : ''}
      }`)),
    place: unroll(loads, (i) => inTile(i, `
      let at = (thread + ${i * threads}u) / ${units}u * ${stride}u + (thread + ${i * threads}u) % ${units}u * ${unitQuads}u;
      ${unroll(unitQuads, (j) => `weightTile[at + ${j}u] = ${weight(i, j)};`)}`))
  }
}

/** The first group of threads adds the others' sums to its own, in their order. */
function addSplits({ rows, outputs, rowThreads, outputThreads, splits }: TilePlan): string {
  if (splits === 1) return ''
  const groupThreads = rowThreads * outputThreads
  const vectors = (rows * outputs) / 4
  return `for (var other = 1u; other < ${splits}u; other++) {
    workgroupBarrier();
    if (group == other) {
      ${unroll(vectors, (v) => `weightTile[thread % ${groupThreads}u + ${v * groupThreads}u] = vec4<f32>(${[0, 1, 2, 3].map((k) => `sum${4 * v + k}`).join(', ')});`)}
    }
    workgroupBarrier();
    if (group == 0u) {
      ${unroll(vectors, (v) => `{
        let others = weightTile[thread + ${v * groupThreads}u];
        ${unroll(4, (k) => `sum${4 * v + k} += others[${k}];`)}
      }`)}
    }
  }`
}
