/** The engine's end of the port: the library as it is, called by messages. */

import { Chat } from '../chat.ts'
import { messageOf } from '../errors.ts'
import { type LoadOptions, Mamba } from '../mamba.ts'
import { Session } from '../session.ts'
import type { ModelSource } from '../source.ts'
import { buffersOf, type Call, type FromEngine, isPlain, LIBRARY, pack, type Told, type ToEngine } from './protocol.ts'

/** What is under a handle. */
interface Entry {
  readonly object: object
  /** Why there is no such object: its making threw. */
  readonly refusal: unknown
  /** What the page knows of its properties. */
  readonly told: Map<string, unknown>
}

interface OpenCall {
  readonly call: Call
  readonly controller: AbortController
  /** Of an answer in pieces. */
  pieces: AsyncGenerator<unknown, void, undefined> | null
}

/** Answers calls for as long as the port is open. */
export function serveEngine(port: MessagePort): void {
  const entries = new Map([[LIBRARY, entryOf({ load: (source?: ModelSource, options?: LoadOptions) => Mamba.load(source, options) })]])
  const open = new Map<number, OpenCall>()
  const send = (message: FromEngine, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer)

  const answer = ({ id, handle, makes }: Call, value?: unknown): void => {
    open.delete(id)
    send({ kind: 'answer', id, value: pack(value), told: news(entries.get(makes ?? handle)) }, buffersOf(value))
  }
  const fail = ({ id, handle }: Call, error: unknown): void => {
    const { signal } = open.get(id)?.controller ?? {}
    open.delete(id)
    const isOwnAbort = signal?.aborted === true && error === signal.reason
    send({ kind: 'failure', id, error: isOwnAbort ? null : pack(error instanceof Error ? error : new Error(String(error))), told: news(entries.get(handle)) })
  }

  const begin = (call: Call): void => {
    const { id, handle, makes } = call
    const current: OpenCall = { call, controller: new AbortController(), pieces: null }
    open.set(id, current)
    if (call.signal === 'aborted') current.controller.abort()
    try {
      const result = invoke(entries.get(handle), call, {
        // What the receiver of the progress throws ends the call, too.
        ...((call.signal !== 'none' || call.hasProgress) && { signal: current.controller.signal }),
        ...(call.hasProgress && { onProgress: (value: unknown) => send({ kind: 'progress', id, value }) })
      })
      if (call.answers === 'pieces') current.pieces = result as AsyncGenerator<unknown, void, undefined>
      else if (makes === null || result instanceof Promise) void settle(call, result)
      else {
        // Made at once: the very next message may call it.
        entries.set(makes, entryOf(result))
        answer(call)
      }
    } catch (error) {
      if (makes !== null) entries.set(makes, entryOf(null, error))
      fail(call, error)
    }
  }
  const settle = async (call: Call, result: unknown): Promise<void> => {
    try {
      const value = await result
      if (call.makes !== null) entries.set(call.makes, entryOf(value))
      answer(call, call.makes === null ? value : undefined)
      if (call.method === 'dispose') entries.delete(call.handle)
    } catch (error) {
      fail(call, error)
    }
  }
  /** Pulls may be ahead of the pieces: the generator itself keeps them, and a leave behind them, in order. */
  const step = async ({ call }: OpenCall, next: Promise<IteratorResult<unknown, void>>): Promise<void> => {
    try {
      const { done, value } = await next
      // Behind the end, or an error, pulls find nothing.
      if (!open.has(call.id)) return
      if (done === true) answer(call)
      else send({ kind: 'piece', id: call.id, value, told: news(entries.get(call.handle)) })
    } catch (error) {
      fail(call, error)
    }
  }
  const drop = async (handle: number): Promise<void> => {
    const object = entries.get(handle)?.object
    entries.delete(handle)
    // Nobody is left to be told.
    if (object instanceof Session || object instanceof Chat) await object.dispose().catch(() => {})
  }

  port.addEventListener('message', ({ data: message }: MessageEvent<ToEngine>) => {
    if (message.kind === 'call') return begin(message)
    if (message.kind === 'drop') return void drop(message.handle)
    const current = open.get(message.id)
    if (message.kind === 'abort') current?.controller.abort()
    else if (current?.pieces) void step(current, message.kind === 'pull' ? current.pieces.next() : current.pieces.return())
  })
  port.start()
}

function entryOf(object: unknown, refusal: unknown = null): Entry {
  return { object: Object(object) as object, refusal, told: new Map() }
}

/** A method's result, or a property; `attached` goes into the options, the last argument. */
function invoke(entry: Entry | undefined, { place, method, args }: Call, attached: Readonly<Record<string, unknown>>): unknown {
  // What is gone may be disposed again, as on the object itself.
  if (method === 'dispose' && (entry === undefined || entry.refusal !== null)) return Promise.resolve()
  if (entry === undefined) throw new TypeError(messageOf({ place, expected: `a ${place} in use`, got: 'one that was disposed' }))
  if (entry.refusal !== null) throw entry.refusal
  const member: unknown = Reflect.get(entry.object, method)
  if (typeof member !== 'function') return Promise.resolve(member)
  const options = args.at(-1)
  const given = Object.keys(attached).length === 0 ? args : [...args.slice(0, -1), { ...(isPlain(options) ? options : {}), ...attached }]
  return Reflect.apply(member, entry.object, given)
}

/** What stand-ins know without asking, where it changed. */
function news(entry: Entry | undefined): Told {
  if (entry === undefined) return {}
  const changed = Object.entries(propertiesOf(entry.object)).filter(([name, value]) => !entry.told.has(name) || entry.told.get(name) !== value)
  for (const [name, value] of changed) entry.told.set(name, value)
  return Object.fromEntries(changed)
}

function propertiesOf(object: object): Told {
  if (object instanceof Session) return { position: object.position }
  if (object instanceof Chat) return { messages: object.messages, reading: object.reading }
  if (!(object instanceof Mamba)) return {}
  const { config, backend, fingerprint, hasTokenizer, notKept } = object
  return { config, backend, fingerprint, hasTokenizer, notKept }
}
