/** Sums over the threads of a team, by the operations of subgroups where the device has them, through workgroup memory where not. */

import type { DeviceFacts } from '../kernel.ts'
import { unroll } from './product.ts'

export interface Sums {
  /** Each thread's own are the variables sum0, sum1, …: no more than threads of a team. */
  readonly count: number
  /** A power of two; neighbouring threads are a team. */
  readonly teamThreads: number
  /** Of the workgroup. */
  readonly threads: number
}

/** Lanes of the subgroups that a team is made of, or that a few teams share; null where neither is so. */
function lanesOf({ teamThreads }: Sums, { subgroup }: DeviceFacts): number | null {
  if (subgroup === null || subgroup.min !== subgroup.max) return null
  const lanes = subgroup.min
  return teamThreads % lanes === 0 || lanes % teamThreads === 0 ? lanes : null
}

/** Of a kernel that has such sums. */
export function sumsEnables(sums: Sums, device: DeviceFacts): readonly 'subgroups'[] {
  return lanesOf(sums, device) === null ? [] : ['subgroups']
}

/** Partial sums that wait in workgroup memory for each of a thread's. */
function nPartial(sums: Sums, device: DeviceFacts): number {
  const lanes = lanesOf(sums, device)
  if (lanes === null) return sums.threads
  return lanes >= sums.teamThreads ? 0 : sums.threads / lanes
}

/** Workgroup memory. */
export function sumsBytes(sums: Sums, device: DeviceFacts): number {
  return 4 * sums.count * nPartial(sums, device)
}

/** Before main. */
export function sumsCode(sums: Sums, device: DeviceFacts): string {
  const n = nPartial(sums, device)
  return n === 0 ? '' : `var<workgroup> partial: array<f32, ${sums.count * n}>;`
}

/** A parameter of main. */
export function sumsParameter(sums: Sums, device: DeviceFacts): string {
  return lanesOf(sums, device) === null ? '' : ', @builtin(subgroup_invocation_id) subgroupLane: u32'
}

/** Statements: afterwards `total` of the team's thread i, `lane`, is the team's sum of all sum_i. */
export function sumTeams(sums: Sums, device: DeviceFacts): string {
  const { count, teamThreads } = sums
  const lanes = lanesOf(sums, device)
  const n = nPartial(sums, device)
  if (lanes === null) {
    const steps = Array.from({ length: Math.log2(teamThreads) }, (_, i) => teamThreads >> (i + 1))
    return `
  ${unroll(count, (i) => `partial[${i * n}u + thread] = sum${i};`)}
  workgroupBarrier();
  ${steps.map((step) => `if (lane < ${step}u) {
    ${unroll(count, (i) => `partial[${i * n}u + thread] += partial[${i * n + step}u + thread];`)}
  }
  workgroupBarrier();`).join('\n')}
  let total = partial[min(lane, ${count - 1}u) * ${n}u + thread - lane];`
  }
  const totals = unroll(count, (i) => `sum${i} = subgroupAdd(sum${i});`)
  if (lanes >= teamThreads) {
    const steps = Array.from({ length: Math.log2(teamThreads) }, (_, i) => teamThreads >> (i + 1))
    const shuffles = unroll(count, (i) => steps.map((step) => `sum${i} += subgroupShuffleXor(sum${i}, ${step}u);`).join(' '))
    return `
  ${lanes === teamThreads ? totals : shuffles}
  var total = sum0;
  ${unroll(count - 1, (i) => `total = select(total, sum${i + 1}, lane == ${i + 1}u);`)}`
  }
  return `
  ${totals}
  if (subgroupLane == 0u) {
    ${unroll(count, (i) => `partial[${i * n}u + thread / ${lanes}u] = sum${i};`)}
  }
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < ${teamThreads / lanes}u; i++) { total += partial[min(lane, ${count - 1}u) * ${n}u + (thread - lane) / ${lanes}u + i]; }`
}
