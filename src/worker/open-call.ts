/** A call under way, as the page sees it: its signal, its progress, its answer. */

import { UnsupportedError } from '../errors.ts'
import { type FromEngine, isPlain, packCopy, type Told, unpack } from './protocol.ts'

/** What a call takes over. */
export interface CallOptions {
  readonly args: readonly unknown[]
  readonly signal: AbortSignal | undefined
  readonly onProgress: ((progress: unknown) => void) | undefined
}

/** Takes `signal` and `onProgress` out of the options, the last argument: they stay on this side. */
export function detach(args: readonly unknown[]): CallOptions {
  const last = args.at(-1)
  if (!isPlain(last)) return { args: args.map(packCopy), signal: undefined, onProgress: undefined }
  const { signal, onProgress, ...options } = last as { signal?: AbortSignal; onProgress?: (progress: unknown) => void }
  return { args: [...args.slice(0, -1), options].map(packCopy), signal, onProgress }
}

/** What `task` returns; an UnsupportedError where something in a call's arguments does not go over a port. */
export function sendable<T>(method: string, task: () => T): T {
  try {
    return task()
  } catch (cause) {
    const got = cause instanceof Error ? cause.message : String(cause)
    throw new UnsupportedError({ place: method, expected: 'arguments that can be sent to a worker: data, and of functions onProgress alone', got }, { cause })
  }
}

export interface OpenCall {
  /** The value, or the end of the pieces. */
  readonly ended: Promise<unknown>
  receive(message: FromEngine): void
  reject(error: unknown): void
}

export interface OpenCallOptions extends Omit<CallOptions, 'args'> {
  /** The properties that the answers tell of. */
  readonly told: Record<string, unknown>
  readonly onPiece: ((piece: unknown) => void) | undefined
  /** Tells the engine. */
  readonly abort: () => void
  readonly onEnd: () => void
}

export function openCall({ told, signal, onProgress, onPiece, abort, onEnd }: OpenCallOptions): OpenCall {
  const { promise: ended, resolve, reject } = withResolvers<unknown>()
  /** What the receiver of the progress threw: as where it is called directly, that ends the call. */
  let thrown: { readonly reason: unknown } | null = null
  const end = (): void => {
    signal?.removeEventListener('abort', abort)
    onEnd()
  }
  const progress = (value: unknown): void => {
    if (thrown !== null) return
    try {
      onProgress?.(value)
    } catch (reason) {
      thrown = { reason }
      abort()
    }
  }
  const tell = (news: Told): void => {
    Object.assign(told, news)
  }
  signal?.addEventListener('abort', abort, { once: true })
  return {
    ended,
    receive(message) {
      if (message.kind === 'progress') return progress(message.value)
      tell(message.told)
      if (message.kind === 'piece') return onPiece?.(message.value)
      end()
      if (thrown !== null) reject(thrown.reason)
      else if (message.kind === 'answer') resolve(unpack(message.value))
      else reject(message.error === null ? signal?.reason : unpack(message.error))
    },
    reject(error) {
      end()
      reject(error)
    }
  }
}

/** Promise.withResolvers, which Node 20 has not. */
function withResolvers<T>(): { readonly promise: Promise<T>; readonly resolve: (value: T) => void; readonly reject: (reason: unknown) => void } {
  let settle: { resolve(value: T): void; reject(reason: unknown): void } | undefined
  const promise = new Promise<T>((resolve, reject) => {
    settle = { resolve, reject }
  })
  return { promise, resolve: (value) => settle?.resolve(value), reject: (reason) => settle?.reject(reason) }
}
