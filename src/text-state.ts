/**
 * A text and its state: the tokens that are still needed, how far they have been read, and what was kept on the way. One call at a time: the session
 * that owns it sees to that.
 */

import type { Engine, RunOptions, Sequence } from './engine.ts'
import { checkInteger, messageOf } from './errors.ts'
import type { ReadProgress } from './scheduler.ts'
import { type CheckpointOptions, CheckpointRing } from './state/checkpoint-ring.ts'
import type { SpeculativeText } from './speculation.ts'
import type { PrefixCache } from './state/prefix-cache.ts'
import type { SavedSession } from './state/saved-session.ts'
import type { Snapshot } from './state/snapshot.ts'
import { TokenHistory } from './state/token-history.ts'

/** Of calls that read a text. */
export interface ReadOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: ReadProgress) => void) | undefined
}

/** Who takes what comes of a reading. */
export type LogitsTaker = Pick<RunOptions, 'onLogits' | 'onBest' | 'goesOn'>

/** What all texts of a model share. */
export interface TextStateContext {
  readonly engine: Engine
  readonly prefixCache: PrefixCache<Snapshot> | null
}

/** Tokens read that are kept all the same, to draft from: a constant amount. */
const KNOWN_TOKENS = 4096

export class TextState {
  readonly #context: TextStateContext
  #sequence: Sequence
  /** The text's tokens from the furthest point still needed on, and some before it. Those after the sequence's position are pending. */
  #history = new TokenHistory()
  /** Logits of the last token, where they are known and nothing is pending. Never changed: forks share them. */
  #lastLogits: Float32Array | null = null
  /** Ids seen, for the repetition penalty, and where each came first. */
  #seen = new Map<number, number>()
  #ring: CheckpointRing | null

  /** Fresh, or as it was saved. */
  constructor(context: TextStateContext, checkpoints: CheckpointOptions | undefined, saved?: SavedSession) {
    this.#context = context
    this.#sequence = context.engine.sequence()
    this.#ring = checkpoints === undefined ? null : new CheckpointRing(checkpoints, context.engine.snapshots)
    if (saved === undefined) this.#ring?.add({ position: 0, snapshot: null })
    else this.#restore(saved)
  }

  /** Tokens of the text. */
  get position(): number {
    return this.#history.end
  }

  /** Tokens of the text that have not been read. */
  get nPending(): number {
    return this.#history.end - this.#sequence.position
  }

  /** Of the last token; null where they are not known. */
  get lastLogits(): Float32Array | null {
    return this.#lastLogits
  }

