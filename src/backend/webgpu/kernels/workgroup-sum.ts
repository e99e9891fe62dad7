/** The sum over the threads of a workgroup in WGSL: by subgroups where the device has them, else by halves in workgroup memory. */

import type { DeviceFacts } from '../kernel.ts'

export interface WorkgroupSum {
  readonly enables: readonly 'subgroups'[]
  /** Further parameters of `main`. */
  readonly parameters: string
  readonly code: string
  /** An expression with a barrier in it: the sum of what all threads give, for each of them. Once in a kernel. */
  of(value: string): string
}

/**
 * For a workgroup of one dimension of `nLanes`, a power of two; `main` has its index as `lane`. Subgroups are taken as neighbouring lanes, as all
 * drivers have them where a workgroup has one dimension.
 */
export function workgroupSum(nLanes: number, subgroup: DeviceFacts['subgroup']): WorkgroupSum {
  if (subgroup === null) {
    return {
      enables: [], parameters: '',
      code: `
var<workgroup> partials: array<f32, ${nLanes}>;
fn sumOfWorkgroup(value: f32, lane: u32) -> f32 {
  partials[lane] = value;
  workgroupBarrier();
  for (var half = ${nLanes / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { partials[lane] += partials[lane + half]; }
    workgroupBarrier();
  }
  return partials[0];
}
`,
      of: (value) => `sumOfWorkgroup(${value}, lane)`
    }
  }
  return {
    enables: ['subgroups'],
    parameters: ', @builtin(subgroup_size) subgroupSize: u32, @builtin(subgroup_invocation_id) subgroupLane: u32',
    code: `
var<workgroup> partials: array<f32, ${Math.ceil(nLanes / subgroup.min)}>;
fn sumOfWorkgroup(value: f32, lane: u32, subgroupSize: u32, subgroupLane: u32) -> f32 {
  let part = subgroupAdd(value);
  if (subgroupLane == 0u) { partials[lane / subgroupSize] = part; }
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < ${nLanes}u; i += subgroupSize) { sum += partials[i / subgroupSize]; }
  return sum;
}
`,
    of: (value) => `sumOfWorkgroup(${value}, lane, subgroupSize, subgroupLane)`
  }
}
