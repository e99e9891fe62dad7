/** Results for people, as a table, and for programs, as JSON. */

import { formatTable } from '../src/cli/format.ts'
import type { Commit, Machine } from './machine.ts'
import type { Result, Spread } from './results.ts'

/** What `--json` writes. */
export interface Report {
  readonly version: 1
  readonly date: string
  readonly commit: Commit | null
  readonly machine: Machine
  /** SHA-256 of the build that was measured, and of the one it was compared to. */
  readonly core: string
  readonly comparedTo: { readonly path: string; readonly sha256: string } | null
  /** A smoke run: the figures mean nothing. */
  readonly isQuick: boolean
  readonly results: readonly Result[]
  /** Conclusions by suite. */
  readonly conclusions: Readonly<Record<string, readonly string[]>>
}

const LIMIT_NAMES = { flop: 'f32', intOp: 'integer', byte: 'read', exp2: 'exp2' } as const

/** Right of the names. */
const RIGHT = [1, 2, 3, 4, 5, 6, 7]

/** The results of one suite. */
export function tableOf(results: readonly Result[]): string {
  const hasTwin = results.some(({ compared }) => compared !== null)
  const hasSecondRate = results.some(({ rates }) => rates.length > 1)
  const head = ['', 'median', 'p10..p90', 'rate', ...(hasSecondRate ? [''] : []), 'of limit', 'ratio', ...(hasTwin ? ['to other'] : [])]
  const rows = results.flatMap((result, i) => {
    const cells = [
      `  ${result.line}`, formatMs(result.ms.median), formatSpread(result.ms), formatPerSecond(result.rates[0]),
      ...(hasSecondRate ? [formatPerSecond(result.rates[1])] : []),
      result.ofLimit === null ? '' : `${(100 * result.ofLimit.median).toFixed(0)} % ${LIMIT_NAMES[result.ofLimit.limit]}`,
      result.against === null ? '' : `${result.against.median.toFixed(2)} of ${result.against.line}`,
      ...(hasTwin ? [formatRatio(result.compared)] : [])
    ]
    return result.group === results[i - 1]?.group ? [cells] : [[result.group], cells]
  })
  return formatTable([head, ...rows], RIGHT)
}

function formatRatio(ratio: Spread | null): string {
  return ratio === null ? '' : `${ratio.median.toFixed(3)} (${ratio.p10.toFixed(2)}..${ratio.p90.toFixed(2)})`
}

/** How far the lowest and the highest tenth are from the median. */
function formatSpread({ median, p10, p90 }: Spread): string {
  const percent = (value: number): string => `${value < median ? '-' : '+'}${Math.abs(100 * (value / median - 1)).toFixed(0)}`
  return `${percent(p10)}..${percent(p90)} %`
}

/** `1.23 ms`: three digits. */
export function formatMs(ms: number): string {
  if (ms >= 1000) return `${digits(ms / 1000)} s`
  if (ms >= 1) return `${digits(ms)} ms`
  return ms >= 0.001 ? `${digits(1000 * ms)} µs` : `${digits(1e6 * ms)} ns`
}

/** `1.23 GFLOP/s`. */
export function formatPerSecond(rate: { readonly unit: string; readonly perSecond: number } | undefined): string {
  if (rate === undefined) return ''
  const { unit, perSecond } = rate
  if (unit === 'tokens' || perSecond < 1e6) return `${digits(perSecond)} ${unit}/s`
  const [size, prefix] = perSecond >= 1e9 ? [1e9, 'G'] : [1e6, 'M']
  return `${digits(perSecond / size)} ${unit === 'elements' ? `${prefix} ${unit}` : prefix + unit}/s`
}

function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3)
}
