/** Tokens one at a time: logits, sampler, text, stop conditions. */

import type { Best } from './backend/backend.ts'
import { checkInteger, UnsupportedError } from './errors.ts'
import { createDraws, type Draws, idOfBest, type SamplerOptions, validateSamplerOptions } from './sampler.ts'
import type { ReadProgress } from './scheduler.ts'
import { checkSpeculation, type SpeculationOptions, type SpeculationUsage } from './speculation-options.ts'
import { checkStops, NO_STOPS } from './stop-options.ts'
import type { TextModel } from './text.ts'

/** Of `generate` and `complete`: how much is written, and how each token is chosen. */
export interface GenerateOptions extends SamplerOptions {
  /** Tokens at most. Default 256, or as many as the context of a model with attention still has room for. */
  readonly maxTokens?: number | undefined
  /** Ends before the first of these strings; it is not part of the text. */
  readonly stop?: string | readonly string[] | undefined
  /** Goes on after an end-of-text token, which then is a token like any other. Default false. */
  readonly ignoreEos?: boolean | undefined
  /**
   * Drafts what followed the last tokens when they came before in the text, and reads several at once: faster where the text repeats itself, slower by
   * a little elsewhere. The tokens are the same ones, seed for seed. Off by default.
   */
  readonly speculation?: 'prompt-lookup' | SpeculationOptions | undefined
  /** Throws its reason, at the latest after the chunk of the prompt under way. */
  readonly signal?: AbortSignal | undefined
  /** Called while the prompt is read. */
  readonly onProgress?: ((progress: ReadProgress) => void) | undefined
}

/** Why a completion ended: `maxTokens` were there, or an end-of-text token, or a stop string. */
export type FinishReason = 'length' | 'eos' | 'stop'

/** Tokens of one call. */
export interface Usage {
  /** Read by this call; of a session's text what it had not read yet. */
  readonly promptTokens: number
  readonly completionTokens: number
}

/** By the clock, waiting for others included. */
export interface Timings {
  /** Reading the prompt, up to the first logits. */
  readonly promptMs: number
  readonly promptTokensPerSecond: number
  /** All tokens after the first logits. */
  readonly generateMs: number
  readonly generatedTokensPerSecond: number
}

/** How a completion ended. */
export interface Finish {
  readonly reason: FinishReason
  /** The stop string that was found. */
  readonly stop: string | null
  /** The end-of-text token that was generated. */
  readonly eos: number | null
  /** Repeats the same text. */
  readonly seed: number
  readonly usage: Usage
  readonly timings: Timings
  /** Null without `speculation`. */
  readonly speculation: SpeculationUsage | null
}

/** A piece of a completion. The pieces' texts make the text, their ids the ids. */
export interface GenerateChunk {
  /** Whole characters; empty without a tokenizer, and at times in the last piece. */
  readonly text: string
  /** The tokens since the piece before. An end-of-text token is not among them. */
  readonly ids: readonly number[]
  /** On the last piece. */
  readonly finish: Finish | null
}

/** A completion that has ended; `text` and `ids` are without the prompt. */
export interface Completion extends Omit<Finish, 'reason'> {
  readonly text: string
  readonly ids: readonly number[]
  readonly finishReason: FinishReason
}

export const DEFAULT_MAX_TOKENS = 256

/** Options, checked: RangeError or TypeError that names one. */
export interface GenerationPlan {
  readonly maxTokens: number
  readonly stops: readonly string[]
  readonly sampler: Draws
  /** Each token is the one of the highest logit. */
  readonly isGreedy: boolean
  readonly speculation: SpeculationOptions | null
  readonly options: GenerateOptions
}

export function planGeneration(options: GenerateOptions, text: TextModel, vocabSize: number): GenerationPlan {
  const { temperature, repetitionPenalty } = validateSamplerOptions(options)
  const { maxTokens = DEFAULT_MAX_TOKENS, stop = [] } = options
  checkInteger('maxTokens', maxTokens, 0)
  const stops = typeof stop === 'string' ? [stop] : stop
  checkStops(stops)
  if (stops.length > 0 && text.tokenizer === null) {
    throw new UnsupportedError({ place: 'stop', expected: 'a model with a tokenizer', got: 'a model without one' })
  }
  const speculation = options.speculation === 'prompt-lookup' ? {} : (options.speculation ?? null)
  if (speculation !== null) checkSpeculation(speculation)
  return { maxTokens, stops, sampler: createDraws(options, vocabSize), isGreedy: temperature === 0 && repetitionPenalty === 1, speculation, options }
}

