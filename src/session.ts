/** A text under way: its state, of constant size, and what may be done with it. */

import type { Best } from './backend/backend.ts'
import { messageOf } from './errors.ts'
import { collect, type Completion, type GenerateChunk, type GenerateOptions, generateTokens, type GenerationPlan, type NextOptions, planGeneration } from './generate.ts'
import { createLock } from './lock.ts'
import type { CheckpointOptions } from './state/checkpoint-options.ts'
import type { SaveOptions } from './state/saved-session.ts'
import type { Speculator } from './speculation.ts'
import { type Reading, type ReadOptions, TextState, type TextStateContext } from './text-state.ts'
import type { Prompt, TextModel } from './text.ts'

/** What a session is made of; all sessions of a model share it. */
export interface SessionContext extends TextStateContext {
  readonly text: TextModel
  readonly vocabSize: number
  readonly eosTokenIds: readonly number[]
  /** The sessions' calls are parts of their owner's, which may end when the model takes no new ones. */
  readonly isOwned?: boolean
  /** Of the model, for saved sessions. */
  readonly fingerprint: Uint8Array
}

/** Of `mamba.session` and `mamba.restore`. */
export interface SessionOptions {
  /** States to go back to (`rewind`). By default there are none: each costs as much memory as the session. */
  readonly checkpoints?: CheckpointOptions | undefined
}

/** Of `append`: a signal, and who hears of the progress. */
export type AppendOptions = ReadOptions

/** Of a session's `forward`. */
export interface ForwardOptions extends AppendOptions {
  /** Logits of every token, not of the last alone. Default false. */
  readonly allLogits?: boolean | undefined
}

/** Calls on one session run in the order in which they were made. */
export class Session {
  readonly #context: SessionContext
  readonly #lock = createLock()
  /** Replaced once in a fork, before its first call's turn. */
  #state: TextState
  /** Tokens of the text, in a fork whose turn to copy it has not come. */
  #positionAtFork: number | null = null
  /** Generations in pieces that have begun and not ended. */
  readonly #open = new Set<AsyncGenerator<GenerateChunk, void, undefined>>()
  #isDisposed = false

  /** Not for users: `mamba.session()`, `mamba.restore()` and `session.fork()` make sessions. */
  constructor(context: SessionContext, { checkpoints }: SessionOptions = {}, from?: Session | TextState) {
    this.#context = context
    this.#state = from instanceof TextState ? from : new TextState(context, checkpoints)
    if (from instanceof Session) this.#copyFrom(from)
  }

  /** Tokens of the text so far. */
  get position(): number {
    return this.#positionAtFork ?? this.#state.position
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
      this.#state.add(ids)
      if (!defer) await this.#read(options, { count: this.#state.nPending - 1, logits: 'none' })
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
  async forward(ids: Prompt, options: ForwardOptions = {}): Promise<Float32Array> {
    const { text } = this.#context
    const checked = text.check(ids)
    return this.#locked(async () => {
      const { forwardText } = await import('./forward-text.ts')
      return forwardText(this.#state, text.toIds(checked, this.position === 0), options)
    })
  }

  /**
   * Takes the last `nTokens` tokens of the text back: what comes next is as if they had never been there. The next call reads again what lies between
   * the checkpoint and the new end, a token at least. Possible as far as the session's checkpoints reach, and over tokens not read yet;
   * RangeError beyond that.
   */
  async rewind(nTokens: number): Promise<void> {
    await this.#locked(async () => (await import('./kept-states.ts')).rewind(this.#state, nTokens))
  }

