/** Conversations: the face of them. What is behind it (conversation.ts) is loaded at the first message. */

import type { ChatMessage, ChatTemplateOptions } from './chat-template.ts'
import type { ChatReading, Conversation } from './conversation.ts'
import { describe, messageOf } from './errors.ts'
import { collect, type Completion, type GenerateChunk, type GenerateOptions, planGeneration } from './generate.ts'
import type { SessionContext } from './session.ts'
import { type ChatTemplates, chooseChatTemplate } from './tokenizer/chat-template-choice.ts'

/** Those of `generate` are for every reply; `send` may give others. */
export interface ChatOptions extends GenerateOptions {
  /** A Jinja template in place of the checkpoint's, or the name of one of the checkpoint's where it has several. */
  readonly chatTemplate?: string | undefined
  /** Further variables of the template, such as `enable_thinking` or `tools`. */
  readonly templateVariables?: Readonly<Record<string, unknown>> | undefined
}

/** Calls run in the order in which they were made. */
export class Chat {
  readonly #context: SessionContext
  readonly #options: GenerateOptions
  readonly #template: ChatTemplateOptions
  /** Before the first message. */
  readonly #messages: readonly ChatMessage[]
  #loading: Promise<Conversation> | undefined
  #conversation: Conversation | null = null
  #isDisposed = false

  /** Not for users: `mamba.chat()` makes chats. */
  constructor(context: SessionContext, templates: ChatTemplates, { messages, options }: { readonly messages: readonly ChatMessage[]; readonly options: ChatOptions }) {
    const { chatTemplate, templateVariables = {}, ...generateOptions } = options
    planGeneration(generateOptions, context.text, context.vocabSize)
    const template = chooseChatTemplate(templates, chatTemplate)
    this.#template = { ...template, variables: { ...templates.specialTokens, ...structuredClone(templateVariables) }, now: new Date() }
    this.#context = { ...context, isOwned: true }
    this.#options = generateOptions
    this.#messages = checkMessages(messages)
  }

  /** The conversation so far. A reply belongs to it when it has ended, or with what it had given when it was left. */
  get messages(): readonly ChatMessage[] {
    return this.#conversation?.messages ?? this.#messages
  }

  /** What the last reply found in the state and what it had to read; null before the first. */
  get reading(): ChatReading | null {
    return this.#conversation?.reading ?? null
  }

  /**
   * Adds what the user says (or messages of any role; none asks for a reply to what stands there) and streams the reply.
   * In the last piece, `usage.promptTokens` counts the tokens that were read. As with a session's `generate`, calls made before the last
   * piece, or before the loop is left, wait. Where it throws before the first piece, the conversation is as before.
   * UnsupportedError where the template refuses the messages, CheckpointError where it fails.
   */
  send(message: string | ChatMessage | readonly ChatMessage[], options: GenerateOptions = {}): AsyncGenerator<GenerateChunk, void, undefined> {
    const chunks: AsyncGenerator<GenerateChunk, void, undefined> = this.#send(...this.#checked(message, options), () => chunks)
    return chunks
  }

  /** `send`, all in one. */
  async complete(message: string | ChatMessage | readonly ChatMessage[], options: GenerateOptions = {}): Promise<Completion> {
    const chunks = this.#send(...this.#checked(message, options))
    return this.#context.engine.operation(async () => collect(chunks))
  }

  /** A reply to the messages as they stand. */
  [Symbol.asyncIterator](): AsyncGenerator<GenerateChunk, void, undefined> {
    return this.send([])
  }

  /** Gives the memory back, after a `complete` under way; a reply in pieces ends with the piece under way. */
  async dispose(): Promise<void> {
    this.#isDisposed = true
    await (await this.#loading)?.dispose()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  #checked(message: string | ChatMessage | readonly ChatMessage[], options: GenerateOptions): [added: readonly ChatMessage[], options: GenerateOptions] {
    const added = checkMessages(typeof message === 'string' ? [{ role: 'user', content: message }] : message)
    const merged = { ...this.#options, ...options }
    planGeneration(merged, this.#context.text, this.#context.vocabSize)
    return [added, merged]
  }

  /** `chunks`: the reply itself, where the caller has it in pieces. */
  async *#send(added: readonly ChatMessage[], options: GenerateOptions, chunks?: () => AsyncGenerator<GenerateChunk, void, undefined>): AsyncGenerator<GenerateChunk, void, undefined> {
    if (this.#isDisposed) throw new TypeError(messageOf({ place: 'chat', expected: 'a chat in use', got: 'one that was disposed' }))
    this.#loading ??= this.#load()
    yield* (await this.#loading).send(added, options, chunks?.() ?? null)
  }

  async #load(): Promise<Conversation> {
    const { Conversation } = await import('./conversation.ts')
    this.#conversation = new Conversation(this.#context, this.#template, this.#messages)
    return this.#conversation
  }
}

/** Messages as they are now: later changes of theirs are not of the conversation. */
function checkMessages(messages: ChatMessage | readonly ChatMessage[]): readonly ChatMessage[] {
  const list: readonly unknown[] = isList(messages) ? messages : [messages]
  for (const [i, message] of list.entries()) {
    if (typeof message !== 'object' || message === null) throw new TypeError(messageOf({ place: `messages[${i}]`, expected: 'a role and a content', got: describe(message) }))
    for (const key of ['role', 'content']) {
      const value: unknown = Reflect.get(message, key)
      if (typeof value !== 'string') throw new TypeError(messageOf({ place: `messages[${i}].${key}`, expected: 'a string', got: describe(value) }))
    }
  }
  return structuredClone(isList(messages) ? messages : [messages])
}

function isList(messages: ChatMessage | readonly ChatMessage[]): messages is readonly ChatMessage[] {
  return Array.isArray(messages)
}