/** Of a token that is asked for. */
export interface NextOptions extends Pick<GenerateOptions, 'signal' | 'onProgress'> {
  /** Whether a further one will be, unless this one ends the text. */
  readonly goesOn: boolean
}

/** What generation needs of a session. */
export interface TokenSource {
  readonly eosTokenIds: readonly number[]
  /** Tokens not read yet. */
  readonly nPending: number
  /** Reads the pending tokens and gives the last one's logits, valid until the next call; to a greedy plan the best token alone may be given. */
  next(options: NextOptions): Promise<Float32Array | Best>
  /** Adds a token to be read next. */
  push(id: number): void
  speculationUsage(): SpeculationUsage | null
}

export async function* generateTokens(source: TokenSource, text: TextModel, plan: GenerationPlan): AsyncGenerator<GenerateChunk, void, undefined> {
  const { maxTokens, sampler, options } = plan
  const decoder = text.decodeStream()
  const matcher = plan.stops.length === 0 ? NO_STOPS : (await import('./stop-strings.ts')).createStopMatcher(plan.stops)
  const promptTokens = source.nPending
  const startMs = performance.now()
  let promptEndMs = startMs
  let completionTokens = 0
  let reason: FinishReason = 'length'
  let stop: string | null = null
  let eos: number | null = null
  let ids: number[] = []
  let tail = ''
  while (completionTokens < maxTokens) {
    options.signal?.throwIfAborted()
    const goesOn = completionTokens + 1 < maxTokens
    const found = await source.next({ signal: options.signal, onProgress: completionTokens === 0 ? options.onProgress : undefined, goesOn })
    if (completionTokens === 0) promptEndMs = performance.now()
    const id = found instanceof Float32Array ? sampler.sample(found) : idOfBest(found)
    source.push(id)
    if (options.ignoreEos !== true && source.eosTokenIds.includes(id)) {
      reason = 'eos'
      eos = id
      break
    }
    sampler.observe(id)
    ids.push(id)
    completionTokens++
    const match = matcher.push(decoder.push(id))
    if (match.stopped) {
      reason = 'stop'
      stop = match.stop ?? null
      tail = match.text
      break
    }
    if (match.text !== '' || text.tokenizer === null) {
      yield { text: match.text, ids, finish: null }
      ids = []
    }
  }
  if (reason !== 'stop') {
    const last = matcher.push(decoder.flush())
    if (last.stopped) {
      reason = 'stop'
      stop = last.stop ?? null
    }
    tail = last.stopped ? last.text : last.text + matcher.flush()
  }
  const endMs = performance.now()
  const promptMs = promptEndMs - startMs
  const generateMs = endMs - promptEndMs
  yield {
    text: tail,
    ids,
    finish: {
      reason, stop, eos, seed: sampler.seed,
      usage: { promptTokens, completionTokens },
      speculation: source.speculationUsage(),
      timings: {
        promptMs, generateMs,
        promptTokensPerSecond: perSecond(promptTokens, promptMs),
        // The first token comes from the prompt's own logits.
        generatedTokensPerSecond: perSecond(Math.max(0, completionTokens - 1), generateMs)
      }
    }
  }
}

export function perSecond(count: number, elapsedMs: number): number {
  return elapsedMs > 0 ? (1000 * count) / elapsedMs : 0
}

/** All pieces in one. */
export async function collect(chunks: AsyncIterable<GenerateChunk>): Promise<Completion> {
  let text = ''
  const ids: number[] = []
  for await (const chunk of chunks) {
    text += chunk.text
    for (const id of chunk.ids) ids.push(id)
    if (chunk.finish !== null) {
      const { reason, ...finish } = chunk.finish
      return { text, ids, finishReason: reason, ...finish }
    }
  }
  throw new TypeError('a generation ended without its last piece')
}
