/** A text under way: its state, of constant size, and what may be done with it. */

import type { Engine, RunOptions, Sequence } from './engine.ts'
import { describe, messageOf } from './errors.ts'
import { collect, type Completion, type GenerateChunk, type GenerateOptions, generateTokens, type GenerationPlan, planGeneration } from './generate.ts'
import { createLock } from './lock.ts'
import { checkCheckpointOptions, type CheckpointOptions, CheckpointRing } from './state/checkpoint-ring.ts'
import type { PrefixCache } from './state/prefix-cache.ts'
import { encodeSession, type SavedSession, type SaveOptions } from './state/saved-session.ts'
import type { Snapshot } from './state/snapshot.ts'
import { TokenHistory } from './state/token-history.ts'
import type { Prompt, TextModel } from './text.ts'

/** What a session is made of; all sessions of a model share it. */
export interface SessionContext {
  readonly engine: Engine
  readonly text: TextModel
  readonly vocabSize: number
  readonly eosTokenIds: readonly number[]
  /** Of the model, for saved sessions. */
  readonly fingerprint: Uint8Array
  readonly prefixCache: PrefixCache<Snapshot> | null
}

export interface SessionOptions {
  /** States to go back to (`rewind`). By default there are none: each costs as much memory as the session. */
  readonly checkpoints?: CheckpointOptions | undefined
}

export interface AppendOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: RunOptions['onProgress']
}

export interface ForwardOptions extends AppendOptions {
  /** Logits of every token, not of the last alone. Default false. */
  readonly allLogits?: boolean | undefined
}

/** Calls on one session run in the order in which they were made. */
export class Session {
  readonly #context: SessionContext
  readonly #lock = createLock()
  #sequence: Sequence
  /** The text's tokens from the furthest point still needed on. Those after the sequence's position are pending: the last one waits until its logits are wanted. */
  #history = new TokenHistory()
  /** Logits of the last token, where they are known and nothing is pending. Never changed: forks share them. */
  #lastLogits: Float32Array | null = null
  /** Ids seen, for the repetition penalty, and where each came first. */
  #seen = new Map<number, number>()
  #ring: CheckpointRing | null
  /** Generations in pieces that have begun and not ended. */
  readonly #open = new Set<AsyncGenerator<GenerateChunk, void, undefined>>()
  #isDisposed = false

  /** Not for users: `mamba.session()`, `mamba.restore()` and `session.fork()` make sessions. */
  constructor(context: SessionContext, { checkpoints }: SessionOptions = {}, from?: Session | SavedSession) {
    if (checkpoints !== undefined) checkCheckpointOptions(checkpoints)
    this.#context = context
    this.#sequence = context.engine.sequence()
    this.#ring = checkpoints === undefined ? null : new CheckpointRing(checkpoints, context.engine.snapshots)
    if (from instanceof Session) this.#copyFrom(from)
    else if (from !== undefined) this.#restore(from)
    else this.#ring?.add({ position: 0, snapshot: null })
  }

  /** Tokens of the text so far. */
  get position(): number {
    return this.#history.end
  }

