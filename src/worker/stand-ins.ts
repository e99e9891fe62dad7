/** The objects that a page has of a model in a worker: the same methods as the model's own, each a message. */

import type { Chat, ChatOptions } from '../chat.ts'
import { messageOf } from '../errors.ts'
import type { GenerateChunk } from '../generate.ts'
import type { Mamba } from '../mamba.ts'
import type { ForwardOptions, Session } from '../session.ts'
import type { Prompt } from '../text.ts'
import type { Connection, Invocation, Target } from './connection.ts'

/** Told with the answers, so that they can be read at once. */
type ToldProperty = 'config' | 'backend' | 'fingerprint' | 'hasTokenizer' | 'notKept' | 'position' | 'messages' | 'reading'

/**
 * A type as a worker has it. What the object itself answers at once is a promise here, so that `await mamba.tokenize(text)` and `await mamba.stats` fit
 * both; what it makes is again as a worker has it. A member that is added to the object is missing here until it is written.
 */
export type InWorker<T> = {
  readonly [K in keyof T]: K extends ToldProperty ? T[K] : T[K] extends (...args: infer Args) => infer Result ? (...args: Args) => Answer<Result> : Promise<T[K]>
}

type Answer<Result> = Result extends Session ? WorkerSession
  : Result extends Chat ? WorkerChat
  : Result extends Promise<Session> ? Promise<WorkerSession>
  : Result extends Promise<unknown> | AsyncGenerator<GenerateChunk, void, undefined> ? Result
  : Promise<Result>

/** `Session`, in a worker. Its position is that of the last answer. */
export type WorkerSession = InWorker<Session>
/** `Chat`, in a worker. */
export type WorkerChat = InWorker<Chat>
/** `Mamba`, in a worker. Options that the model's own methods refuse at once are refused by the first promise instead. */
export interface WorkerMamba extends Omit<InWorker<Mamba>, 'forward'> {
  forward(ids: Prompt, options?: ForwardOptions & { readonly session?: WorkerSession | undefined }): Promise<Float32Array>
}

type Chunks = AsyncGenerator<GenerateChunk, void, undefined>

/**
 * Pieces that the engine may be ahead where nobody can tell: of a text without a session. In a session a loop that is left early must leave the state
 * as it is after the piece it saw last.
 */
const AHEAD = 4

/** Typed where it is used: the members of `InWorker` say what each method answers. */
interface Calls<T> {
  readonly call: <R>(method: keyof T & string, ...args: readonly unknown[]) => Promise<R>
  readonly pieces: (holder: object, nAhead: number, method: keyof T & string, ...args: readonly unknown[]) => Chunks
  readonly invocation: (method: keyof T & string, ...args: readonly unknown[]) => Invocation
}

function callsOn<T>(connection: Connection, target: Target): Calls<T> {
  const invocation = (method: string, ...args: readonly unknown[]): Invocation => ({ target, method, args })
  return {
    invocation,
    // What comes is what the method of that name gives.
    call: async <R>(method: string, ...args: readonly unknown[]) => (await connection.call(invocation(method, ...args))) as R,
    pieces: (holder, nAhead, method, ...args) => connection.pieces(invocation(method, ...args), { nAhead, holder }) as Chunks
  }
}

export function standInForMamba(connection: Connection, target: Target): WorkerMamba {
  const told = target.told as Pick<Mamba, 'config' | 'backend' | 'fingerprint' | 'hasTokenizer' | 'notKept'>
  const { call, pieces, invocation } = callsOn<Mamba>(connection, target)
  let disposed: Promise<void> | undefined
  const dispose = async (): Promise<void> => {
    try {
      await call('dispose')
    } finally {
      await connection.close(new TypeError(messageOf({ place: 'mamba', expected: 'a model in use', got: 'one that was disposed' })))
    }
  }
  const mamba: WorkerMamba = {
    get config() {
      return told.config
    },
    get backend() {
      return told.backend
    },
    get fingerprint() {
      return told.fingerprint
    },
    get hasTokenizer() {
      return told.hasTokenizer
    },
    get notKept() {
      return told.notKept
    },
    get stats() {
      return call<Mamba['stats']>('stats')
    },
    get prefixCache() {
      return call<Mamba['prefixCache']>('prefixCache')
    },
    generate: (prompt, options = {}) => pieces(mamba, AHEAD, 'generate', prompt, options),
    complete: (prompt, options = {}) => call('complete', prompt, options),
    tokenize: (text) => call('tokenize', text),
    detokenize: (ids) => call('detokenize', ids),
    score: (prompt, options = {}) => call('score', prompt, options),
    forward: (ids, { session, ...options } = {}) => session?.forward(ids, options) ?? call('forward', ids, options),
    session(options = {}) {
      const made = connection.target('session', { position: 0 })
      connection.make(invocation('session', options), made)
      return standInForSession(connection, made, mamba)
    },
    async restore(bytes, options = {}) {
      const made = connection.target('session')
      await connection.call(invocation('restore', bytes, options), made)
      return standInForSession(connection, made, mamba)
    },
    chat(messages = [], options = {}) {
      const { signal, onProgress, ...sent } = options
      const made = connection.target('chat', { messages: structuredClone(messages), reading: null })
      connection.make(invocation('chat', messages, sent), made)
      return standInForChat(connection, made, { owner: mamba, options: { signal, onProgress } })
    },
    dispose() {
      disposed ??= dispose()
      return disposed
    },
    [Symbol.asyncDispose]: () => mamba.dispose()
  }
  connection.endWith(mamba)
  return mamba
}

/** Everything of a model refers to it, so that it is not taken for forgotten as long as a part of it is used. */
const owners = new WeakMap<object, object>()

function standInForSession(connection: Connection, target: Target, owner: object): WorkerSession {
  const told = target.told as Pick<Session, 'position'>
  const { call, pieces, invocation } = callsOn<Session>(connection, target)
  const session: WorkerSession = {
    get position() {
      return told.position
    },
    append: (prompt, options = {}) => call('append', prompt, options),
    generate: (options = {}) => pieces(session, 1, 'generate', options),
    complete: (options = {}) => call('complete', options),
    forward: (ids, options = {}) => call('forward', ids, options),
    rewind: (nTokens) => call('rewind', nTokens),
    save: (options = {}) => call('save', options),
    fork() {
      const made = connection.target('session', told)
      connection.make(invocation('fork'), made)
      return standInForSession(connection, made, owner)
    },
    dispose: () => call('dispose'),
    [Symbol.asyncDispose]: () => session.dispose()
  }
  owners.set(session, owner)
  connection.watch(session, target)
  return session
}

function standInForChat(connection: Connection, target: Target, { owner, options: forAll }: { readonly owner: object; readonly options: ChatOptions }): WorkerChat {
  const told = target.told as Pick<Chat, 'messages' | 'reading'>
  const { call, pieces } = callsOn<Chat>(connection, target)
  const chat: WorkerChat = {
    get messages() {
      return told.messages
    },
    get reading() {
      return told.reading
    },
    send: (message, options = {}) => pieces(chat, 1, 'send', message, { ...forAll, ...options }),
    complete: (message, options = {}) => call('complete', message, { ...forAll, ...options }),
    [Symbol.asyncIterator]: () => chat.send([]),
    dispose: () => call('dispose'),
    [Symbol.asyncDispose]: () => chat.dispose()
  }
  owners.set(chat, owner)
  connection.watch(chat, target)
  return chat
}
