/** The library's face: a loaded model and what it does. */

import type { BackendInfo } from './backend/backend.ts'
import type { Chat, ChatOptions } from './chat.ts'
import type { ChatMessage } from './chat-template.ts'
import { createEngine, type Engine, type EngineStats } from './engine.ts'
import { checkInteger, messageOf, UnsupportedError } from './errors.ts'
import { collect, type Completion, type GenerateChunk, type GenerateOptions, planGeneration } from './generate.ts'
import { type EngineOptions, loadFrom } from './load.ts'
import type { ModelConfig } from './model/architectures.ts'
import type { LoadedTokenizer } from './load-tokenizer.ts'
import type { Score, ScoreOptions } from './score.ts'
import { type ForwardOptions, Session, type SessionContext, type SessionOptions } from './session.ts'
import type { PrefixCache, PrefixCacheMetrics } from './state/prefix-cache.ts'
import { hexOf } from './state/hash.ts'
import type { Snapshot } from './state/snapshot.ts'
import { type ModelSource, resolveSource, type SourceOptions } from './source.ts'
import { createTextModel, type Prompt, type TextModel } from './text.ts'

/** How much the prefix cache may keep. */
export interface PrefixCacheOptions {
  /** Of the states kept. */
  readonly maxBytes: number
}

/** Of `Mamba.load`: where the files come from, and what runs them. All of it may be left out. */
export type LoadOptions = EngineOptions & Omit<SourceOptions, 'onProgress' | 'signal'> & {
  /** Keeps states of texts that were read, so that a text that begins like one of them starts there. The tokens are the same. By default nothing is kept. */
  readonly prefixCache?: PrefixCacheOptions | undefined
}

/** A loaded model. Calls from anywhere at once are fine: up to `maxBatch` of them run together, the others take turns with them. */
export class Mamba {
  /** The checkpoint's config, in this library's terms. */
  readonly config: ModelConfig
  readonly #context: SessionContext
  readonly #text: TextModel
  readonly #engine: Engine
  /** Files that the cache of downloads had no room for, and what it said: they were read from their server, and will be the next time. */
  readonly notKept: ReadonlyMap<string, string>
  /** null without a tokenizer. */
  readonly #startChat: LoadedTokenizer['startChat'] | null

  private constructor(config: ModelConfig, context: SessionContext, { startChat, notKept }: { readonly startChat: LoadedTokenizer['startChat'] | null; readonly notKept: ReadonlyMap<string, string> }) {
    this.config = config
    this.notKept = notKept
    this.#engine = context.engine
    this.#text = context.text
    this.#startChat = startChat
    this.#context = context
  }

  /**
   * Loads a model. Without a source: the embedded one.
   * CheckpointError for files that are damaged or incomplete, UnsupportedError for what is not built, RangeError for a model beyond
   * wasm's 4 GiB, the signal's reason when aborted.
   */
  static async load(source?: ModelSource, options: LoadOptions = {}): Promise<Mamba> {
    if (Object.keys(options).length > 0) (await import('./engine-options.ts')).checkEngineOptions(options)
    if (options.prefixCache !== undefined) checkInteger('prefixCache.maxBytes', options.prefixCache.maxBytes, 1)
    options.signal?.throwIfAborted()
    const notKept = new Map<string, string>()
    const files = await resolveSource(source, {
      ...options,
      onProgress(progress) {
        if (progress.notKept !== undefined) notKept.set(progress.file, progress.notKept)
        options.onProgress?.({ phase: 'download', ...progress })
      }
    })
    const { config, backend, metadata, fingerprint } = await loadFrom(files, options)
    try {
      const { loadTokenizer, readGenerationEos } = await import('./load-tokenizer.ts')
      const loaded = await loadTokenizer(files, metadata, options.signal)
      const generationEos = await readGenerationEos(files, metadata, options.signal)
      const engine = createEngine(backend, options)
      const prefixCache = options.prefixCache ? await prefixCacheFor(engine, options.prefixCache) : null
      const { vocabSize } = config
      const eosTokenIds = [...new Set([...config.eosTokenIds, ...generationEos])]
      const text = createTextModel(loaded?.tokenizer ?? null, vocabSize, files.name)
      return new Mamba({ ...config, eosTokenIds }, { engine, text, vocabSize, eosTokenIds, fingerprint, prefixCache }, { startChat: loaded?.startChat ?? null, notKept })
    } catch (error) {
      await backend.dispose()
      throw error
    }
  }

  /** What runs, and why: backend, build, threads, memory. */
  get backend(): BackendInfo {
    return this.#engine.backend.info
  }

  /** How busy it is: calls, sequences, forwards and how many sequences they had. */
  get stats(): EngineStats {
    return this.#engine.stats
  }

