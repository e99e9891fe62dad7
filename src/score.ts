/** How well a model predicts a text: log probabilities, perplexity, bits per byte. */

import { exp, log } from './elementary.ts'
import type { Engine } from './engine.ts'
import { checkInteger } from './errors.ts'
import type { ReadProgress } from './scheduler.ts'

/** Of `score`. */
export interface ScoreOptions {
  /** Tokens read from a fresh state at a time; by default one continuous state. */
  readonly window?: number | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: ReadProgress) => void) | undefined
}

/** How well a text was predicted. */
export interface Score {
  /** Natural logs, of the second token to the last: the first has nothing before it. */
  readonly logProbabilities: Float64Array
  /** exp of the mean of −log p; NaN where nothing was predicted. */
  readonly perplexity: number
  /** Bits of all predicted tokens over the bytes of their text; null for ids of a model without a tokenizer. */
  readonly bitsPerByte: number | null
  /** Of the whole text, the first one too. */
  readonly nTokens: number
  readonly elapsedMs: number
}

/**
 * −log p of every token after the first, by the softmax of the logits before it. Window w reads tokens [w · window, (w + 1) · window)
 * and predicts those one further on, as the report of the embedded model does.
 * `nBytes`: bytes of the text of the predicted tokens, null if unknown.
 */
export async function scoreTokens(engine: Engine, ids: Int32Array, nBytes: number | null, options: ScoreOptions = {}): Promise<Score> {
  const { window = Math.max(1, ids.length), signal, onProgress } = options
  checkInteger('window', window, 1)
  const startMs = performance.now()
  const vocabSize = engine.backend.program.logits?.width ?? 0
  const logProbabilities = new Float64Array(Math.max(0, ids.length - 1))
  const inputs = ids.subarray(0, logProbabilities.length)
  for (let start = 0; start < inputs.length; start += window) {
    const sequence = engine.sequence()
    try {
      await engine.run(sequence, inputs.subarray(start, start + window), 'all', {
        signal,
        onProgress: ({ doneTokens }) => onProgress?.({ doneTokens: start + doneTokens, totalTokens: inputs.length }),
        onLogits(logits, first) {
          for (let row = 0; row * vocabSize < logits.length; row++) {
            const token = start + first + row
            logProbabilities[token] = logProbability(logits.subarray(row * vocabSize, (row + 1) * vocabSize), ids[token + 1])
          }
        }
      })
    } finally {
      await engine.release(sequence)
    }
  }
  const nats = -logProbabilities.reduce((sum, value) => sum + value, 0)
  return {
    logProbabilities,
    perplexity: exp(nats / logProbabilities.length),
    bitsPerByte: nBytes === null ? null : nats / log(2) / nBytes,
    nTokens: ids.length,
    elapsedMs: performance.now() - startMs
  }
}

/** log softmax(logits)[id], in float64. */
function logProbability(logits: Float32Array, id: number): number {
  let max = -Infinity
  for (const logit of logits) if (logit > max) max = logit
  let sum = 0
  for (const logit of logits) sum += exp(logit - max)
  return logits[id] - max - log(sum)
}
