/**
 * Causal depthwise convolution and silu, with the last inputs as its state. A thread has a channel for a block of consecutive tokens, whose inputs go through
 * registers. Only the first block of a segment reads the state, and it writes it, too, from inputs that nobody changes.
 */

import type { Binding, OpKernels } from '../kernel.ts'
import { SILU } from './activation.ts'
import { elementOf } from './elements.ts'
import { unroll } from './product.ts'

const THREADS = 64
/** Inputs before a block are read again; the state's must not reach into the second one. */
const BLOCK_ROWS = 16

export const conv1d: OpKernels['conv1d'] = ({ x, weight, bias, activation, state, out }, context) => {
  const nPast = weight.shape[2] - 1
  const blockRows = Math.max(BLOCK_ROWS, nPast)
  const [input, output] = [elementOf(context, x), elementOf(context, out)]
  const bindings: Binding[] = []
  const declare = (name: string, binding: Binding): string => {
    const access = binding.kind === 'state' ? 'read_write' : 'read'
    return `@group(0) @binding(${1 + bindings.push(binding)}) var<storage, ${access}> ${name}: array<f32>;`
  }
  const declarations = [
    declare('weight', { kind: 'parameters', parameters: [weight] }),
    bias && declare('bias', { kind: 'parameters', parameters: [bias] }),
    nPast > 0 && declare('state', { kind: 'state', state })
  ].filter(Boolean)
  const value = `x${nPast} * w${nPast}${Array.from({ length: nPast }, (_, j) => ` + x${j} * w${j}`).join('')}${bias ? ' + bias[d]' : ''}`
  const code = `${SILU}
${declarations.join('\n')}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let segment = segmentAt(group.z);
  let d = group.x * ${THREADS}u + thread;
  let start = group.y * ${blockRows}u;
  if (d >= ${x.width}u || start >= segment.nRows) { return; }
  let end = min(start + ${blockRows}u, segment.nRows);
  let past = (segment.slot * ${x.width}u + d) * ${nPast}u;
  ${unroll(nPast + 1, (j) => `let w${j} = weight[d * ${nPast + 1}u + ${j}u];
  var x${j} = 0.0;`)}
  if (start == 0u) {
    ${unroll(nPast, (j) => `x${j} = state[past + ${j}u];`)}
    ${unroll(nPast, (j) => `if (segment.nRows + ${j}u < ${nPast}u) { state[past + ${j}u] = state[past + ${j}u + segment.nRows]; }
    else { state[past + ${j}u] = ${input(`segment.firstRow + segment.nRows + ${j}u - ${nPast}u`, 'd')}; }`)}
  } else {
    ${unroll(nPast, (j) => `x${j} = ${input(`segment.firstRow + start + ${j}u - ${nPast}u`, 'd')};`)}
  }
  for (var t = start; t < end; t++) {
    let row = segment.firstRow + t;
    x${nPast} = ${input('row', 'd')};
    let value = ${value};
    ${output('row', 'd')} = ${activation === 'silu' ? 'silu(value)' : 'value'};
    ${unroll(nPast, (j) => `x${j} = x${j + 1};`)}
  }
}`
  return [{
    label: `conv1d of ${nPast + 1}`,
    code,
    bindings,
    workgroups: ({ nSegments, maxSegmentRows }) => [Math.ceil(x.width / THREADS), Math.ceil(maxSegmentRows / blockRows), nSegments]
  }]
}