  /** What saved sessions belong to, 32 hexadecimal digits: the config, the weights as stored, and the formats and the arithmetic they run in. */
  get fingerprint(): string {
    return hexOf(this.#context.fingerprint)
  }

  /** What the prefix cache holds and what it saved; null in a model loaded without one. */
  get prefixCache(): PrefixCacheMetrics | null {
    return this.#context.prefixCache?.metrics ?? null
  }

  /** Whether text can be given and comes out; otherwise token ids alone. */
  get hasTokenizer(): boolean {
    return this.#text.tokenizer !== null
  }

  /**
   * Goes on from a prompt, in pieces of whole characters. The prompt must have a token.
   * Defaults: maxTokens 256, temperature 0.8, topP 0.95; a drawn seed, told in the last piece.
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<GenerateChunk, void, undefined> {
    planGeneration(options, this.#text, this.config.vocabSize)
    return this.#generate(this.#text.check(prompt), options)
  }

  /** `generate`, all in one: the completion alone, without the prompt. */
  async complete(prompt: Prompt, options: GenerateOptions = {}): Promise<Completion> {
    const chunks = this.generate(prompt, options)
    return this.#engine.operation(() => collect(chunks))
  }

  /** Ids of a text, with the special tokens that open one. UnsupportedError without a tokenizer. */
  tokenize(text: string): Int32Array {
    return this.#text.toIds(text, true)
  }

  /** Text of ids. UnsupportedError without a tokenizer. */
  detokenize(ids: ArrayLike<number>): string {
    return this.#text.toText(ids)
  }

  /** How well the model predicts a text: log probabilities of its tokens, perplexity, bits per byte. */
  async score(prompt: Prompt, options: ScoreOptions = {}): Promise<Score> {
    const ids = this.#text.toIds(prompt, true)
    // Nothing predicts the first token.
    const nBytes = this.#text.tokenizer?.byteLength(ids.subarray(1)) ?? null
    return this.#engine.call(async () => (await import('./score.ts')).scoreTokens(this.#engine, ids, nBytes, options))
  }

  /**
   * Logits of `ids` (nTokens): of the last, (1, vocabSize), or of all, (nTokens, vocabSize), row-major, the caller's own.
   * From a fresh state, or after a session's text, to which the ids then belong.
   */
  async forward(ids: Prompt, { session, ...options }: ForwardOptions & { readonly session?: Session | undefined } = {}): Promise<Float32Array> {
    if (session !== undefined) return session.forward(ids, options)
    const fresh = this.session()
    try {
      return await fresh.forward(ids, options)
    } finally {
      await fresh.dispose()
    }
  }

  /** A new text with a fresh state. RangeError for checkpoints out of range. */
  session(options: SessionOptions = {}): Session {
    return new Session(this.#context, options)
  }

  /**
   * A session from the bytes of `session.save()`, of this model in any process and runtime: its text goes on as if it had never left.
   * CheckpointError for bytes that are no saved session, of another version or model, cut short or changed; RangeError for a text longer than this
   * engine has room for.
   */
  async restore(bytes: Uint8Array, options: SessionOptions = {}): Promise<Session> {
    return this.#engine.operation(async () => {
      const { restoreText } = await import('./saved-text.ts')
      return new Session(this.#context, options, restoreText(bytes, this.#context, options.checkpoints))
    })
  }

  /**
   * A conversation, by the model's chat template; its history is a state. `chat.send(text)` streams a reply, and so does iterating over the chat
   * itself: the reply to `messages`. Beside the model's end-of-text tokens, the tokenizer's ends a reply.
   * Text in messages that reads as a special token becomes that token, as in transformers.
   * UnsupportedError without a tokenizer or a template, TypeError for what are no messages.
   */
  chat(messages: readonly ChatMessage[] = [], options: ChatOptions = {}): Chat {
    const eos = this.#text.tokenizer?.specialTokens.eos
    if (this.#startChat === null) throw new UnsupportedError({ place: 'chat', expected: 'a model with a tokenizer', got: 'a model without one' })
    const eosTokenIds = eos === undefined ? this.#context.eosTokenIds : [...this.#context.eosTokenIds, eos]
    return this.#startChat({ ...this.#context, eosTokenIds }, messages, options)
  }

  /** Gives the memory back, after the calls under way; a generation that nobody is asking for its next piece is not. Calls after it are a TypeError. */
  async dispose(): Promise<void> {
    await this.#engine.dispose()
    this.#context.prefixCache?.clear()
  }

  /** `dispose`, at the end of an `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  async *#generate(prompt: Prompt, options: GenerateOptions): AsyncGenerator<GenerateChunk, void, undefined> {
    const session = this.session()
    try {
      await session.append(prompt, { defer: true })
      if (session.position === 0) throw new RangeError(messageOf({ place: 'prompt', expected: 'at least one token', got: 'none' }))
      yield* session.generate(options)
    } finally {
      await session.dispose()
    }
  }
}

async function prefixCacheFor({ snapshots }: Engine, options: PrefixCacheOptions): Promise<PrefixCache<Snapshot>> {
  const { createPrefixCache } = await import('./state/prefix-cache.ts')
  return createPrefixCache<Snapshot>({ ...options, letGo: (snapshot) => snapshots.release(snapshot) })
}