  /**
   * Adds text or ids and reads them; with `defer` the next call reads them.
   * An abort stops the reading alone: the tokens belong to the text, and the next call reads the rest.
   * RangeError beyond the context of a model with attention (`contextLength`): then none of them belongs to the text.
   */
  async append(prompt: Prompt, { defer = false, ...options }: AppendOptions & { readonly defer?: boolean | undefined } = {}): Promise<void> {
    const checked = this.#context.text.check(prompt)
    await this.#locked(async () => {
      const ids = this.#context.text.toIds(checked, this.position === 0)
      this.#context.engine.checkLength(this.position + ids.length)
      this.#add(ids)
      if (!defer) await this.#read(this.#nPending - 1, 'none', options)
    })
  }

  /**
   * Goes on from where the text stands, in pieces. Its turn among the session's calls begins with the first piece asked for and ends with the
   * last, or when the loop is left: calls made meanwhile wait, so do not await one inside the loop. `dispose` ends it.
   * What is generated belongs to the text, an end-of-text token included.
   * RangeError for options out of range, in a session without any token, and where maxTokens could go beyond the context of a model with
   * attention (`contextLength`).
   */
  generate(options: GenerateOptions = {}): AsyncGenerator<GenerateChunk, void, undefined> {
    const plan = planGeneration(options, this.#context.text, this.#context.vocabSize)
    const chunks: AsyncGenerator<GenerateChunk, void, undefined> = this.#generate(plan, {
      onStart: () => this.#open.add(chunks),
      onEnd: () => this.#open.delete(chunks)
    })
    return chunks
  }

  /** `generate`, all in one. */
  async complete(options: GenerateOptions = {}): Promise<Completion> {
    const chunks = this.#generate(planGeneration(options, this.#context.text, this.#context.vocabSize))
    return this.#context.engine.operation(() => collect(chunks))
  }

  /** Logits of `ids` (nTokens) after the text so far: of the last, (1, vocabSize), or of all, (nTokens, vocabSize). The ids then belong to the text. RangeError beyond the context, as `append`. */
  async forward(ids: Prompt, { allLogits = false, ...options }: ForwardOptions = {}): Promise<Float32Array> {
    const checked = this.#context.text.check(ids)
    return this.#locked(async () => {
      const tokens = this.#context.text.toIds(checked, this.position === 0)
      const { engine, vocabSize } = this.#context
      engine.checkLength(this.position + tokens.length)
      const result = new Float32Array((allLogits ? tokens.length : Math.min(1, tokens.length)) * vocabSize)
      if (tokens.length === 0) return result
      await this.#read(this.#nPending, 'none', options)
      this.#add(tokens)
      await this.#read(tokens.length, allLogits ? 'all' : 'last', options, (logits, first) => result.set(logits, allLogits ? first * vocabSize : 0))
      this.#lastLogits = result.slice(-vocabSize)
      return result
    })
  }

  /**
   * Takes the last `nTokens` tokens of the text back: what comes next is as if they had never been there. The next call reads again what lies between
   * the checkpoint and the new end, a token at least. Possible as far as the session's checkpoints reach, and over tokens not read yet;
   * RangeError beyond that.
   */
  async rewind(nTokens: number): Promise<void> {
    if (!Number.isInteger(nTokens) || nTokens < 0) throw new RangeError(messageOf({ place: 'rewind', expected: 'an integer from 0', got: describe(nTokens) }))
    await this.#locked(async () => {
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
    })
  }

  /**
   * The session as bytes, for `mamba.restore` in any process and runtime: its state, and what else decides how the text goes on. A few MB, constant but
   * for attention layers, whose keys and values grow with the text. Checkpoints stay behind.
   * `precision` 'f16' and 'q8' take a half and a quarter of the bytes, and the text then goes on nearly as it would have.
   * RangeError where a value of the state is beyond the range of halves.
   */
  async save(options: SaveOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    return this.#locked(async () => {
      const { engine, fingerprint, vocabSize } = this.#context
      const snapshot = await engine.snapshot(this.#sequence)
      try {
        const pending = this.#pending(this.#nPending)
        const seen = [...this.#seen].filter(([, first]) => first < this.#sequence.position).map(([id]) => id)
        return encodeSession({ position: this.#sequence.position, pending, seen, lastLogits: this.#lastLogits, state: snapshot?.state ?? null }, { fingerprint, vocabSize }, options)
      } finally {
        if (snapshot !== null) engine.snapshots.release(snapshot)
      }
    })
  }

  /** A session with the same text, checkpoints and all, at once; the two are independent from here on. */
  fork(): Session {
    return new Session(this.#context, {}, this)
  }

  /** Gives the memory back, after the calls under way; generations in pieces end with the piece under way. */
  async dispose(): Promise<void> {
    await Promise.all([...this.#open].map((chunks) => chunks.return()))
    await this.#lock.run(async () => {
      if (this.#isDisposed) return
      this.#isDisposed = true
      this.#ring?.clear()
      await this.#context.engine.release(this.#sequence)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  /** Tokens of the text that have not been read. */
  get #nPending(): number {
    return this.#history.end - this.#sequence.position
  }

  /** The first so many of them. */
  #pending(count: number): Int32Array {
    const { position } = this.#sequence
    return this.#history.slice(position, position + count)
  }

  /** Whether the text's tokens are known from its start on, and someone wants to know. */
  get #cache(): PrefixCache<Snapshot> | null {
    return this.#history.start === 0 ? this.#context.prefixCache : null
  }

  /** Both locks are asked for now: the copy comes after the parent's calls so far and before the child's first. */
  #copyFrom(parent: Session): void {
    // What is known now, so that the position can be asked for.
    this.#history = parent.#history.fork()
    const parentTurn = parent.#lock.acquire()
    void this.#lock.run(async () => {
      const release = await parentTurn
      try {
        parent.#checkInUse()
        const { engine } = this.#context
        this.#sequence = engine.sequence(await engine.snapshot(parent.#sequence))
        this.#history = parent.#history.fork()
        this.#lastLogits = parent.#lastLogits
        this.#seen = new Map(parent.#seen)
        this.#ring = parent.#ring?.fork() ?? null
      } catch {
        // Nobody awaits a fork: the child's own calls say that it is disposed.
        this.#isDisposed = true
      } finally {
        release()
      }
    })
  }

  #restore({ position, pending, seen, lastLogits, state }: SavedSession): void {
    const { engine } = this.#context
    const snapshot = state === null ? null : engine.snapshots.take(position)
    snapshot?.state.set(state ?? [])
    this.#sequence = engine.sequence(snapshot)
    this.#history = new TokenHistory(position)
    this.#seen = new Map(seen.map((id) => [id, 0]))
    this.#add(pending)
    this.#lastLogits = lastLogits
    this.#ring?.add({ position, snapshot: snapshot && engine.snapshots.hold(snapshot) })
  }

  async *#generate(plan: GenerationPlan, watch?: { onStart(): void; onEnd(): void }): AsyncGenerator<GenerateChunk, void, undefined> {
    const release = await this.#lock.acquire()
    let isSound = true
    watch?.onStart()
    try {
      this.#checkInUse()
      if (plan.maxTokens > 0 && this.position === 0) {
        throw new RangeError(messageOf({ place: 'session', expected: 'at least one token to go on from', got: 'none' }))
      }
      const { engine, text, vocabSize, eosTokenIds } = this.#context
      // The last token is given out, not read.
      engine.checkLength(this.position + Math.max(0, plan.maxTokens - 1))
      plan.sampler.observe([...this.#seen.keys()])
      const logits = new Float32Array(vocabSize)
      const onLogits = (values: Float32Array): void => logits.set(values)
      const nextLogits = async (options: AppendOptions): Promise<Float32Array> => {
        if (this.#nPending === 0 && this.#lastLogits !== null) return this.#lastLogits
        await this.#read(this.#nPending, 'last', options, onLogits)
        return logits
      }
      yield* generateTokens({ eosTokenIds, nPending: this.#nPending, nextLogits, push: (id) => this.#add(Int32Array.of(id)) }, text, plan)
    } catch (error) {
      isSound = false
      throw error
    } finally {
      // An engine that was disposed meanwhile has no state to give, and needs none kept.
      if (isSound) await this.#remember().catch(() => {})
      watch?.onEnd()
      release()
    }
  }

  async #locked<T>(task: () => Promise<T>): Promise<T> {
    return this.#context.engine.operation(() =>
      this.#lock.run(async () => {
        this.#checkInUse()
        return task()
      })
    )
  }

  #checkInUse(): void {
    if (this.#isDisposed) throw new TypeError(messageOf({ place: 'session', expected: 'a session in use', got: 'one that was disposed' }))
  }

  #add(ids: Int32Array): void {
    if (ids.length === 0) return
    const first = this.position
    this.#history.push(ids)
    this.#lastLogits = null
    ids.forEach((id, i) => {
      if (!this.#seen.has(id)) this.#seen.set(id, first + i)
    })
  }

  /**
   * Reads the first `count` pending tokens, with a stop wherever a state is to be kept. Whatever ends it, what was read is no longer pending.
   */
  async #read(count: number, logits: 'none' | 'last' | 'all', { signal, onProgress }: AppendOptions, onLogits?: RunOptions['onLogits']): Promise<void> {
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
        onLogits: onLogits && ((values, first) => onLogits(values, from - start + first))
      })
      if (nextStop === this.#ring?.nextAfter(from)) this.#ring.add({ position: nextStop, snapshot: await this.#context.engine.snapshot(this.#sequence) })
      if (worthKeeping.includes(nextStop)) await this.#remember()
    }
    if (this.#context.prefixCache === null || this.#history.start > 0) this.#history.forget(Math.min(this.#sequence.position, this.#ring?.oldest?.position ?? Infinity))
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

  /** Puts the state as it is now into the cache. */
  async #remember(): Promise<void> {
    const cache = this.#cache
    const { position } = this.#sequence
    if (cache === null || position === 0) return
    const snapshot = await this.#context.engine.snapshot(this.#sequence)
    if (snapshot !== null) cache.insert(this.#history.slice(0, position), snapshot, snapshot.state.byteLength)
  }

  /** Goes on from another state of this text, whose hold it takes over. */
  async #moveTo(snapshot: Snapshot | null): Promise<void> {
    const { engine } = this.#context
    const before = this.#sequence
    this.#sequence = engine.sequence(snapshot)
    await engine.release(before)
  }

  /** Tokens that `rewind` can take back. */
  #rewindable(): number {
    const { position } = this.#sequence
    const oldest = this.#ring?.oldest?.position ?? position
    return Math.max(0, this.position - (oldest === 0 ? 0 : oldest + 1))
  }
}
