/**
 * From logits to the next token: the logits processors of HuggingFace transformers, in its order
 * (repetition penalty, temperature, top-k, top-p, min-p), and one draw.
 *
 * On `elementary.ts` and `random.ts`: a seed gives the same tokens in every runtime. Linear in the vocabulary, times log k at worst
 * for top-k: see candidates.ts. At 50280 tokens the defaults take 0.3 to 0.4 ms, greedy 0.07 (npm run bench -- sampler).
 */
import { type Candidates, createCandidates, createKthLargest, createNucleus, gather, highestOf, stepsAt, sumOfWeights, weigh } from './candidates.ts'
import { log } from './elementary.ts'
import { checkInteger, describe, messageOf } from './errors.ts'
import { nextNumber, type RandomState, randomSeed, restoreWords, seededWords, stateOf, validateSeed } from './random.ts'

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

/** The options that are numbers with a default. */
export type SamplerNumber = Exclude<keyof SamplerOptions, 'seed'>

/** Options after validation: all there but the seed, which may be left to chance. */
export type ResolvedSamplerOptions = { readonly [K in SamplerNumber]: number } & { readonly seed: number | undefined }

/** What an option is where it is missing. */
export const SAMPLER_DEFAULTS: { readonly [K in SamplerNumber]: number } = { temperature: 0.8, topK: 0, topP: 0.95, minP: 0, repetitionPenalty: 1 }

/** Chooses tokens, one after the other, by its own random numbers; see `createSampler`. */
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
  /** Goes on as the generator of that state would. RangeError or TypeError for what is none. */
  restore(state: RandomState): void
}

