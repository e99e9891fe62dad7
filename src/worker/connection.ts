/** The page's end of the port. */

import { EngineError } from '../errors.ts'
import type { EngineOptions, StartEngine } from './host.ts'
import { type CallOptions, detach, type OpenCall, openCall, sendable } from './open-call.ts'
import { buffersOf, type Call, type FromEngine, type Told, type ToEngine } from './protocol.ts'

/** An object in the worker. */
export interface Target {
  readonly handle: number
  /** What it is, for messages. */
  readonly place: string
  /** Its properties, as last told. */
  readonly told: Record<string, unknown>
}

export interface Invocation {
  readonly target: Target
  readonly method: string
  /** The last of them may be options with `signal` and `onProgress`. */
  readonly args: readonly unknown[]
}

export interface PieceOptions {
  /** Pieces asked for before the loop comes for them. With 1 the engine stands still in between. */
  readonly nAhead: number
  /** Is not collected, and so not disposed, before the end. */
  readonly holder: object
}

export interface Connection {
  target(place: string, told?: Told): Target
  /** The method's answer; where it makes an object, that is `made` from then on. */
  call(invocation: Invocation, made?: Target): Promise<unknown>
  /** For a method that makes its object at once: `made` may be called at once, and its calls say why where it is not there. */
  make(invocation: Invocation, made: Target): void
  /** An async generator's pieces. It begins when the first one is asked for, as the engine's own does, with the arguments as they are now. */
  pieces(invocation: Invocation, options: PieceOptions): AsyncGenerator<unknown, void, undefined>
  /** Disposes the object in the worker when nothing refers to its stand-in any more. */
  watch(standIn: object, target: Target): void
  /** Ends the worker when nothing refers to this any more. */
  endWith(standIn: object): void
  /** Ends the worker: calls under way and later ones are rejected. */
  close(reason: Error): Promise<void>
}

/** Starts a worker and talks to it. Throws an UnsupportedError where there are none. */
export function openConnection(startEngine: StartEngine, options: EngineOptions): Connection {
  const open = new Map<number, OpenCall>()
  let nCalls = 0
  let nTargets = 0
  let nWaiting = 0
  let failure: Error | null = null

  const fail = (error: Error): void => {
    failure ??= error
    for (const call of open.values()) call.reject(failure)
  }
  const host = startEngine((got) => fail(new EngineError({ place: 'worker', expected: 'an engine at work', got })), options)
  const send = (message: ToEngine, transfer: ArrayBuffer[] = []): void => {
    if (failure === null) host.port.postMessage(message, transfer)
  }
  host.port.addEventListener('message', ({ data }: MessageEvent<FromEngine>) => open.get(data.id)?.receive(data))
  host.port.addEventListener('messageerror', () => fail(new EngineError({ place: 'worker', expected: 'messages that can be read', got: 'another' })))
  host.port.start()

  interface Beginning extends Omit<Invocation, 'args'>, CallOptions {
    readonly made?: Target | undefined
    readonly onPiece?: (piece: unknown) => void
  }
  const begin = ({ target, method, args, made, signal, onProgress, onPiece }: Beginning): { readonly id: number; readonly ended: Promise<unknown> } => {
    if (failure !== null) throw failure
    const id = nCalls++
    const message: Call = {
      kind: 'call', id, handle: target.handle, place: target.place, method, args, makes: made?.handle ?? null,
      signal: signal === undefined ? 'none' : signal.aborted ? 'aborted' : 'given',
      hasProgress: onProgress !== undefined,
      answers: onPiece === undefined ? 'value' : 'pieces'
    }
    sendable(method, () => send(message, args.flatMap(buffersOf)))
    const call = openCall({ told: (made ?? target).told, signal, onProgress, onPiece, abort: () => send({ kind: 'abort', id }), onEnd: () => open.delete(id) })
    open.set(id, call)
    return { id, ended: call.ended }
  }
  /** Keeps a process alive as long as somebody waits. */
  const waitFor = async <T>(promise: Promise<T>): Promise<T> => {
    if (nWaiting++ === 0) host.hold(true)
    try {
      return await promise
    } finally {
      if (--nWaiting === 0) host.hold(false)
    }
  }

  const dropped = new FinalizationRegistry<number>((handle) => send({ kind: 'drop', handle }))
  const forgotten = new FinalizationRegistry<null>(() => void host.end())
  /** Of generations under way. Weak: one that nobody can go on with keeps nothing. */
  const kept = new WeakSet<object>()

  async function* read(beginning: Beginning, { nAhead, holder }: PieceOptions): AsyncGenerator<unknown, void, undefined> {
    const arrived: unknown[] = []
    const progress = { isEnded: false }
    let wake = (): void => {}
    const { id, ended } = begin({
      ...beginning,
      onPiece(piece) {
        arrived.push(piece)
        wake()
      }
    })
    const noticed = ended.catch(() => {}).then(() => {
      progress.isEnded = true
      wake()
    })
    const next = async (): Promise<void> => {
      while (arrived.length === 0 && !progress.isEnded) await new Promise<void>((resolve) => (wake = resolve))
    }
    kept.add(holder)
    try {
      for (let i = 0; i < nAhead; i++) send({ kind: 'pull', id })
      for (;;) {
        await waitFor(next())
        if (arrived.length === 0) return void (await ended)
        yield arrived.shift()
        beginning.signal?.throwIfAborted()
        send({ kind: 'pull', id })
      }
    } finally {
      if (!progress.isEnded) send({ kind: 'leave', id })
      await waitFor(noticed)
      kept.delete(holder)
    }
  }

  return {
    target: (place, told = {}) => ({ handle: ++nTargets, place, told: { ...told } }),
    call: async ({ args, ...invocation }, made) => waitFor(begin({ ...invocation, ...detach(args), made }).ended),
    make({ args, ...invocation }, made) {
      if (failure !== null) return
      // Nobody waits for it.
      begin({ ...invocation, ...detach(args), made }).ended.catch(() => {})
    },
    pieces({ args, ...invocation }, options) {
      const beginning = { ...invocation, ...detach(args) }
      return read({ ...beginning, args: sendable(invocation.method, () => structuredClone(beginning.args)) }, options)
    },
    watch: (standIn, { handle }) => dropped.register(standIn, handle),
    endWith: (standIn) => forgotten.register(standIn, null),
    async close(reason) {
      fail(reason)
      await host.end()
    }
  }
}
