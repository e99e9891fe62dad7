/**
 * Speculative decoding: drafted tokens are read behind the text in one forward, which gives the logits after each of them (Leviathan et al.,
 * arXiv 2211.17192). The sampler then draws from one row after the other, as it does without drafts, for as long as it draws what was drafted. A
 * drafted token t is accepted with its probability p(t), and what is drawn otherwise comes from p without t: the rule of speculative sampling for
 * drafts that have no distribution of their own. Since one row and many give the same bits, the tokens are those of the seed, with drafts or without.
 *
 * The state cannot go back, so drafts are read by a copy of the sequence. When all were accepted it takes the place of the sequence; otherwise it is
 * dropped, and what was accepted is read again, together with the next drafts.
 */

import type { Engine, RunOptions, Sequence } from './engine.ts'
import { createPromptLookup } from './prompt-lookup.ts'
import { MAX_DRAFT, type SpeculationOptions, type SpeculationUsage } from './speculation-options.ts'

/** A text as the speculator needs it. */
export interface SpeculativeText {
  /** What has read all of the text but its pending tokens. */
  readonly sequence: Sequence
  /** At least one. */
  readonly pending: Int32Array
  /** Tokens that may be read before the text's own sequence has to stop. */
  readonly mostTokens: number
  /** Goes on from a sequence that has read the text but for its last token. */
  readonly adopt: (sequence: Sequence) => Promise<void>
}

export interface Speculator {
  readonly usage: SpeculationUsage
  /** Takes note of a token that the text now ends with. */
  push(id: number): void
  /** Logits after the text's last token, valid until the next call; null where nothing is drafted, and the text has to be read as usual. */
  nextLogits(text: SpeculativeText, options: Pick<RunOptions, 'signal'>): Promise<Float32Array | null>
  /** Gives back what it holds. */
  end(): Promise<void>
}

const MIN_MATCH = 3
const MIN_MATCH_OF_BYTES = 8
/** Bytes and a few special tokens. */
const LARGEST_BYTE_VOCABULARY = 512
/** The kernels take up to so many rows at a time: two take 0.6 of the time of four. */
const ROW_TILE = 4
/** More pending tokens are a prompt. */
const MAX_PENDING = 8
/** Drafts that are not made after one of which nothing was accepted: twice as many after each in a row. */
const MAX_PAUSE = 32

interface Run {
  readonly sequence: Sequence
  readonly drafts: readonly number[]
  nAccepted: number
}

export function createSpeculator(engine: Engine, known: Int32Array, { maxDraft = MAX_DRAFT, minMatch }: SpeculationOptions): Speculator {
  const vocabSize = engine.backend.program.logits?.width ?? 1
  const lookup = createPromptLookup(known, minMatch ?? (vocabSize <= LARGEST_BYTE_VOCABULARY ? MIN_MATCH_OF_BYTES : MIN_MATCH))
  const rows = new Float32Array((maxDraft + 1) * vocabSize)
  const rowAt = (index: number): Float32Array => rows.subarray(index * vocabSize, (index + 1) * vocabSize)
  let run: Run | null = null
  let draftedTokens = 0
  let acceptedTokens = 0
  let nPause = 0
  let pause = 0

  const drop = async (): Promise<void> => {
    const dropped = run
    run = null
    if (dropped !== null) await engine.release(dropped.sequence)
  }
  /** The row after the token pushed last, where it was drafted; null where it was not, and nothing of the run is of use. */
  const goOn = async (current: Run, text: SpeculativeText): Promise<Float32Array | null> => {
    const { pending } = text
    if (pending[pending.length - 1] !== current.drafts[current.nAccepted]) {
      pause = current.nAccepted > 0 ? 0 : Math.min(MAX_PAUSE, 2 * pause + 1)
      nPause = pause
      await drop()
      return null
    }
    current.nAccepted++
    acceptedTokens++
    if (current.nAccepted === current.drafts.length) {
      pause = 0
      run = null
      await text.adopt(current.sequence)
    }
    return rowAt(current.nAccepted)
  }
  /** Tokens to be drafted: those that fill the tiles. */
  const draftFor = ({ pending, mostTokens }: SpeculativeText): number[] => {
    if (pending.length > MAX_PENDING) return []
    if (nPause > 0) {
      nPause--
      return []
    }
    const nRows = Math.max(maxDraft + 1, ROW_TILE * Math.ceil((pending.length + 1) / ROW_TILE))
    return lookup.draft(Math.max(0, Math.min(maxDraft, mostTokens - pending.length, nRows - pending.length)))
  }

  return {
    get usage() {
      return { draftedTokens, acceptedTokens }
    },
    push: (id) => lookup.push(id),
    async nextLogits(text, { signal }) {
      const row = run === null ? null : await goOn(run, text)
      if (row !== null) return row
      const drafts = draftFor(text)
      if (drafts.length === 0) return null
      const { pending } = text
      const sequence = engine.sequence(await engine.snapshot(text.sequence))
      run = { sequence, drafts, nAccepted: 0 }
      draftedTokens += drafts.length
      const ids = Int32Array.of(...pending, ...drafts)
      const firstWanted = pending.length - 1
      try {
        await engine.run(sequence, ids, 'all', {
          signal,
          onLogits(logits, first) {
            const nSkipped = Math.max(0, firstWanted - first)
            rows.set(logits.subarray(nSkipped * vocabSize), (first + nSkipped - firstWanted) * vocabSize)
          }
        })
      } catch (error) {
        await drop()
        throw error
      }
      return rowAt(0)
    },
    end: drop
  }
}
