/**
 * Causal depthwise convolution and silu, with the last inputs as its state. A thread has a channel for a block of consecutive tokens, whose inputs go through
 * registers. Only the first block of a segment reads the state, and it writes it, too, from inputs that nobody changes.
 */

import type { OpKernels } from '../kernel.ts'
import { SILU } from './activation.ts'
import { createBinder } from './binder.ts'
import { elementOf } from './elements.ts'
import { unroll } from './product.ts'

const THREADS = 64
/** Inputs before a block are read again; the state's must not reach into the second one. */
const BLOCK_ROWS = 16

export const conv1d: OpKernels['conv1d'] = ({ x, weight, bias, activation, state, out }, context) => {
  const nPast = weight.shape[2] - 1
  const blockRows = Math.max(BLOCK_ROWS, nPast)
  const [input, output] = [elementOf(context, x), elementOf(context, out)]
  const binder = createBinder()
  if (activation === 'silu') binder.declare(SILU)
  const tapAt = binder.values('weight', { kind: 'parameters', parameters: [weight] })
  const biasAt = bias && binder.values('bias', { kind: 'parameters', parameters: [bias] })
  const pastAt = nPast > 0 ? binder.values('state', { kind: 'state', state }) : () => ''
  const value = `x${nPast} * w${nPast}${Array.from({ length: nPast }, (_, j) => ` + x${j} * w${j}`).join('')}${biasAt ? ` + ${biasAt('d')}` : ''}`
  const code = `${binder.declarations()}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let segment = segmentAt(group.z);
  let d = group.x * ${THREADS}u + thread;
  let start = group.y * ${blockRows}u;
  if (d >= ${x.width}u || start >= segment.nRows) { return; }
  let end = min(start + ${blockRows}u, segment.nRows);
  let past = (segment.stateFrom * ${x.width}u + d) * ${nPast}u;
  let next = (segment.stateTo * ${x.width}u + d) * ${nPast}u;
  ${unroll(nPast + 1, (j) => `let w${j} = ${tapAt(`d * ${nPast + 1}u + ${j}u`)};
  var x${j} = 0.0;`)}
  if (start == 0u) {
    ${unroll(nPast, (j) => `x${j} = ${pastAt(`past + ${j}u`)};`)}
    ${unroll(nPast, (j) => `if (segment.nRows + ${j}u < ${nPast}u) { ${pastAt(`next + ${j}u`)} = ${pastAt(`past + ${j}u + segment.nRows`)}; }
    else { ${pastAt(`next + ${j}u`)} = ${input(`segment.firstRow + segment.nRows + ${j}u - ${nPast}u`, 'd')}; }`)}
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
    bindings: binder.bindings,
    workgroups: ({ nSegments, maxSegmentRows }) => [Math.ceil(x.width / THREADS), Math.ceil(maxSegmentRows / blockRows), nSegments]
  }]
}
