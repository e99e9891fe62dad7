/**
 * A text and its state: the tokens that are still needed and how far they have been read. One call at a time: the session that owns it sees to that.
 * What is kept on the way, and how a text goes back to it, is in kept-states.ts; saved-text.ts saves and restores.
 */

import type { Engine, RunOptions, Sequence } from './engine.ts'
import type { ReadProgress } from './scheduler.ts'
import { checkCheckpointOptions, type CheckpointOptions } from './state/checkpoint-options.ts'
import type { CheckpointRing } from './state/checkpoint-ring.ts'
import type { PrefixCache } from './state/prefix-cache.ts'
import type { Snapshot } from './state/snapshot.ts'
import { TokenHistory } from './state/token-history.ts'

/** Of calls that read a text. */
export interface ReadOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: ReadProgress) => void) | undefined
}

/** A reading of the first `count` pending tokens, and who takes what comes of it. */
export interface Reading extends Pick<RunOptions, 'signal' | 'onProgress' | 'onLogits' | 'onBest' | 'goesOn'> {
  readonly count: number
  readonly logits: 'none' | 'last' | 'all'
}

/** What all texts of a model share. */
export interface TextStateContext {
  readonly engine: Engine
  readonly prefixCache: PrefixCache<Snapshot> | null
}

/** Tokens read that are kept all the same, to draft from: a constant amount. */
export const KNOWN_TOKENS = 4096

export class TextState {
  readonly context: TextStateContext
  readonly checkpoints: CheckpointOptions | undefined
  sequence: Sequence
  /** The text's tokens from the furthest point still needed on, and some before it. Those after the sequence's position are pending. */
  history: TokenHistory = new TokenHistory()
  /** Logits of the last token, where they are known and nothing is pending. Never changed: forks share them. */
  lastLogits: Float32Array | null = null
  /** Ids seen, for the repetition penalty, and where each came first. */
  seen: Map<number, number> = new Map()
  /** Where there are to be checkpoints: made before the first token is read. */
  ring: CheckpointRing | null = null

  /** Fresh. RangeError for checkpoints out of range. */
  constructor(context: TextStateContext, checkpoints: CheckpointOptions | undefined) {
    if (checkpoints !== undefined) checkCheckpointOptions(checkpoints)
    this.context = context
    this.checkpoints = checkpoints
    this.sequence = context.engine.sequence()
  }

  /** Tokens of the text. */
  get position(): number {
    return this.history.end
  }

  /** Tokens of the text that have not been read. */
  get nPending(): number {
    return this.position - this.sequence.position
  }

  /** Whether states are to be kept while it is read, which then is a matter of kept-states.ts. */
  get keepsStates(): boolean {
    return this.checkpoints !== undefined || this.context.prefixCache !== null
  }

  /** The first so many pending tokens. */
  pending(count = this.nPending): Int32Array {
    const { position } = this.sequence
    return this.history.slice(position, position + count)
  }

  /** The text's tokens as far back as they are kept. */
  knownIds(): Int32Array {
    return this.history.slice(this.history.start, this.position)
  }

  /** The same text and state; the two are independent. */
  async fork(): Promise<TextState> {
    const { engine } = this.context
    const fork = new TextState(this.context, this.checkpoints)
    fork.sequence = engine.sequence(await engine.snapshot(this.sequence))
    fork.history = this.history.fork()
    fork.lastLogits = this.lastLogits
    fork.seen = new Map(this.seen)
    fork.ring = this.ring?.fork() ?? null
    return fork
  }

  /** Gives the memory back. */
  async release(): Promise<void> {
    this.ring?.clear()
    await this.context.engine.release(this.sequence)
  }

  add(ids: Int32Array): void {
    if (ids.length === 0) return
    const first = this.position
    this.history.push(ids)
    this.lastLogits = null
    ids.forEach((id, i) => {
      if (!this.seen.has(id)) this.seen.set(id, first + i)
    })
  }

  /** Reads on. Whatever ends it, what was read is no longer pending. */
  async read({ count, logits, ...options }: Reading): Promise<void> {
    await this.context.engine.run(this.sequence, this.pending(count), logits, options)
    if (!this.keepsStates) this.history.forget(this.sequence.position - KNOWN_TOKENS)
  }
}
