/** Sums over the threads of a workgroup in WGSL: by subgroups where the device has them, else by halves in workgroup memory. */

import type { DeviceFacts } from '../kernel.ts'

export interface WorkgroupSum {
  readonly enables: readonly 'subgroups'[]
  /** Further parameters of `main`. */
  readonly parameters: string
  readonly code: string
  /** Of workgroup memory. */
  readonly bytes: number
  /** An expression with a barrier in it: the sum of what all threads give, for each of them. Once in a kernel for each i below `count`, or again after another barrier. */
  of(value: string, i?: number): string
  /** The same in two parts, with a barrier of the kernel's own between them: statements, and an expression. Null without subgroups. */
  readonly collect: ((value: string, i: number) => string) | null
  collected(i: number): string
}

/**
 * For a workgroup of one dimension of `nLanes`, a power of two; `lane` is an expression for its index. Subgroups are taken as neighbouring lanes, as all
 * drivers have them where a workgroup has one dimension.
 */
export function workgroupSum(nLanes: number, subgroup: DeviceFacts['subgroup'], { count = 1, lane = 'lane' }: { count?: number; lane?: string } = {}): WorkgroupSum {
  const nPartials = subgroup === null ? nLanes : Math.ceil(nLanes / subgroup.min)
  const first = (i: number): string => `${i * nPartials}u`
  const shared = { bytes: 4 * count * nPartials }
  const declaration = `var<workgroup> partials: array<f32, ${count * nPartials}>;`
  if (subgroup === null) {
    return {
      ...shared, enables: [], parameters: '',
      code: `
${declaration}
fn sumOfWorkgroup(value: f32, first: u32, lane: u32) -> f32 {
  partials[first + lane] = value;
  workgroupBarrier();
  for (var half = ${nLanes / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { partials[first + lane] += partials[first + lane + half]; }
    workgroupBarrier();
  }
  return partials[first];
}
`,
      of: (value, i = 0) => `sumOfWorkgroup(${value}, ${first(i)}, ${lane})`,
      collect: null,
      collected: () => ''
    }
  }
  const size = subgroup.min === subgroup.max ? `${subgroup.min}u` : 'subgroupSize'
  return {
    ...shared,
    enables: ['subgroups'],
    parameters: ', @builtin(subgroup_size) subgroupSize: u32, @builtin(subgroup_invocation_id) subgroupLane: u32',
    code: `
${declaration}
fn sumOfSubgroups(first: u32, subgroupSize: u32) -> f32 {
  var sum = 0.0;
  for (var i = 0u; i < ${nLanes}u; i += ${size}) { sum += partials[first + i / ${size}]; }
  return sum;
}
fn sumOfWorkgroup(value: f32, first: u32, lane: u32, subgroupSize: u32, subgroupLane: u32) -> f32 {
  let part = subgroupAdd(value);
  if (subgroupLane == 0u) { partials[first + lane / ${size}] = part; }
  workgroupBarrier();
  return sumOfSubgroups(first, subgroupSize);
}
`,
    of: (value, i = 0) => `sumOfWorkgroup(${value}, ${first(i)}, ${lane}, subgroupSize, subgroupLane)`,
    collect: (value, i) => `{
      let part = subgroupAdd(${value});
      if (subgroupLane == 0u) { partials[${first(i)} + ${lane} / ${size}] = part; }
    }`,
    collected: (i) => `sumOfSubgroups(${first(i)}, subgroupSize)`
  }
}
