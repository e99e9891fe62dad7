/**
 * Which tokens of a vocabulary stay in the running, by their scores alone: the k-th largest, the edge of the nucleus, what is above a border.
 *
 * A few passes over the vocabulary, each a handful of instructions per token, and nothing of its size is allocated or sorted.
 * Float64 from + − × ÷ and tables of `elementary.ts`: the same tokens in every runtime.
 */
import { exp } from './elementary.ts'

/** What is kept: scores above `lowest`, and those equal to it but for the first so many, by ascending id. */
interface Border {
  readonly lowest: number
  readonly nDroppedTies: number
}

/** The largest score; NaN or Infinity where one is NaN or Infinity. */
export function highestOf(scores: Float64Array): number {
  // Four maxima at once: one alone waits for itself. Math.max is exact, and lets no NaN pass unseen.
  let [a, b, c, d] = [-Infinity, -Infinity, -Infinity, -Infinity]
  const { length } = scores
  let i = 0
  for (; i + 3 < length; i += 4) {
    a = Math.max(a, scores[i])
    b = Math.max(b, scores[i + 1])
    c = Math.max(c, scores[i + 2])
    d = Math.max(d, scores[i + 3])
  }
  for (; i < length; i++) a = Math.max(a, scores[i])
  return Math.max(a, b, c, d)
}

/** 2^(−j / FRACTIONS) and 2^−k. The second ends at the last normal number: a token is no less likely than that, or of weight 0. */
const FRACTION_BITS = 10
const FRACTIONS = 2 ** FRACTION_BITS
const POWERS = 1023
const fractions = new Float64Array(FRACTIONS)
const powers = new Float64Array(POWERS)

/** Of no part of importing this: with the first scale there is. */
function fillTables(): void {
  if (powers[0] === 1) return
  for (let j = 0; j < FRACTIONS; j++) fractions[j] = exp((-j * Math.LN2) / FRACTIONS)
  powers[0] = 1
  for (let k = 1; k < POWERS; k++) powers[k] = powers[k - 1] / 2
}

/** 2^(−f / FRACTIONS) for 0 ≤ f < 1 by its series; what follows is below 1e-14. */
const S1 = -Math.LN2 / FRACTIONS
const S2 = (S1 * S1) / 2
const S3 = (S2 * S1) / 3

/** Distances from the best token are counted in such steps, FRACTIONS for each halving of the weight. */
const END = POWERS * FRACTIONS

/**
 * exp(−y ln 2 / FRACTIONS) for y ≥ 0: 1 at 0, 0 from END on. The relative error is below 3e-14, most of it the exponent's own: a table of
 * each part of the exponent takes a third of the time that `exp` takes.
 */
function weightAt(y: number): number {
  if (!(y < END)) return 0
  const i = y | 0
  const f = y - i
  return fractions[i & (FRACTIONS - 1)] * powers[i >> FRACTION_BITS] * (1 + f * (S1 + f * (S2 + f * S3)))
}

/** Steps for each unit of a score at a temperature. */
export function stepsAt(temperature: number): number {
  fillTables()
  return Math.min(FRACTIONS / Math.LN2 / temperature, Number.MAX_VALUE)
}

/** The best token's score, and how far below it a token is how much less likely. */
export interface Scale {
  readonly highest: number
  /** stepsAt(temperature) */
  readonly steps: number
}

/** exp((score − highest) / temperature) of the first `count` scores. */
export function weigh(scores: Float64Array, count: number, { highest, steps }: Scale, weights: Float64Array): void {
  for (let i = 0; i < count; i++) weights[i] = weightAt((highest - scores[i]) * steps)
}

/** Σ exp((score − highest) / temperature): of even ids, of odd ids, and both. */
export function sumOfWeights(scores: Float64Array, count: number, { highest, steps }: Scale): number {
  let even = 0
  let odd = 0
  let i = 0
  for (; i + 1 < count; i += 2) {
    even += weightAt((highest - scores[i]) * steps)
    odd += weightAt((highest - scores[i + 1]) * steps)
  }
  if (i < count) even += weightAt((highest - scores[i]) * steps)
  return even + odd
}

/** The k-th largest value, by a heap of the k largest so far, the smallest at its root. */
export function createKthLargest(k: number): (values: Float64Array) => number {
  const heap = new Float64Array(k)

  function siftDown(from: number, value: number): void {
    let at = from
    for (let child = 2 * at + 1; child < k; child = 2 * at + 1) {
      if (child + 1 < k && heap[child + 1] < heap[child]) child++
      if (heap[child] >= value) break
      heap[at] = heap[child]
      at = child
    }
    heap[at] = value
  }

  return values => {
    for (let i = 0; i < k; i++) heap[i] = values[i]
    for (let i = (k >> 1) - 1; i >= 0; i--) siftDown(i, heap[i])
    let least = heap[0]
    const { length } = values
    for (let i = k; i < length; i++) {
      if (values[i] <= least) continue
      siftDown(0, values[i])
      least = heap[0]
    }
    return least
  }
}

/** Tokens by ascending id, with their scores. */
export interface Candidates {
  readonly ids: Int32Array
  readonly scores: Float64Array
  /** For the nucleus: room for scores to be sorted in, and the mass of each bucket. */
  readonly sorting: Float64Array
  readonly masses: Float64Array
  count: number
}

