/**
 * The topK largest of a row, ties to the lowest index: an expert's rank is how many come before it, which every thread counts for its own experts,
 * and so is the place of a chosen one. A workgroup for each row.
 */

import type { OpKernels } from '../kernel.ts'
import { elementOf, rowCount, rowsOf } from './elements.ts'

const LANES = 64

export const route: OpKernels['route'] = ({ x, topK, softmaxOver, out }, context) => {
  const nExperts = x.width
  const target = elementOf(context, out)
  return [{
    label: 'route',
    bindings: [],
    code: `
var<workgroup> logits: array<f32, ${nExperts}>;
var<workgroup> isChosen: array<u32, ${nExperts}>;
var<workgroup> largest: f32;

/** NaN, of which no order is known, comes last: there are always topK to choose. By its bits, since comparisons with it may be taken for granted. */
fn orLeast(logit: f32) -> f32 { return select(logit, -3e38, (bitcast<u32>(logit) & 0x7fffffffu) > 0x7f800000u); }

@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = group.y * groups.x + group.x;
  if (row >= ${rowCount(x)}) { return; }
  for (var i = lane; i < ${nExperts}u; i += ${LANES}u) { logits[i] = orLeast(${elementOf(context, x)('row', 'i')}); }
  workgroupBarrier();
  for (var i = lane; i < ${nExperts}u; i += ${LANES}u) {
    let logit = logits[i];
    var rank = 0u;
    for (var j = 0u; j < ${nExperts}u; j++) { rank += select(0u, 1u, logits[j] > logit || (logits[j] == logit && j < i)); }
    isChosen[i] = select(0u, 1u, rank < ${topK}u);
    if (rank == 0u) { largest = logit; }
  }
  workgroupBarrier();
  for (var i = lane; i < ${nExperts}u; i += ${LANES}u) {
    if (isChosen[i] == 0u) { continue; }
    var place = 0u;
    var sum = 0.0;
    for (var j = 0u; j < ${nExperts}u; j++) {
      place += select(0u, isChosen[j], j < i);
      ${softmaxOver === 'chosen' ? 'if (isChosen[j] == 1u) { sum += exp(logits[j] - largest); }' : 'sum += exp(logits[j] - largest);'}
    }
    ${target('row', 'place')} = f32(i);
    ${target('row', `${topK}u + place`)} = exp(logits[i] - largest) / sum;
  }
}
`,
    workgroups(counts) {
      const nRows = rowsOf(x, counts)
      return nRows === 0 ? null : [Math.min(nRows, context.device.maxWorkgroups), Math.ceil(nRows / context.device.maxWorkgroups), 1]
    }
  }]
}