  /**
   * The session as bytes, for `mamba.restore` in any process and runtime: its state, and what else decides how the text goes on. A few MB, constant but
   * for attention layers, whose keys and values grow with the text. Checkpoints stay behind.
   * `precision` 'f16' and 'q8' take a half and a quarter of the bytes, and the text then goes on nearly as it would have.
   * RangeError where a value of the state is beyond the range of halves.
   */
  async save(options: SaveOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    return this.#locked(async () => (await import('./saved-text.ts')).saveText(this.#state, this.#context, options))
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
      await this.#state.release()
    })
  }

  /** `dispose`, at the end of an `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  /** Both locks are asked for now: the copy comes after the parent's calls so far and before the child's first. */
  #copyFrom(parent: Session): void {
    // What is known now, so that the position can be asked for.
    this.#positionAtFork = parent.position
    const parentTurn = parent.#lock.acquire()
    void this.#lock.run(async () => {
      const release = await parentTurn
      try {
        parent.#checkInUse()
        this.#state = await parent.#state.fork()
      } catch {
        // Nobody awaits a fork: the child's own calls say that it is disposed.
        this.#isDisposed = true
      } finally {
        this.#positionAtFork = null
        release()
      }
    })
  }

  async *#generate(plan: GenerationPlan, watch?: { onStart(): void; onEnd(): void }): AsyncGenerator<GenerateChunk, void, undefined> {
    const leave = this.#context.engine.admit()
    const release = await this.#lock.acquire()
    let isSound = true
    let speculator: Speculator | null = null
    watch?.onStart()
    try {
      this.#checkInUse()
      if (plan.maxTokens > 0 && this.position === 0) {
        throw new RangeError(messageOf({ place: 'session', expected: 'at least one token to go on from', got: 'none' }))
      }
      const { engine, text, eosTokenIds } = this.#context
      // The last token is given out, not read.
      const room = engine.maxLength - this.position + 1
      if (plan.options.maxTokens !== undefined && plan.maxTokens > room) {
        const expected = `at most ${room} after ${this.position} tokens, as the option contextLength of load allows (${engine.maxLength})`
        throw new RangeError(messageOf({ place: 'maxTokens', expected, got: `${plan.maxTokens}` }))
      }
      const limited = { ...plan, maxTokens: Math.min(plan.maxTokens, Math.max(1, room)) }
      engine.checkLength(this.position + Math.max(0, limited.maxTokens - 1))
      plan.sampler.observe([...this.#state.seen.keys()])
      let logits: Float32Array | undefined
      let best: Best | undefined
      const taker: Omit<Reading, 'count'> = {
        logits: 'last',
        onLogits: (values) => (logits ??= values.slice()).set(values),
        onBest: plan.isGreedy ? (found) => (best = found) : undefined
      }
      speculator = plan.speculation && (await import('./speculation.ts')).createSpeculator(engine, this.#state.knownIds(), plan.speculation)
      const next = async ({ goesOn, ...options }: NextOptions): Promise<Float32Array | Best> => {
        if (this.#state.nPending === 0 && this.#state.lastLogits !== null) return this.#state.lastLogits
        const speculated = speculator && (await speculator.nextLogits((await import('./kept-states.ts')).speculative(this.#state), options))
        if (speculated) return speculated
        best = undefined
        await this.#read(options, { ...taker, count: this.#state.nPending, goesOn: goesOn && speculator === null })
        // None where they were refused the last time: they are again.
        return best ?? logits ?? { id: 0, logit: NaN }
      }
      const push = (id: number): void => {
        this.#state.add(Int32Array.of(id))
        speculator?.push(id)
      }
      yield* generateTokens({ eosTokenIds, nPending: this.#state.nPending, next, push, speculationUsage: () => speculator?.usage ?? null }, text, limited)
    } catch (error) {
      isSound = false
      throw error
    } finally {
      // An engine that was disposed meanwhile has no state to give, and needs none kept.
      if (isSound && this.#context.prefixCache !== null) await (await import('./kept-states.ts')).remember(this.#state).catch(() => {})
      await speculator?.end()
      watch?.onEnd()
      release()
      leave()
    }
  }

  async #read({ signal, onProgress }: ReadOptions, reading: Reading): Promise<void> {
    if (reading.count <= 0) return
    const whole = { ...reading, signal, onProgress }
    await (this.#state.keepsStates ? (await import('./kept-states.ts')).readAndKeep(this.#state, whole) : this.#state.read(whole))
  }

  async #locked<T>(task: () => Promise<T>): Promise<T> {
    const { engine, isOwned } = this.#context
    const inTurn = (): Promise<T> =>
      this.#lock.run(async () => {
        this.#checkInUse()
        return task()
      })
    return isOwned ? engine.counted(inTurn) : engine.call(inTurn)
  }

  #checkInUse(): void {
    if (this.#isDisposed) throw new TypeError(messageOf({ place: 'session', expected: 'a session in use', got: 'one that was disposed' }))
  }
}