export function createCandidates(vocabSize: number): Candidates {
  return {
    ids: new Int32Array(vocabSize), scores: new Float64Array(vocabSize), sorting: new Float64Array(vocabSize), masses: new Float64Array(N_BUCKETS), count: 0
  }
}

/** Fills the candidates with the tokens of a vocabulary whose score is at least `lowest`. */
export function gather(candidates: Candidates, vocabulary: Float64Array, lowest: number): void {
  const { ids, scores } = candidates
  const { length } = vocabulary
  let count = 0
  for (let i = 0; i < length; i += 4) {
    // Few are: four at a time are passed over.
    if (i + 3 < length && vocabulary[i] < lowest && vocabulary[i + 1] < lowest && vocabulary[i + 2] < lowest && vocabulary[i + 3] < lowest) continue
    for (let j = i; j < i + 4 && j < length; j++) {
      if (vocabulary[j] < lowest) continue
      ids[count] = j
      scores[count++] = vocabulary[j]
    }
  }
  candidates.count = count
}

/** Drops the candidates that the border leaves out. */
function narrow(candidates: Candidates, { lowest, nDroppedTies }: Border): void {
  const { ids, scores } = candidates
  let kept = 0
  let nTies = 0
  for (let i = 0; i < candidates.count; i++) {
    const score = scores[i]
    if (score < lowest || (score === lowest && nTies++ < nDroppedTies)) continue
    ids[kept] = ids[i]
    scores[kept++] = score
  }
  candidates.count = kept
}

/** The buckets of the nucleus's search: 32 for each halving of the weight, the last one for all below 2^-64. */
const BUCKET_BITS = FRACTION_BITS - 5
const N_BUCKETS = 64 * 32 + 1

function bucketAt(y: number): number {
  return y < (N_BUCKETS - 1) << BUCKET_BITS ? y >> BUCKET_BITS : N_BUCKETS - 1
}

/**
 * The nucleus: the tokens before which, from the most likely down, less than topP of the mass has gone by; at least one.
 * Of equally likely ones at the border the higher ids stay, as with the reference's ascending stable sort.
 *
 * Masses are summed by buckets of neighbouring weights, and only the scores of the bucket that holds the border are sorted. Of a vocabulary
 * only the likeliest tokens go that way: about as far down as the last time, farther where that does not reach.
 */
export function createNucleus(topP: number) {
  /** Buckets that the likeliest tokens are taken from. It changes the time alone. */
  let reach = FIRST_REACH

  /** Leaves the nucleus of the candidates, when `total` is the mass of all; false if their first `nBuckets` do not hold it. */
  function narrowTo(candidates: Candidates, { highest, steps }: Scale, { total, nBuckets }: { total: number; nBuckets: number }): boolean {
    const { scores, sorting, masses, count } = candidates
    masses.fill(0, 0, nBuckets)
    for (let i = 0; i < count; i++) {
      const y = (highest - scores[i]) * steps
      const bucket = bucketAt(y)
      if (bucket < nBuckets) masses[bucket] += weightAt(y)
    }
    const limit = topP * total
    let mass = 0
    let bucket = 0
    while (bucket < nBuckets && mass + masses[bucket] < limit) mass += masses[bucket++]
    if (bucket === nBuckets) return false

    let n = 0
    for (let i = 0; i < count; i++) if (bucketAt((highest - scores[i]) * steps) === bucket) sorting[n++] = scores[i]
    const sorted = sorting.subarray(0, n).sort()
    let first = n - 1
    mass += weightAt((highest - sorted[first]) * steps)
    while (first > 0 && mass < limit) mass += weightAt((highest - sorted[--first]) * steps)
    const lowest = sorted[first]
    let nDroppedTies = 0
    while (nDroppedTies < first && sorted[first - 1 - nDroppedTies] === lowest) nDroppedTies++
    narrow(candidates, { lowest, nDroppedTies })
    reach = Math.min(N_BUCKETS, bucket + FIRST_REACH)
    return true
  }

  return {
    /** Fills the candidates with the nucleus of a vocabulary. */
    gather(candidates: Candidates, vocabulary: Float64Array, scale: Scale): void {
      const total = sumOfWeights(vocabulary, vocabulary.length, scale)
      for (let nBuckets = reach; nBuckets < N_BUCKETS; nBuckets *= 2) {
        // A little below the last bucket's last score, whatever was rounded.
        gather(candidates, vocabulary, scale.highest - ((nBuckets << BUCKET_BITS) / scale.steps) * (1 + 1e-9))
        if (narrowTo(candidates, scale, { total, nBuckets })) return
      }
      gather(candidates, vocabulary, -Infinity)
      narrowTo(candidates, scale, { total, nBuckets: N_BUCKETS })
    },
    /** Leaves the nucleus of what the candidates are. */
    narrow(candidates: Candidates, scale: Scale): void {
      narrowTo(candidates, scale, { total: sumOfWeights(candidates.scores, candidates.count, scale), nBuckets: N_BUCKETS })
    }
  }
}

/** Two halvings of the weight. */
const FIRST_REACH = 64
