/**
 * out = x / sqrt(mean(x²) + eps) · weight, of x · silu(gate) with a gate: a workgroup for each row and group of columns, which reads them once and keeps
 * them in registers. Lanes take neighbouring columns; a row of 2048 is four loads of each of 512 lanes, all under way at once.
 */

import type { OpKernels } from '../kernel.ts'
import { SILU } from './activation.ts'
import { elementOf, float, rowCount, rowsOf } from './elements.ts'
import { workgroupSum } from './workgroup-sum.ts'

/** Of a lane, up to the largest workgroup. */
const COLUMNS_OF_LANE = 4
const MOST_LANES = 512
const LEAST_LANES = 32

export const rmsNorm: OpKernels['rmsNorm'] = ({ x, gate, weight, eps, groupWidth, out }, context) => {
  const { maxWorkgroupInvocations, maxWorkgroups, subgroup } = context.device
  const wanted = 2 ** Math.ceil(Math.log2(groupWidth / COLUMNS_OF_LANE))
  const nLanes = Math.max(LEAST_LANES, Math.min(wanted, MOST_LANES, 2 ** Math.floor(Math.log2(maxWorkgroupInvocations))))
  const sum = workgroupSum(nLanes, subgroup)
  const nGroups = x.width / groupWidth
  const columns = Array.from({ length: Math.ceil(groupWidth / nLanes) }, (_, i) => i)
  const at = (view: typeof x, i: number): string => elementOf(context, view)('row', `column + ${i * nLanes}u`)
  /** The last columns are not there for all lanes. */
  const whereThere = (i: number, code: string): string => ((i + 1) * nLanes <= groupWidth ? code : `if (lane < ${groupWidth - i * nLanes}u) { ${code} }`)
  return [{
    label: gate === null ? 'rmsNorm' : 'rmsNorm, gated',
    enables: sum.enables,
    bindings: weight === null ? [] : [{ kind: 'parameters', parameters: [weight] }],
    code: `
${weight === null ? '' : '@group(0) @binding(2) var<storage, read> weight: array<f32>;'}
${gate === null ? '' : SILU}
${sum.code}
@compute @workgroup_size(${nLanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32${sum.parameters}) {
  let row = group.z * groups.y + group.y;
  if (row >= ${rowCount(x)}) { return; }
  let column = group.x * ${groupWidth}u + lane;
  ${columns.map((i) => `var x${i} = 0.0;\n  ${whereThere(i, `x${i} = ${at(x, i)}${gate === null ? '' : ` * silu(${at(gate, i)})`};`)}`).join('\n  ')}
  let sum = ${sum.of(columns.map((i) => `x${i} * x${i}`).join(' + '))};
  let scale = 1.0 / sqrt(sum / ${float(groupWidth)} + ${float(eps)});
  ${columns.map((i) => whereThere(i, `${at(out, i)} = x${i} * scale${weight === null ? '' : ` * weight[column + ${i * nLanes}u]`};`)).join('\n  ')}
}
`,
    workgroups(counts) {
      const nRows = rowsOf(x, counts)
      return nRows === 0 ? null : [nGroups, Math.min(nRows, maxWorkgroups), Math.ceil(nRows / maxWorkgroups)]
    }
  }]
}
