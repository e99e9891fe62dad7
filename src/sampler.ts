/**
 * From logits to the next token: the logits processors of HuggingFace transformers, in its order
 * (repetition penalty, temperature, top-k, top-p, min-p), and one draw.
 *
 * Float64 throughout, on `elementary.ts` and `random.ts`: a seed gives the same tokens in every runtime. Linear in the vocabulary,
 * times log k at worst for top-k: nothing sorts the vocabulary, and nothing of its size is allocated per token.
 */
import { exp, log } from './elementary.ts'
import { describe, messageOf } from './errors.ts'
import { createRandom, randomSeed, validateSeed, type RandomState } from './random.ts'

/** How the next token is chosen. What is missing, or undefined, has its default. */
export interface SamplerOptions {
  /** Divides the logits; 0 takes the most likely token. Default 0.8. */
  readonly temperature?: number | undefined
  /** Only the k most likely tokens, and those that tie with the k-th; 0 for no limit. Default 0. */
  readonly topK?: number | undefined
  /** Only the most likely tokens that together reach this probability; at least one. Default 0.95. */
  readonly topP?: number | undefined
  /** Only tokens at least this many times as likely as the most likely one. Default 0. */
  readonly minP?: number | undefined
  /** Positive logits of tokens seen before are divided by it, negative ones multiplied. Default 1. */
  readonly repetitionPenalty?: number | undefined
  /** An integer from 0 to 2^53 − 1: the same seed, the same tokens. Default: from the host's randomness. */
  readonly seed?: number | undefined
}

type NumberOption = Exclude<keyof SamplerOptions, 'seed'>

/** Options after validation: all there but the seed, which may be left to chance. */
export type ResolvedSamplerOptions = { readonly [K in NumberOption]: number } & { readonly seed: number | undefined }

export const SAMPLER_DEFAULTS: { readonly [K in NumberOption]: number } = { temperature: 0.8, topK: 0, topP: 0.95, minP: 0, repetitionPenalty: 1 }

export interface Sampler {
  /** The seed in use: the one given or the one drawn. */
  readonly seed: number
  /** Takes note of ids (of the prompt, of what was generated) for the repetition penalty. RangeError for an id outside the vocabulary. */
  observe(ids: number | ArrayLike<number>): void
  /** The next token's id. `logits` (vocabSize) is left as it is; the choice is not observed. RangeError for NaN, ∞, or only −∞. */
  sample(logits: Float32Array): number
  /** The distribution (vocabSize) that `sample` draws from, as a new array; at temperature 0 all of it is on one token. */
  probabilities(logits: Float32Array): Float32Array
  /**
   * The natural log of the last sampled token's probability in the distribution it was drawn from; at temperature 0, in the
   * softmax of the penalized logits. NaN before the first.
   */
  logProbability(): number
  /** The random generator's state, and the way back to it. */
  state(): RandomState
  restore(state: RandomState): void
}

const OPTION_RULES: { readonly [K in NumberOption]: { readonly expected: string, readonly holds: (value: number) => boolean } } = {
  temperature: { expected: 'a number, 0 or more', holds: value => value >= 0 && value < Infinity },
  topK: { expected: 'an integer, 0 or more', holds: value => Number.isSafeInteger(value) && value >= 0 },
  topP: { expected: 'a number from 0 to 1', holds: value => value >= 0 && value <= 1 },
  minP: { expected: 'a number from 0 to 1', holds: value => value >= 0 && value <= 1 },
  repetitionPenalty: { expected: 'a number from 1e-6 to 1e6', holds: value => value >= 1e-6 && value <= 1e6 }
}

/**
 * Checks every option of the sampler (others are not its business) and fills in the defaults.
 * RangeError for a bad number, TypeError for anything that is none; both name the option.
 */
export function validateSamplerOptions(options: SamplerOptions = {}): ResolvedSamplerOptions {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(messageOf({ place: 'sampler options', expected: 'an object', got: describe(options) }))
  }
  if (options.seed !== undefined) validateSeed(options.seed)
  return {
    temperature: numberOption(options, 'temperature'),
    topK: numberOption(options, 'topK'),
    topP: numberOption(options, 'topP'),
    minP: numberOption(options, 'minP'),
    repetitionPenalty: numberOption(options, 'repetitionPenalty'),
    seed: options.seed
  }
}

