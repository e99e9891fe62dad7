/** From samples to figures: medians, spreads, ratios. */

import { type Spread, spreadOf } from '../results.ts'

export interface Samples extends Spread {
  readonly samples: readonly number[]
}

export interface Pair {
  readonly ours: Samples
  readonly theirs: Samples
  /** Ours over theirs: of the medians, and how it lies in single rounds. */
  readonly ratio: Ratio
}

export interface Ratio extends Spread {
  /** Rounds that both were in. */
  readonly nRounds: number
}

export function samplesOf(values: readonly number[]): Samples {
  const { median, p10, p90 } = spreadOf(values)
  return { median: rounded(median), p10: rounded(p10), p90: rounded(p90), samples: values.map(rounded) }
}

/** Samples of one round stand at the same index; one side may have fewer. */
export function pairOf(ours: readonly number[], theirs: readonly number[]): Pair {
  const nPairs = Math.min(ours.length, theirs.length)
  const { p10, p90 } = spreadOf(Array.from({ length: nPairs }, (_, i) => ours[i] / theirs[i]))
  const median = spreadOf(ours).median / spreadOf(theirs).median
  return { ours: samplesOf(ours), theirs: samplesOf(theirs), ratio: { median: rounded(median), p10: rounded(p10), p90: rounded(p90), nRounds: nPairs } }
}

/** Four digits: the rest is noise. */
function rounded(value: number): number {
  return Number(value.toPrecision(4))
}
