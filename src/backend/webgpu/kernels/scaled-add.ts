/** out = factor · x, or out + factor · x: one lane an element. Here to have something that runs: the rest of the kernels come beside it. */

import type { OpKernels } from '../kernel.ts'

export const scaledAdd: OpKernels['scaledAdd'] = ({ x, factor, accumulate, out }, { view }) => {
  const [from, to] = [view(x), view(out)]
  const code = `
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  let row = id.y;
  if (column >= ${out.width}u) { return; }
  let i = ${to.offset}u + row * ${to.stride}u + column;
  let value = ${factor.toExponential()} * activations[${from.offset}u + row * ${from.stride}u + column];
  activations[i] = ${accumulate ? 'activations[i] + value' : 'value'};
}`
  return [{
    label: 'scaledAdd',
    code,
    bindings: [],
    workgroups: ({ nTokens, nLogitRows }) => [Math.ceil(out.width / 64), out.buffer.rows === 'token' ? nTokens : nLogitRows, 1]
  }]
}
