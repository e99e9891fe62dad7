/**
 * Conversations whose history is a state, not a text that is read again.
 *
 * Each turn renders the whole conversation with the model's template and compares its tokens with those that the state has read: where
 * these are its beginning, as they are with most templates, only the rest is read. Templates that write an earlier reply otherwise than it was
 * generated (without its reasoning, trimmed) go on from the end of the last question, where a fork is kept; and if that is changed as well, from
 * the start. What came of it is `chat.reading`.
 */

import { type ChatMessage, compileChatTemplate, type ChatTemplateOptions, type RenderChat } from './chat-template.ts'
import { messageOf } from './errors.ts'
import { type Finish, type GenerateChunk, type GenerateOptions, perSecond } from './generate.ts'
import { createLock } from './lock.ts'
import { Session, type SessionContext } from './session.ts'

/** How the last prompt came into the state. */
export interface ChatReading {
  /** Tokens of the prompt that the state had already. */
  readonly keptTokens: number
  /** Tokens of the prompt that had to be read. */
  readonly readTokens: number
  readonly reason: string
}

/** A session and all tokens of its text. */
interface State {
  readonly session: Session
  readonly ids: Int32Array
}

interface Prompt {
  readonly ids: Int32Array
  /** Tokens up to the end of the last message, before the words that open the reply. */
  readonly nTurn: number
}

/** What is behind a chat (chat.ts), which checks what it is given and loads this at the first message. */
export class Conversation {
  readonly #context: SessionContext
  readonly #lock = createLock()
  readonly #template: ChatTemplateOptions
  #render: RenderChat | undefined
  #messages: readonly ChatMessage[]
  /** After the last reply. */
  #live: State | null = null
  /** After the last question. */
  #turn: State | null = null
  #reading: ChatReading | null = null
  /** Those of the two states, and one that generates. */
  readonly #sessions = new Set<Session>()
  /** The reply in pieces that has begun and not ended. */
  #current: AsyncGenerator<GenerateChunk, void, undefined> | null = null
  #isDisposed = false

  constructor(context: SessionContext, template: ChatTemplateOptions, messages: readonly ChatMessage[]) {
    this.#context = context
    this.#template = template
    this.#messages = messages
  }

  get messages(): readonly ChatMessage[] {
    return this.#messages
  }

  get reading(): ChatReading | null {
    return this.#reading
  }

