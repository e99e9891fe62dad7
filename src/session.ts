/** A text under way: its state, of constant size, and what may be done with it. */

import type { Engine, RunOptions, Sequence } from './engine.ts'
import { messageOf } from './errors.ts'
import { collect, type Completion, type GenerateChunk, type GenerateOptions, generateTokens, type GenerationPlan, planGeneration } from './generate.ts'
import { createLock } from './lock.ts'
import type { Prompt, TextModel } from './text.ts'

/** What a session is made of; all sessions of a model share it. */
export interface SessionContext {
  readonly engine: Engine
  readonly text: TextModel
  readonly vocabSize: number
  readonly eosTokenIds: readonly number[]
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
  /** Tokens of the text that have not been read: the last one waits until its logits are wanted. */
  #pending = new Int32Array(0)
  /** Logits of the last token, where they are known and nothing is pending. Never changed: forks share them. */
  #lastLogits: Float32Array | null = null
  /** Ids seen, for the repetition penalty. */
  #seen = new Set<number>()
  /** Generations in pieces that have begun and not ended. */
  readonly #open = new Set<AsyncGenerator<GenerateChunk, void, undefined>>()
  #isDisposed = false

  /** Not for users: `mamba.session()` and `session.fork()` make sessions. */
  constructor(context: SessionContext, parent?: Session) {
    this.#context = context
    this.#sequence = context.engine.sequence()
    if (parent !== undefined) this.#copyFrom(parent)
  }

  /** Tokens of the text so far. */
  get position(): number {
    return this.#sequence.position + this.#pending.length
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
      if (!defer) await this.#read(this.#pending.length - 1, 'none', options)
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
      await this.#read(this.#pending.length, 'none', options)
      this.#add(tokens)
      await this.#read(tokens.length, allLogits ? 'all' : 'last', options, (logits, first) => result.set(logits, allLogits ? first * vocabSize : 0))
      this.#lastLogits = result.slice(-vocabSize)
      return result
    })
  }

  /** A session with the same text, at once; the two are independent from here on. */
  fork(): Session {
    return new Session(this.#context, this)
  }

  /** Gives the memory back, after the calls under way; generations in pieces end with the piece under way. */
  async dispose(): Promise<void> {
    await Promise.all([...this.#open].map((chunks) => chunks.return()))
    await this.#lock.run(async () => {
      if (this.#isDisposed) return
      this.#isDisposed = true
      await this.#context.engine.release(this.#sequence)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  /** Both locks are asked for now: the copy comes after the parent's calls so far and before the child's first. */
  #copyFrom(parent: Session): void {
    // What is known now, so that the position can be asked for.
    this.#sequence.position = parent.#sequence.position
    this.#pending = parent.#pending
    const parentTurn = parent.#lock.acquire()
    void this.#lock.run(async () => {
      const release = await parentTurn
      try {
        parent.#checkInUse()
        this.#sequence = await this.#context.engine.fork(parent.#sequence)
        this.#pending = parent.#pending
        this.#lastLogits = parent.#lastLogits
        this.#seen = new Set(parent.#seen)
      } catch {
        // Nobody awaits a fork: the child's own calls say that it is disposed.
        this.#isDisposed = true
      } finally {
        release()
      }
    })
  }

  async *#generate(plan: GenerationPlan, watch?: { onStart(): void; onEnd(): void }): AsyncGenerator<GenerateChunk, void, undefined> {
    const leave = this.#context.engine.admit()
    const release = await this.#lock.acquire()
    watch?.onStart()
    try {
      this.#checkInUse()
      if (plan.maxTokens > 0 && this.position === 0) {
        throw new RangeError(messageOf({ place: 'session', expected: 'at least one token to go on from', got: 'none' }))
      }
      const { engine, text, vocabSize, eosTokenIds } = this.#context
      // The last token is given out, not read.
      engine.checkLength(this.position + Math.max(0, plan.maxTokens - 1))
      plan.sampler.observe([...this.#seen])
      const logits = new Float32Array(vocabSize)
      const onLogits = (values: Float32Array): void => logits.set(values)
      const nextLogits = async (options: AppendOptions): Promise<Float32Array> => {
        if (this.#pending.length === 0 && this.#lastLogits !== null) return this.#lastLogits
        await this.#read(this.#pending.length, 'last', options, onLogits)
        return logits
      }
      yield* generateTokens({ eosTokenIds, nPending: this.#pending.length, nextLogits, push: (id) => this.#add(Int32Array.of(id)) }, text, plan)
    } finally {
      watch?.onEnd()
      release()
      leave()
    }
  }

  async #locked<T>(task: () => Promise<T>): Promise<T> {
    return this.#context.engine.call(() =>
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
    const pending = new Int32Array(this.#pending.length + ids.length)
    pending.set(this.#pending)
    pending.set(ids, this.#pending.length)
    this.#pending = pending
    this.#lastLogits = null
    for (const id of ids) this.#seen.add(id)
  }

  /** Reads the first `count` pending tokens. Whatever stops it, what was read is no longer pending. */
  async #read(count: number, logits: 'none' | 'last' | 'all', { signal, onProgress }: AppendOptions, onLogits?: RunOptions['onLogits']): Promise<void> {
    if (count <= 0) return
    const before = this.#sequence.position
    try {
      await this.#context.engine.run(this.#sequence, this.#pending.subarray(0, count), logits, { signal, onProgress, onLogits })
    } finally {
      this.#pending = this.#pending.subarray(this.#sequence.position - before)
    }
  }
}
