/** Rows of a matrix, one for each token: a thread for every four columns. */

import type { EmbedOp } from '../../../program/ops.ts'
import type { Kernel, KernelContext } from '../kernel.ts'
import { matrixParts } from '../weights.ts'
import { foldWorkgroups, unroll, WORKGROUP_INDEX } from './product.ts'
import { weightReader } from './weight-reader.ts'

const THREADS = 64

export function embed({ weight, out }: EmbedOp, context: KernelContext): readonly Kernel[] {
  const format = context.formatOf(weight)
  const reader = weightReader(format, out.width, 2, context.device)
  const { offset, stride } = context.view(out)
  const nQuads = Math.ceil(out.width / 4)
  const parts = matrixParts(weight.shape[0], reader.rowUnits, context.device.maxBindingBytes)
  return parts.map(({ firstRow, nRows }, i) => ({
    label: `embed ${format}`,
    bindings: [{ kind: 'parameters', parameters: [weight], ...(parts.length > 1 && { part: i }) }],
    workgroups: ({ nTokens }) => [...foldWorkgroups(Math.ceil((nTokens * nQuads) / THREADS), context.device.maxWorkgroups), 1],
    code: `${reader.code}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let index = (${WORKGROUP_INDEX}) * ${THREADS}u + thread;
  let row = index / ${nQuads}u;
  let quad = index % ${nQuads}u;
  if (row >= nTokens()) { return; }
  // Below the first row it is beyond the last.
  let weightRow = tokenOf(row) - ${firstRow}u;
  if (weightRow >= ${nRows}u) { return; }
  let values = weightQuad(weightRow, quad);
  let at = ${offset}u + row * ${stride}u + 4u * quad;
  ${unroll(4, (k) => `${out.width % 4 === 0 ? '' : `if (4u * quad + ${k}u < ${out.width}u) `}{ activations[at + ${k}u] = values[${k}]; }`)}
}
`
  }))
}