  async dispose(): Promise<void> {
    this.#isDisposed = true
    await this.#current?.return()
    await this.#lock.run(async () => {
      this.#live = null
      this.#turn = null
      await this.#dropOthers()
    })
  }

  /** A reply to the messages with those added. `chunks`: what the caller has of it, if it has it in pieces. */
  async *send(added: readonly ChatMessage[], options: GenerateOptions, chunks: AsyncGenerator<GenerateChunk, void, undefined> | null): AsyncGenerator<GenerateChunk, void, undefined> {
    const release = await this.#lock.acquire()
    this.#current = chunks
    try {
      if (this.#isDisposed) throw new TypeError(messageOf({ place: 'chat', expected: 'a chat in use', got: 'one that was disposed' }))
      const history = [...this.#messages, ...added]
      const prompt = await this.#promptOf(history)
      const startMs = performance.now()
      const { session, onProgress } = await this.#read(prompt, options)
      yield* this.#reply({ session, prompt, history, readMs: performance.now() - startMs, options: { ...options, onProgress } })
    } finally {
      this.#current = null
      release()
    }
  }

  async #promptOf(history: readonly ChatMessage[]): Promise<Prompt> {
    const render = (this.#render ??= await compileChatTemplate(this.#template))
    const idsOf = (addGenerationPrompt: boolean): Int32Array => this.#context.text.toIds(render(history, { addGenerationPrompt }), false)
    const ids = idsOf(true)
    try {
      return { ids, nTurn: commonLength(ids, idsOf(false)) }
    } catch {
      // A template may refuse a conversation that ends with a question: the fork then stands behind the opening words.
      return { ids, nTurn: ids.length }
    }
  }

  /** Brings a session to the end of the prompt, the words that open the reply still pending, and keeps a fork of the state before them. */
  async #read({ ids, nTurn }: Prompt, { signal, onProgress }: GenerateOptions): Promise<Pick<GenerateOptions, 'onProgress'> & { readonly session: Session }> {
    const state = [this.#live, this.#turn].find((found) => found !== null && isStart(found, ids)) ?? null
    const session = state?.session ?? this.#adopt(new Session(this.#context))
    const nKept = state?.ids.length ?? 0
    const nFork = Math.max(nKept, nTurn)
    this.#reading = { keptTokens: nKept, readTokens: ids.length - nKept, reason: this.#reasonFor(state) }
    // Tokens given to a session belong to it, even if reading them is stopped.
    this.#live = { session, ids: ids.subarray(0, nFork) }
    // The fork behind the question before stays until there is a new one: another question may be asked instead.
    if (state === this.#turn) this.#turn = null
    await this.#dropOthers()
    const total = ids.length - nKept
    await session.append(ids.subarray(nKept, nFork), { signal, onProgress: progressFrom(0, total, onProgress) })
    this.#turn = { session: this.#adopt(session.fork()), ids: ids.subarray(0, nFork) }
    await this.#dropOthers()
    this.#live = null
    await session.append(ids.subarray(nFork), { defer: true })
    return { session, onProgress: progressFrom(nFork - nKept, total, onProgress) }
  }

  #reasonFor(state: State | null): string {
    if (this.#live === null && this.#turn === null) return 'nothing was read before'
    if (state === null) return 'the template writes the earlier conversation otherwise than it was read: all is read again'
    if (state === this.#live) return 'the state has read the whole conversation'
    return this.#live === null ? 'the last reply was left: it is read again' : 'the template writes the last reply otherwise than it was generated: it is read again'
  }

  async *#reply({ session, prompt, history, readMs, options }: {
    readonly session: Session
    readonly prompt: Prompt
    readonly history: readonly ChatMessage[]
    readonly readMs: number
    readonly options: GenerateOptions
  }): AsyncGenerator<GenerateChunk, void, undefined> {
    let content = ''
    let hasBegun = false
    const ids = [...prompt.ids]
    let finish: Finish | null = null
    try {
      for await (const chunk of session.generate(options)) {
        hasBegun = true
        content += chunk.text
        for (const id of chunk.ids) ids.push(id)
        finish = chunk.finish && withPrompt(chunk.finish, this.#reading?.readTokens ?? 0, readMs)
        if (finish !== null && finish.eos !== null) ids.push(finish.eos)
        yield { ...chunk, finish }
      }
    } finally {
      if (hasBegun) this.#messages = [...history, { role: 'assistant', content }]
      if (finish !== null) this.#live = { session, ids: Int32Array.from(ids) }
      // Tokens that have not come out are not known here: the fork goes on from the question.
      else await this.#drop(session)
    }
  }

  #adopt(session: Session): Session {
    this.#sessions.add(session)
    return session
  }

  async #drop(session: Session): Promise<void> {
    this.#sessions.delete(session)
    await session.dispose()
  }

  /** Gives back what is none of the two states. */
  async #dropOthers(): Promise<void> {
    const kept = [this.#live?.session, this.#turn?.session]
    await Promise.all([...this.#sessions].filter((session) => !kept.includes(session)).map(async (session) => this.#drop(session)))
  }
}

/** A session's progress as that of the whole reading, of which `first` tokens came before. */
function progressFrom(first: number, totalTokens: number, onProgress: GenerateOptions['onProgress']): GenerateOptions['onProgress'] {
  return onProgress && (({ doneTokens }) => onProgress({ doneTokens: Math.min(first + doneTokens, totalTokens), totalTokens }))
}

/** The last piece with the reading that came before the session's own. */
function withPrompt(finish: Finish, promptTokens: number, readMs: number): Finish {
  const promptMs = finish.timings.promptMs + readMs
  return {
    ...finish,
    usage: { ...finish.usage, promptTokens },
    timings: { ...finish.timings, promptMs, promptTokensPerSecond: perSecond(promptTokens, promptMs) }
  }
}

/** Whether a state's text is the start of `ids`, and the state is what it was taken for. */
function isStart({ session, ids: read }: State, ids: Int32Array): boolean {
  return session.position === read.length && commonLength(read, ids) === read.length
}

function commonLength(a: Int32Array, b: Int32Array): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return i
  return length
}