function numberOption(options: SamplerOptions, place: NumberOption): number {
  const { [place]: value = SAMPLER_DEFAULTS[place] }: { [K in NumberOption]?: unknown } = options
  const { expected, holds } = OPTION_RULES[place]
  if (typeof value !== 'number') throw new TypeError(messageOf({ place, expected, got: describe(value) }))
  if (!holds(value)) throw new RangeError(messageOf({ place, expected, got: describe(value) }))
  return value
}

/** A sampler for logits of (vocabSize). Throws as `validateSamplerOptions` does. */
export function createSampler(options: SamplerOptions, vocabSize: number): Sampler {
  const { temperature, topK, topP, minP, repetitionPenalty, seed = randomSeed() } = validateSamplerOptions(options)
  const random = createRandom(seed)
  const history = createHistory(vocabSize)
  const scores = new Float64Array(vocabSize)
  // The tokens still in the running, by ascending id, and their probabilities relative to the best one's.
  const ids = new Int32Array(vocabSize)
  const weights = new Float64Array(vocabSize)
  const findKth = createKthLargest(Math.min(topK, vocabSize))
  const cutTail = createNucleusCut(vocabSize)
  let lastLogProbability = NaN
  // At temperature 0 a log probability costs an exp per token of the vocabulary: only when asked for, from the scores still there.
  let isGreedyPending = false

  /** Fills `scores` with the penalized logits; returns the index of the largest, the lowest one at a tie. */
  function score(logits: Float32Array): number {
    checkLogits(logits, vocabSize)
    scores.set(logits)
    history.penalize(scores, repetitionPenalty)
    let best = 0
    for (let i = 0; i < vocabSize; i++) {
      // One comparison for NaN and ∞ alike.
      if (!(scores[i] < Infinity)) throw new RangeError(messageOf({ place: `logits[${i}]`, expected: 'a finite number or -Infinity', got: describe(logits[i]) }))
      if (scores[i] > scores[best]) best = i
    }
    if (scores[best] === -Infinity) throw new RangeError(messageOf({ place: 'logits', expected: 'one above -Infinity at least', got: 'none' }))
    return best
  }

  /** Leaves in `ids` and `weights` the tokens that pass all processors; returns how many. */
  function select(logits: Float32Array): number {
    const highest = scores[score(logits)]
    const threshold = topK > 0 && topK < vocabSize ? findKth(scores) : -Infinity
    let count = 0
    for (let i = 0; i < vocabSize; i++) {
      if (scores[i] < threshold) continue
      ids[count] = i
      weights[count++] = exp((scores[i] - highest) / temperature)
    }
    if (topP < 1) count = cutTail(ids, weights, count, topP)
    // MinPLogitsWarper: the weights are relative to the best token's, so its threshold is minP itself.
    if (minP > 0) count = keepAtLeast(ids, weights, count, { lowest: minP, nDroppedTies: 0 })
    return count
  }

  function settleGreedy(): void {
    if (isGreedyPending) lastLogProbability = -log(sumOfExp(scores))
    isGreedyPending = false
  }

  return {
    seed,
    observe: ids => history.observe(ids),
    sample(logits) {
      isGreedyPending = temperature === 0
      if (temperature === 0) return score(logits)
      const count = select(logits)
      const total = sum(weights, count)
      const picked = pick(weights, count, random.next() * total)
      lastLogProbability = log(weights[picked] / total)
      return ids[picked]
    },
    probabilities(logits) {
      settleGreedy()
      const probabilities = new Float32Array(vocabSize)
      if (temperature === 0) {
        probabilities[score(logits)] = 1
        return probabilities
      }
      const count = select(logits)
      const total = sum(weights, count)
      for (let i = 0; i < count; i++) probabilities[ids[i]] = weights[i] / total
      return probabilities
    },
    logProbability() {
      settleGreedy()
      return lastLogProbability
    },
    state: () => random.state(),
    restore: state => random.restore(state)
  }
}

