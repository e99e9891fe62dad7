/** Sums over neighbouring threads, of several values at once: each thread ends with a share of them. */

import type { DeviceFacts } from '../kernel.ts'
import { unroll } from './product.ts'

export interface LaneSums {
  readonly enables: readonly 'subgroups'[]
  /** Before main. */
  readonly declarations: string
  /** Statements, in uniform control flow: of an array y they make sum0, sum1, …, where sum_i of lane l is that of y[l · count / lanes + i], or of y[0]. */
  of(y: string): string
}

/**
 * Of `count` values in each of `lanes` threads; both are powers of two, count is 1 or no less than lanes. By halves: a thread gives one half of its values to its partner and adds
 * the partner's to the other half, so that it takes count − count / lanes shuffles. Without subgroups of `lanes` threads through workgroup memory.
 * Subgroups are taken as neighbouring threads, as all drivers have them where a workgroup has one dimension. `thread` and `lane` are in scope.
 */
export function laneSums({ count, lanes, threads, subgroup }: { count: number; lanes: number; threads: number; subgroup: DeviceFacts['subgroup'] }): LaneSums {
  const rest = Math.max(1, count / lanes)
  if (lanes === 1) return { enables: [], declarations: '', of: (y) => unroll(count, (i) => `let sum${i} = ${y}[${i}];`) }
  if (hasLanes(subgroup, lanes)) return { enables: ['subgroups'], declarations: '', of: (y) => (count === 1 ? whole(y, lanes) : shares(y, lanes, count)) }
  const first = (i: number): string => (count === 1 ? 'thread - lane' : `(lane * ${rest}u + ${i}u) * ${threads}u + thread - lane`)
  return {
    enables: [],
    declarations: `var<workgroup> partial: array<f32, ${count * threads}>;`,
    of: (y) => `
${unroll(count, (i) => `partial[${i * threads}u + thread] = ${y}[${i}];`)}
workgroupBarrier();
${unroll(rest, (i) => `var sum${i} = 0.0;
for (var l = 0u; l < ${lanes}u; l++) { sum${i} += partial[${first(i)} + l]; }`)}
workgroupBarrier();`
  }
}

function whole(y: string, lanes: number): string {
  const steps = Array.from({ length: Math.log2(lanes) }, (_, i) => `sum0 += subgroupShuffleXor(sum0, ${lanes >> (i + 1)}u);`)
  return [`var sum0 = ${y}[0];`, ...steps].join('\n')
}

function shares(y: string, lanes: number, count: number): string {
  const code: string[] = []
  let from = (i: number): string => `${y}[${i}]`
  for (let half = lanes / 2, left = count / 2; half >= 1; half /= 2, left /= 2) {
    const [values, name] = [from, half === 1 ? 'sum' : `half${half}_`]
    const isUpper = `isUpper${half}`
    code.push(`let ${isUpper} = (lane & ${half}u) != 0u;`, unroll(left, (i) => {
      const [low, high] = [values(i), values(i + left)]
      return `let ${name}${i} = select(${low}, ${high}, ${isUpper}) + subgroupShuffleXor(select(${high}, ${low}, ${isUpper}), ${half}u);`
    }))
    from = (i) => `${name}${i}`
  }
  return code.join('\n')
}

/** True where so many neighbouring threads are in one subgroup. */
export function hasLanes(subgroup: DeviceFacts['subgroup'], lanes: number): boolean {
  return subgroup !== null && subgroup.min >= lanes
}