  /** Ids in the text, each once. */
  seenIds(): number[] {
    return [...this.#seen.keys()]
  }

  /** The text's tokens as far back as they are kept. */
  knownIds(): Int32Array {
    return this.#history.slice(this.#history.start, this.position)
  }

  /** The text as a speculator needs it. */
  speculative(): SpeculativeText {
    const { position } = this.#sequence
    const { maxLength } = this.#context.engine
    return {
      sequence: this.#sequence,
      pending: this.#pending(this.nPending),
      // Where a checkpoint is due the text is read as usual; drafts beyond the context are none.
      mostTokens: Math.min((this.#ring?.nextAfter(position) ?? Infinity) - 1, maxLength) - position,
      adopt: async (sequence) => {
        const before = this.#sequence
        this.#sequence = sequence
        await this.#context.engine.release(before)
      }
    }
  }

  /** The same text and state; the two are independent. */
  async fork(): Promise<TextState> {
    const { engine } = this.#context
    const fork = new TextState(this.#context, undefined)
    fork.#sequence = engine.sequence(await engine.snapshot(this.#sequence))
    fork.#history = this.#history.fork()
    fork.#lastLogits = this.#lastLogits
    fork.#seen = new Map(this.#seen)
    fork.#ring = this.#ring?.fork() ?? null
    return fork
  }

  /** Gives the memory back. */
  async release(): Promise<void> {
    this.#ring?.clear()
    await this.#context.engine.release(this.#sequence)
  }

  add(ids: Int32Array): void {
    if (ids.length === 0) return
    const first = this.position
    this.#history.push(ids)
    this.#lastLogits = null
    ids.forEach((id, i) => {
      if (!this.#seen.has(id)) this.#seen.set(id, first + i)
    })
  }

  /** The logits that the last token was found to have. */
  keepLogits(logits: Float32Array): void {
    this.#lastLogits = logits
  }

  /**
   * Reads the first `count` pending tokens, with a stop wherever a state is to be kept. Whatever ends it, what was read is no longer pending.
   */
  async read(count: number, logits: 'none' | 'last' | 'all', { signal, onProgress }: ReadOptions, { onLogits, onBest, goesOn }: LogitsTaker = {}): Promise<void> {
    if (count <= 0) return
    const start = this.#sequence.position
    const end = start + count
    const worthKeeping = await this.#startFromCache(count, logits)
    while (this.#sequence.position < end) {
      const from = this.#sequence.position
      const nextStop = Math.min(end, this.#ring?.nextAfter(from) ?? end, ...worthKeeping.filter((position) => position > from))
      const wanted = logits === 'last' && nextStop < end ? 'none' : logits
      await this.#context.engine.run(this.#sequence, this.#pending(nextStop - from), wanted, {
        signal,
        onProgress: onProgress && (({ doneTokens }) => onProgress({ doneTokens: from - start + doneTokens, totalTokens: count })),
        onLogits: onLogits && ((values, first) => onLogits(values, from - start + first)),
        onBest,
        goesOn
      })
      if (nextStop === this.#ring?.nextAfter(from)) this.#ring.add({ position: nextStop, snapshot: await this.#context.engine.snapshot(this.#sequence) })
      if (worthKeeping.includes(nextStop)) await this.remember()
    }
    if (this.#context.prefixCache === null || this.#history.start > 0) this.#history.forget(Math.min(this.#sequence.position - KNOWN_TOKENS, this.#ring?.oldest?.position ?? Infinity))
  }

  /** Puts the state as it is now into the cache. */
  async remember(): Promise<void> {
    const cache = this.#cache
    const { position } = this.#sequence
    if (cache === null || position === 0) return
    const snapshot = await this.#context.engine.snapshot(this.#sequence)
    if (snapshot !== null) cache.insert(this.#history.slice(0, position), snapshot, snapshot.state.byteLength)
  }

  /** Takes the last `nTokens` back. RangeError where no state is kept from which the text before them can be gone on with. */
  async rewind(nTokens: number): Promise<void> {
    checkInteger('rewind', nTokens, 0)
    if (nTokens === 0) return
    const end = this.position - nTokens
    // Of the last token that stays the logits are needed: it must be pending again.
    const isRead = end <= this.#sequence.position && this.#sequence.position > 0
    const checkpoint = isRead ? this.#ring?.before(end) : undefined
    if (end < 0 || (isRead && checkpoint === undefined)) {
      throw new RangeError(messageOf({ place: 'rewind', expected: `at most ${this.#rewindable()} tokens: no state is kept before`, got: `${nTokens}` }))
    }
    if (checkpoint !== undefined) {
      await this.#moveTo(checkpoint.snapshot && this.#context.engine.snapshots.hold(checkpoint.snapshot))
      this.#ring?.truncate(checkpoint.position)
    }
    this.#history.truncate(end)
    for (const [id, first] of this.#seen) if (first >= end) this.#seen.delete(id)
    this.#lastLogits = null
  }

  /** What `use` makes of the text as it is to be saved; the state is its own only so long. */
  async saved<T>(use: (session: SavedSession) => T): Promise<T> {
    const { engine } = this.#context
    const { position } = this.#sequence
    const snapshot = await engine.snapshot(this.#sequence)
    try {
      const seen = [...this.#seen].filter(([, first]) => first < position).map(([id]) => id)
      return use({ position, pending: this.#pending(this.nPending), seen, lastLogits: this.#lastLogits, state: snapshot?.state ?? null })
    } finally {
      if (snapshot !== null) engine.snapshots.release(snapshot)
    }
  }

  /** The first so many pending tokens. */
  #pending(count: number): Int32Array {
    const { position } = this.#sequence
    return this.#history.slice(position, position + count)
  }

  /** Whether the text's tokens are known from its start on, and someone wants to know. */
  get #cache(): PrefixCache<Snapshot> | null {
    return this.#history.start === 0 ? this.#context.prefixCache : null
  }

  /**
   * The longest known beginning of a fresh text need not be read. Returns where states are to be kept on the way: where the text parts from a known
   * one, and at its end, before the token whose logits are wanted, so that the same text again finds it.
   */
  async #startFromCache(count: number, logits: 'none' | 'last' | 'all'): Promise<readonly number[]> {
    const cache = this.#cache
    if (cache === null || count === 1) return []
    const start = this.#sequence.position
    const last = start + count - (logits === 'last' ? 1 : 0)
    if (start > 0 || logits === 'all') return [last]
    const { value, length, sharedLength } = cache.find(this.#pending(last))
    if (value !== null) {
      const { snapshots } = this.#context.engine
      await this.#moveTo(snapshots.hold(value))
      this.#ring?.add({ position: length, snapshot: snapshots.hold(value) })
    }
    return sharedLength > length ? [sharedLength, last] : [last]
  }

  /** Goes on from another state of this text, whose hold it takes over. */
  async #moveTo(snapshot: Snapshot | null): Promise<void> {
    const { engine } = this.#context
    const before = this.#sequence
    this.#sequence = engine.sequence(snapshot)
    await engine.release(before)
  }

  #restore({ position, pending, seen, lastLogits, state }: SavedSession): void {
    const { engine } = this.#context
    const snapshot = state === null ? null : engine.snapshots.take(position)
    snapshot?.state.set(state ?? [])
    this.#sequence = engine.sequence(snapshot)
    this.#history = new TokenHistory(position)
    this.#seen = new Map(seen.map((id) => [id, 0]))
    this.add(pending)
    this.#lastLogits = lastLogits
    this.#ring?.add({ position, snapshot: snapshot && engine.snapshots.hold(snapshot) })
  }

  /** Tokens that `rewind` can take back. */
  #rewindable(): number {
    const { position } = this.#sequence
    const oldest = this.#ring?.oldest?.position ?? position
    return Math.max(0, this.position - (oldest === 0 ? 0 : oldest + 1))
  }
}