/** The ids seen so far, each once in a list, so that a token costs the distinct ids and not the whole past. */
function createHistory(vocabSize: number) {
  const isSeen = new Uint8Array(vocabSize)
  const seen = new Int32Array(vocabSize)
  let count = 0

  function observeOne(id: number): void {
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw new RangeError(messageOf({ place: 'token id', expected: `an integer from 0 to ${vocabSize - 1}`, got: describe(id) }))
    }
    if (isSeen[id] === 0) seen[count++] = id
    isSeen[id] = 1
  }

  return {
    observe(ids: number | ArrayLike<number>): void {
      if (typeof ids === 'number') observeOne(ids)
      else for (let i = 0; i < ids.length; i++) observeOne(ids[i])
    },
    /** RepetitionPenaltyLogitsProcessor: once per id, however often it was seen. */
    penalize(scores: Float64Array, penalty: number): void {
      if (penalty === 1) return
      for (let i = 0; i < count; i++) {
        const id = seen[i]
        scores[id] = scores[id] < 0 ? scores[id] * penalty : scores[id] / penalty
      }
    }
  }
}

/** TopKLogitsWarper's threshold, the k-th largest value, by a heap of the k largest so far, the smallest at its root. */
function createKthLargest(k: number): (values: Float64Array) => number {
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
    for (let i = k; i < values.length; i++) if (values[i] > heap[0]) siftDown(0, values[i])
    return heap[0]
  }
}

/**
 * TopPLogitsWarper: keeps the tokens before which, from the most likely down, less than topP of the mass has gone by; at least one.
 * Of equally likely ones at the border the higher ids stay, as with the reference's ascending stable sort.
 *
 * Weights are in [0, 1], the largest is 1. The top 16 bits of a weight as a float32 order it to within 1 %: masses are summed by
 * these, and only the weights of the bucket that holds the border are sorted.
 */
function createNucleusCut(vocabSize: number) {
  const single = new Float32Array(1)
  const bits = new Uint32Array(single.buffer)
  const topBucket = bucketOf(1)
  const masses = new Float64Array(topBucket + 1)
  const border = new Float64Array(vocabSize)
  function bucketOf(weight: number): number {
    single[0] = weight
    return bits[0] >>> 16
  }

  return (ids: Int32Array, weights: Float64Array, count: number, topP: number): number => {
    masses.fill(0)
    for (let i = 0; i < count; i++) masses[bucketOf(weights[i])] += weights[i]
    const limit = topP * sum(weights, count)
    let mass = 0
    let bucket = topBucket
    while (bucket >= 0 && mass + masses[bucket] < limit) mass += masses[bucket--]
    if (bucket < 0) return count
    let nBorder = 0
    for (let i = 0; i < count; i++) if (bucketOf(weights[i]) === bucket) border[nBorder++] = weights[i]
    const sorted = border.subarray(0, nBorder).sort()
    let first = nBorder - 1
    mass += sorted[first]
    while (first > 0 && mass < limit) mass += sorted[--first]
    const lowest = sorted[first]
    let nDroppedTies = 0
    while (nDroppedTies < first && sorted[first - 1 - nDroppedTies] === lowest) nDroppedTies++

    return keepAtLeast(ids, weights, count, { lowest, nDroppedTies })
  }
}

/** Drops what is below `lowest`, and the first so many that equal it. Returns how many are left. */
function keepAtLeast(ids: Int32Array, weights: Float64Array, count: number, { lowest, nDroppedTies }: { lowest: number, nDroppedTies: number }): number {
  let kept = 0
  let nTies = 0
  for (let i = 0; i < count; i++) {
    if (weights[i] < lowest || (weights[i] === lowest && nTies++ < nDroppedTies)) continue
    ids[kept] = ids[i]
    weights[kept++] = weights[i]
  }
  return kept
}

/** The first index at which the running sum exceeds the target, which is below the sum of all: never one of weight 0. */
function pick(weights: Float64Array, count: number, target: number): number {
  let i = 0
  for (let mass = weights[0]; mass <= target && i < count - 1;) mass += weights[++i]
  return i
}

function sum(values: Float64Array, count: number): number {
  let total = 0
  for (let i = 0; i < count; i++) total += values[i]
  return total
}

/** Σ exp(value − largest value). */
function sumOfExp(values: Float64Array): number {
  const highest = values.reduce((a, b) => (a > b ? a : b))
  return values.reduce((total, value) => total + exp(value - highest), 0)
}

function checkLogits(logits: Float32Array, vocabSize: number): void {
  if (!(logits instanceof Float32Array)) throw new TypeError(messageOf({ place: 'logits', expected: 'a Float32Array', got: describe(logits) }))
  if (logits.length !== vocabSize) throw new RangeError(messageOf({ place: 'logits', expected: `(${vocabSize})`, got: `(${logits.length})` }))
}
