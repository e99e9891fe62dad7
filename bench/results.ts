/** From samples to figures: medians and spreads, rates, fractions of the limits, ratios taken round by round. */

import { type Limits } from '../src/limits.ts'
import { leastSeconds, limitsOfThreads, type Work } from '../src/profile.ts'
import type { Amount, Line } from './suite.ts'

/** Of samples: the median, and where the lowest and the highest tenth of them end. */
export interface Spread {
  readonly median: number
  readonly p10: number
  readonly p90: number
}

export interface Result {
  readonly suite: string
  readonly group: string
  readonly line: string
  /** Milliseconds of one run. */
  readonly ms: Spread & { readonly min: number; readonly samples: readonly number[] }
  /** At the median. */
  readonly rates: readonly { readonly unit: string; readonly perSecond: number }[]
  /** The least time by the limits measured in the same rounds, over the time taken. */
  readonly ofLimit: (Spread & { readonly limit: keyof Limits }) | null
  /** This line's rate over another's. */
  readonly against: (Spread & { readonly line: string }) | null
  /** This build's speed over the other's (--compare): above 1 this one is faster. */
  readonly compared: Spread | null
}

/** A line with the seconds of its runs; those of one round stand at the same index. */
export interface Measured {
  readonly line: Line
  readonly seconds: readonly number[]
}

export interface Place {
  readonly suite: string
  readonly group: string
}

export interface Beside {
  /** The limits in each round; empty where they were not measured. */
  readonly limits: readonly Limits[]
  /** The other lines of the group. */
  readonly others: readonly Measured[]
  /** The same line on the other build. */
  readonly twin: Measured | undefined
}

export function resultOf({ line, seconds }: Measured, { suite, group }: Place, { limits, others, twin }: Beside): Result {
  const milliseconds = seconds.map((value) => 1000 * value)
  const { works, threads = 1 } = line
  const reference = others.find((other) => other.line.name === line.against)
  const ms = spreadOf(milliseconds)
  return {
    suite, group,
    line: line.name,
    ms: { ...ms, min: Math.min(...milliseconds), samples: milliseconds },
    rates: line.amounts.map(({ amount, unit }) => ({ unit, perSecond: (1000 * amount) / ms.median })),
    ofLimit: works === undefined || limits.length === 0 ? null : {
      limit: nearestLimit(works, limits[0]),
      ...spreadOf(seconds.map((value, round) => secondsByLimits(works, limitsOfThreads(limits[round], threads)) / value))
    },
    against: reference === undefined ? null : { line: reference.line.name, ...spreadOf(seconds.map((value, round) => perSecond(line.amounts, value) / perSecond(reference.line.amounts, reference.seconds[round]))) },
    compared: twin === undefined ? null : spreadOf(seconds.map((value, round) => twin.seconds[round] / value))
  }
}

function secondsByLimits(works: readonly Work[], limits: Limits): number {
  return works.reduce((sum, work) => sum + leastSeconds(work, limits), 0)
}

/** Of the limits that hold the parts of a run the one that takes the most time. */
function nearestLimit(works: readonly Work[], limits: Limits): keyof Limits {
  const names = ['flop', 'intOp', 'byte', 'exp2'] as const
  const secondsOf = (name: keyof Limits): number =>
    works.reduce((sum, work) => {
      const own = (work[name] ?? 0) / limits[name]
      return sum + (own === leastSeconds(work, limits) ? own : 0)
    }, 0)
  return names.reduce((nearest, name) => (secondsOf(name) > secondsOf(nearest) ? name : nearest))
}

function perSecond(amounts: readonly Amount[], seconds: number): number {
  return amounts[0].amount / seconds
}

export function spreadOf(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b)
  return { median: quantile(sorted, 0.5), p10: quantile(sorted, 0.1), p90: quantile(sorted, 0.9) }
}

/** Linear between neighbours. */
function quantile(sorted: readonly number[], part: number): number {
  const place = (sorted.length - 1) * part
  const below = Math.floor(place)
  const above = Math.min(below + 1, sorted.length - 1)
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below)
}
