/**
 * HTTP requests as downloads need them: redirects followed by hand, so that a token never reaches another origin; transient failures
 * tried again; bodies of a known length read whole.
 */
import { CheckpointError, UnsupportedError, describe, messageOf } from '../errors.ts'
import { publicName } from './http-address.ts'

export interface HttpOptions {
  readonly signal?: AbortSignal | undefined
  /** Sent as `Authorization: Bearer …` to the first origin alone. */
  readonly token?: string | undefined
  /** Default: the host's own. */
  readonly fetch?: typeof globalThis.fetch | undefined
  /** How often a request is tried again after a transient failure (connection lost, 408, 429, 5xx). Default: 3. */
  readonly retries?: number | undefined
  /** The pause before the first retry; it doubles at each. Default: 500. */
  readonly retryDelayMs?: number | undefined
}

export interface HttpAnswer {
  readonly response: Response
  /** The headers of every answer on the way, redirects included, the last one's last. */
  readonly hops: readonly Headers[]
}

export interface HttpRequest {
  readonly method: 'GET' | 'HEAD'
  readonly headers: Readonly<Record<string, string>>
  /** Whether a redirect with these headers is the answer, instead of where it leads. */
  readonly stopAt?: (headers: Headers) => boolean
}

const MAX_REDIRECTS = 10

/** A failure that may be gone at the next try: never seen outside, `withRetries` turns it into the cause of a CheckpointError. */
export class TransientError extends Error {}

/**
 * One request, redirects followed. The answer's body is the caller's to read or to cancel.
 * Throws the signal's reason, a TransientError when the connection fails, a CheckpointError for redirects that lead nowhere.
 */
export async function request(address: URL, { method, headers, stopAt }: HttpRequest, options: HttpOptions): Promise<HttpAnswer> {
  const { fetch = globalThis.fetch, signal, token } = options
  const hops: Headers[] = []
  // Ranges and lengths are of the file's own bytes. Where scripts may not set this (browsers), a Range header implies it.
  const sent = new Headers({ ...headers, 'accept-encoding': 'identity' })
  if (token !== undefined) sent.set('authorization', `Bearer ${checkToken(token)}`)
  for (let url = address; ; ) {
    const response = await send(() => fetch(url, { method, headers: sent, redirect: 'manual', signal: signal ?? null }), url, signal)
    hops.push(response.headers)
    if (response.type === 'opaqueredirect') return followInBrowser(url, { method, sent, options })
    const location = [301, 302, 303, 307, 308].includes(response.status) ? response.headers.get('location') : null
    if (location === null || stopAt?.(response.headers)) return { response, hops }
    await response.body?.cancel()
    if (hops.length > MAX_REDIRECTS) {
      throw new CheckpointError({ place: publicName(address), expected: `at most ${MAX_REDIRECTS} redirects`, got: 'more' })
    }
    const next = redirectTarget(location, url)
    if (next.origin !== url.origin) sent.delete('authorization')
    url = next
  }
}

function redirectTarget(location: string, from: URL): URL {
  const target = URL.canParse(location, from) ? new URL(location, from) : undefined
  const allowed = from.protocol === 'https:' ? ['https:'] : ['https:', 'http:']
  if (target !== undefined && allowed.includes(target.protocol)) return target
  throw new CheckpointError({ place: publicName(from), expected: `a redirect to ${allowed.join(' or ')}`, got: describe(target?.protocol ?? 'no address') })
}

/** Browsers do not show where a redirect leads. Without a token that does not matter; with one it could go astray. */
async function followInBrowser(url: URL, { method, sent, options }: { method: string; sent: Headers; options: HttpOptions }): Promise<HttpAnswer> {
  const { fetch = globalThis.fetch, signal } = options
  if (sent.has('authorization')) {
    throw new UnsupportedError({ place: publicName(url), expected: 'no redirect, as a browser would take the token along unseen', got: 'one' })
  }
  const response = await send(() => fetch(url, { method, headers: sent, redirect: 'follow', signal: signal ?? null }), url, signal)
  return { response, hops: [response.headers] }
}