const OPTION_RULES: { readonly [K in SamplerNumber]: { readonly expected: string, readonly holds: (value: number) => boolean } } = {
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

function numberOption(options: SamplerOptions, place: SamplerNumber): number {
  const { [place]: value = SAMPLER_DEFAULTS[place] }: { [K in SamplerNumber]?: unknown } = options
  const { expected, holds } = OPTION_RULES[place]
  if (typeof value !== 'number') throw new TypeError(messageOf({ place, expected, got: describe(value) }))
  if (!holds(value)) throw new RangeError(messageOf({ place, expected, got: describe(value) }))
  return value
}

/** What a sampler takes at temperature 0, where the highest logit is known. RangeError for NaN, ∞ and −∞. */
export function idOfBest(best: { readonly id: number; readonly logit: number }): number {
  if (best.logit > -Infinity && best.logit < Infinity) return best.id
  throw refusalOf(best)
}

function refusalOf({ id, logit }: { readonly id: number; readonly logit: number }): RangeError {
  if (logit === -Infinity) return new RangeError(messageOf({ place: 'logits', expected: 'one above -Infinity at least', got: 'none' }))
  return new RangeError(messageOf({ place: `logits[${id}]`, expected: 'a finite number or -Infinity', got: describe(logit) }))
}

/** What generation takes of a sampler, and what makes a whole one of it. */
export interface Draws extends Pick<Sampler, 'seed' | 'observe' | 'sample'> {
  readonly temperature: number
  /** The random generator's state. */
  readonly words: Uint32Array
  /** Leaves in the scratch's `candidates` and `weights` the tokens that pass all processors; returns how many. */
  select(logits: Float32Array): number
  /** Of the token drawn last in the distribution it was drawn from; NaN before the first, and at temperature 0. */
  probability(): number
}

/** What a token is drawn in. */
interface Scratch {
  /** The penalized logits. */
  readonly scores: Float64Array
  readonly candidates: Candidates
  /** Probabilities of the candidates relative to the best one's. */
  readonly weights: Float64Array
}

function createScratch(vocabSize: number): Scratch {
  return { scores: new Float64Array(vocabSize), candidates: createCandidates(vocabSize), weights: new Float64Array(vocabSize) }
}

let lastScratch: Scratch | undefined

/** Nothing of it outlasts a draw: texts share it. For 50280 tokens it has 1.8 MB, whose first touch takes a millisecond or two. */
function sharedScratch(vocabSize: number): Scratch {
  return lastScratch?.weights.length === vocabSize ? lastScratch : (lastScratch = createScratch(vocabSize))
}

/** Throws as `validateSamplerOptions` does. */
export function createDraws(options: SamplerOptions, vocabSize: number, scratch?: Scratch): Draws {
  const { temperature, topK, topP, minP, repetitionPenalty, seed = randomSeed() } = validateSamplerOptions(options)
  const words = seededWords(seed)
  const history = createHistory(vocabSize, repetitionPenalty)
  const findKth = createKthLargest(Math.min(topK, vocabSize))
  const nucleus = createNucleus(topP)
  const steps = stepsAt(temperature)
  let probability = NaN
  const ownScratch = (): Scratch => (scratch ??= sharedScratch(vocabSize))

  /** Fills `scores` with the penalized logits; returns the highest. */
  function score(logits: Float32Array, scores: Float64Array): number {
    checkLength(logits, vocabSize)
    scores.set(logits)
    history.penalize(scores)
    const highest = highestOf(scores)
    if (highest > -Infinity && highest < Infinity) return highest
    const isBad = (logit: number): boolean => !(logit < Infinity)
    throw refusalOf({ id: logits.findIndex(isBad), logit: logits.find(isBad) ?? -Infinity })
  }

  function select(logits: Float32Array): number {
    const { scores, candidates, weights } = ownScratch()
    const highest = score(logits, scores)
    const isLimited = topK > 0 && topK < vocabSize
    if (isLimited) gather(candidates, scores, findKth(scores))
    const scale = { highest, steps }
    if (topP < 1 && isLimited) nucleus.narrow(candidates, scale)
    else if (topP < 1) nucleus.gather(candidates, scores, scale)
    // What is well below minP needs no weight: by more than logarithms differ among engines.
    else if (!isLimited) gather(candidates, scores, minP > 0 ? highest + temperature * (Math.log(minP) - 1e-9) : -Infinity)
    weigh(candidates.scores, candidates.count, scale, weights)
    if (minP === 0) return candidates.count
    // MinPLogitsWarper: the weights are relative to the best token's, so its threshold is minP itself.
    let kept = 0
    for (let i = 0; i < candidates.count; i++) {
      if (weights[i] < minP) continue
      candidates.ids[kept] = candidates.ids[i]
      weights[kept++] = weights[i]
    }
    return kept
  }

  return {
    temperature, seed, words, select,
    observe: ids => history.observe(ids),
    sample(logits) {
      const { scores, candidates, weights } = ownScratch()
      // The most likely token, the lowest id at a tie.
      if (temperature === 0) return scores.indexOf(score(logits, scores))
      const count = select(logits)
      const total = sum(weights, count)
      const picked = pick(weights, count, nextNumber(words) * total)
      probability = weights[picked] / total
      return candidates.ids[picked]
    },
    probability: () => probability
  }
}

/** A sampler for logits of (vocabSize). Throws as `validateSamplerOptions` does. */
export function createSampler(options: SamplerOptions, vocabSize: number): Sampler {
  // Its own: what it asks for later is still there.
  const scratch = createScratch(vocabSize)
  const { scores, candidates, weights } = scratch
  const draws = createDraws(options, vocabSize, scratch)
  const { temperature, seed, words } = draws
  let lastLogProbability = NaN
  // At temperature 0 a log probability costs an exp per token of the vocabulary: only when asked for, from the scores still there.
  let isGreedyPending = false

  function settleGreedy(): void {
    if (isGreedyPending) lastLogProbability = -log(sumOfWeights(scores, vocabSize, { highest: highestOf(scores), steps: stepsAt(1) }))
    isGreedyPending = false
  }

  return {
    seed,
    observe: ids => draws.observe(ids),
    sample(logits) {
      isGreedyPending = temperature === 0
      const id = draws.sample(logits)
      if (temperature > 0) lastLogProbability = log(draws.probability())
      return id
    },
    probabilities(logits) {
      settleGreedy()
      const probabilities = new Float32Array(vocabSize)
      if (temperature === 0) {
        probabilities[draws.sample(logits)] = 1
        return probabilities
      }
      const count = draws.select(logits)
      const total = sum(weights, count)
      for (let i = 0; i < count; i++) probabilities[candidates.ids[i]] = weights[i] / total
      return probabilities
    },
    logProbability() {
      settleGreedy()
      return lastLogProbability
    },
    state: () => stateOf(words),
    restore: state => restoreWords(words, state)
  }
}

/** The ids seen so far, each once, so that a token costs the distinct ids and not the whole past. */
function createHistory(vocabSize: number, penalty: number) {
  const seen = new Set<number>()

  return {
    observe(ids: number | ArrayLike<number>): void {
      for (const id of typeof ids === 'number' ? [ids] : Array.from(ids)) {
        checkInteger('token id', id, 0, vocabSize - 1)
        if (penalty !== 1) seen.add(id)
      }
    },
    /** RepetitionPenaltyLogitsProcessor: once per id, however often it was seen. */
    penalize(scores: Float64Array): void {
      for (const id of seen) scores[id] = scores[id] < 0 ? scores[id] * penalty : scores[id] / penalty
    }
  }
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

function checkLength(logits: Float32Array, vocabSize: number): void {
  if (!(logits instanceof Float32Array)) throw new TypeError(messageOf({ place: 'logits', expected: 'a Float32Array', got: describe(logits) }))
  if (logits.length !== vocabSize) throw new RangeError(messageOf({ place: 'logits', expected: `(${vocabSize})`, got: `(${logits.length})` }))
}
