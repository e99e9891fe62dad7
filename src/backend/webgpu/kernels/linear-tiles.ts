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

export function tileKernel(product: Product, plan: TilePlan): Pick<Kernel, 'code' | 'enables'> {
  const { nIn, nOut } = product
  const { quads, splits } = plan
  const tile = tileSize(plan)
  const groupThreads = plan.rowThreads * plan.outputThreads
  const threads = groupThreads * splits
  const sums = plan.rows * plan.outputs
  const stride = quads % 2 === 0 ? quads + 1 : quads
  // Quads that a thread loads of each.
  const xLoads = Math.ceil((tile.rows * quads) / threads)
  const weightLoads = Math.ceil((tile.outputs * quads) / threads)
  const nQuads = Math.ceil(nIn / 4)
  const load = `
    ${unroll(xLoads, (i) => `x${i} = inputQuad(firstRow + (thread + ${i * threads}u) / ${quads}u, quad + (thread + ${i * threads}u) % ${quads}u, nRows);`)}
    ${unroll(weightLoads, (i) => `w${i} = outputQuad(firstOutput + (thread + ${i * threads}u) / ${quads}u, quad + (thread + ${i * threads}u) % ${quads}u);`)}`
  const place = (count: number, total: number, line: (i: number) => string): string =>
    unroll(count, (i) => ((i + 1) * threads <= total ? line(i) : `if (thread + ${i * threads}u < ${total}u) { ${line(i)} }`))
  const at = (i: number): string => `(thread + ${i * threads}u) / ${quads}u * ${stride}u + (thread + ${i * threads}u) % ${quads}u`
  const code = `${product.code}
var<workgroup> xTile: array<vec4<f32>, ${tile.rows * stride}>;
var<workgroup> weightTile: array<vec4<f32>, ${Math.max(tile.outputs * stride, splits > 1 ? (groupThreads * sums) / 4 : 0)}>;

fn inputQuad(row: u32, quad: u32, nRows: u32) -> vec4<f32> {
  if (row >= nRows || quad >= ${nQuads}u) { return vec4<f32>(); }
  let at = ${product.x('row')} + 4u * quad;
  ${nIn % 4 === 0 ? '' : `if (quad == ${nQuads - 1}u) {
    return vec4<f32>(activations[at]${[1, 2, 3].map((i) => (i < nIn % 4 ? `, activations[at + ${i}u]` : ', 0.0')).join('')});
  }`}
  return vec4<f32>(activations[at], activations[at + 1u], activations[at + 2u], activations[at + 3u]);
}
fn outputQuad(output: u32, quad: u32) -> vec4<f32> {
  let row = ${product.weightRow('output')};
  if (output >= ${nOut}u || row >= ${product.nWeightRows}u || quad >= ${nQuads}u) { return vec4<f32>(); }
  return weightQuad(row, quad);
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
  ${unroll(weightLoads, (i) => `var w${i}: vec4<f32>;`)}
  // A workgroup without rows has nothing to sum.
  let endQuad = select(0u, ${nQuads}u, firstRow < nRows);
  var quad = 0u;
  ${load}
  while (quad < endQuad) {
    workgroupBarrier();
    ${place(xLoads, tile.rows * quads, (i) => `xTile[${at(i)}] = x${i};`)}
    ${place(weightLoads, tile.outputs * quads, (i) => `weightTile[${at(i)}] = w${i};`)}
    workgroupBarrier();
    quad += ${quads}u;
    ${load}
    for (var q = group * ${quads / splits}u; q < (group + 1u) * ${quads / splits}u; q++) {
      ${unroll(plan.rows, (r) => `let a${r} = xTile[(rowThread + ${r * plan.rowThreads}u) * ${stride}u + q];`)}
      ${unroll(plan.outputs, (o) => `{
        let b = weightTile[(outputThread + ${o * plan.outputThreads}u) * ${stride}u + q];
        ${unroll(plan.rows, (r) => {
          const sum = `sum${r * plan.outputs + o}`
          return `${sum} = fma(a${r}.w, b.w, fma(a${r}.z, b.z, fma(a${r}.y, b.y, fma(a${r}.x, b.x, ${sum}))));`
        })}
      }`)}
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