/** Runs one fetch or one read of a body; failures of the network become TransientErrors. */
export async function send<T>(run: () => Promise<T>, url: URL, signal: AbortSignal | undefined): Promise<T> {
  signal?.throwIfAborted()
  try {
    return await run()
  } catch (cause) {
    signal?.throwIfAborted()
    throw new TransientError(`no answer from ${url.origin} (${reasonOf(cause)})`, { cause })
  }
}

/** fetch says "fetch failed"; the reason is one below. */
function reasonOf(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error
  const code = inner instanceof Error && 'code' in inner ? String(inner.code) : ''
  return code || (inner instanceof Error ? inner.message : String(inner))
}

/** Throws unless the status is one of `accepted`: a TransientError for those worth another try, otherwise a CheckpointError. */
export async function checkStatus(answer: HttpAnswer, url: URL, accepted: readonly number[]): Promise<void> {
  const { response } = answer
  if (accepted.includes(response.status)) return
  await response.body?.cancel()
  // The hub tells more in a header: EntryNotFound, RepoNotFound, GatedRepo.
  const detail = response.headers.get('x-error-code') ?? response.statusText
  const got = `status ${response.status}${detail === '' ? '' : ` (${detail})`}`
  if (response.status >= 500 || response.status === 429 || response.status === 408) throw new TransientError(`${got} from ${url.origin}`)
  const place = publicName(url)
  if (response.status === 401 || response.status === 403) {
    throw new CheckpointError({ place, expected: 'a public file, or a token that may read it', got })
  }
  throw new CheckpointError({ place, expected: 'a file', got })
}

/**
 * Runs `attempt` until it succeeds, at most 1 + retries times, with a growing pause after each TransientError. The last one becomes the
 * cause of a CheckpointError.
 */
export async function withRetries<T>(place: string, attempt: () => Promise<T>, options: HttpOptions): Promise<T> {
  const { retries = 3, retryDelayMs = 500, signal } = options
  for (let retry = 0; ; retry++) {
    try {
      return await attempt()
    } catch (error) {
      if (!(error instanceof TransientError)) throw error
      if (retry >= retries) throw new CheckpointError({ place, expected: 'the whole file from its server', got: error.message }, { cause: error })
      await pause(retryDelayMs * 2 ** retry, signal)
    }
  }
}

/** Rejects with the signal's reason as soon as it is aborted. */
async function pause(delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  signal?.throwIfAborted()
  await new Promise<void>((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer)
      reject(signal?.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    }, delayMs)
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

/** The pieces of a body as they come. A connection that breaks is a TransientError. */
export async function* bodyChunks(response: Response, url: URL, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader()
  if (reader === undefined) return
  try {
    for (;;) {
      const { done, value } = await send(() => reader.read(), url, signal)
      if (done) return
      yield value
    }
  } finally {
    // A no-op at the end of the body; otherwise it frees the connection.
    await reader.cancel().catch(() => {})
  }
}

/** A body of exactly `byteLength` bytes. Throws a TransientError when it ends early, a CheckpointError when it goes on. */
export async function readBody(response: Response, url: URL, { byteLength, signal }: { byteLength: number; signal: AbortSignal | undefined }) {
  const bytes = new Uint8Array(byteLength)
  let filled = 0
  for await (const chunk of bodyChunks(response, url, signal)) {
    if (filled + chunk.byteLength > byteLength) {
      throw new CheckpointError({ place: publicName(url), expected: `${byteLength} bytes`, got: 'more' })
    }
    bytes.set(chunk, filled)
    filled += chunk.byteLength
  }
  if (filled < byteLength) throw new TransientError(`${filled} of ${byteLength} bytes from ${url.origin}`)
  return bytes
}

function checkToken(token: string): string {
  if (/^[\u0021-\u007e]+$/.test(token)) return token
  throw new TypeError(messageOf({ place: 'token', expected: 'printable characters without spaces', got: 'others' }))
}
