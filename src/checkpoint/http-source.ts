/**
 * A file on a web server, read by range. Each answer is held against the first one, so that two revisions of a file never mix.
 */
import { CheckpointError } from '../errors.ts'
import { bytesSource, checkRange, type ByteSource } from './byte-source.ts'
import { parseHttpUrl, publicName } from './http-address.ts'
import { bodyChunks, checkStatus, readBody, request, withRetries, type HttpOptions } from './http.ts'

/** The first request brings this much: all of a config, most headers. */
const FIRST_BYTES = 65536
/** What is read whole from a server that knows no ranges. */
const MAX_WHOLE_BYTES = 2 ** 31 - 1

/** The revision of a file, as its headers tell it. */
interface Revision {
  readonly etag: string | null
  readonly lastModified: string | null
  readonly byteLength: number
}

/**
 * The file at an http or https address. A server without range requests sends the file whole, once, up to 2 GiB.
 * Throws a CheckpointError when there is none or it cannot be had, and a TypeError for other addresses.
 */
export async function httpSource(address: URL | string, options: HttpOptions = {}): Promise<ByteSource> {
  const url = parseHttpUrl(address)
  const source = await openUrl(url, options)
  if (source === undefined) throw new CheckpointError({ place: publicName(url), expected: 'a file', got: 'status 404' })
  return source
}

/** As `httpSource`, but undefined where the server says that there is no such file. `options.signal` is for the opening alone. */
export async function openUrl(url: URL, options: HttpOptions): Promise<ByteSource | undefined> {
  const name = publicName(url)
  return withRetries(
    name,
    async () => {
      const answer = await request(url, { method: 'GET', headers: { range: `bytes=0-${FIRST_BYTES - 1}` } }, options)
      const { response } = answer
      if (response.status === 404 || response.status === 410) {
        await response.body?.cancel()
        return undefined
      }
      if (isEmptyFile(response)) {
        await response.body?.cancel()
        return bytesSource(new Uint8Array(0), name)
      }
      await checkStatus(answer, url, [200, 206])
      if (response.status === 200) return bytesSource(await readWhole(response, url, options.signal), name)
      const { start, end, byteLength } = contentRange(response, url)
      if (start !== 0 || end !== Math.min(FIRST_BYTES, byteLength)) throw rangeError(url, `bytes 0-${FIRST_BYTES - 1}`, response)
      const first = await readBody(response, url, { byteLength: end, signal: options.signal })
      return rangeSource(url, { first, revision: { ...validators(response), byteLength }, options })
    },
    options
  )
}

function rangeSource(url: URL, { first, revision, options }: { first: Uint8Array; revision: Revision; options: HttpOptions }): ByteSource {
  const name = publicName(url)
  const { byteLength } = revision
  return {
    name,
    byteLength,
    async read(start, end, signal) {
      signal?.throwIfAborted()
      checkRange({ name, byteLength }, start, end)
      if (end <= first.byteLength) return first.subarray(start, end)
      if (start === end) return new Uint8Array(0)
      const requestOptions = { ...options, signal }
      return withRetries(name, () => readRange(url, { start, end, revision, options: requestOptions }), requestOptions)
    },
    async close() {}
  }
}

interface RangeRequest {
  readonly start: number
  readonly end: number
  readonly revision: Revision
  readonly options: HttpOptions
}

async function readRange(url: URL, { start, end, revision, options }: RangeRequest): Promise<Uint8Array> {
  const wanted = `bytes=${start}-${end - 1}`
  const answer = await request(url, { method: 'GET', headers: { range: wanted, ...ifRange(revision) } }, options)
  const { response } = answer
  await checkStatus(answer, url, [206, 200, 416])
  const now = validators(response)
  // 200 and 416 answer a range that the first answer promised: the file is another one now.
  const changed = response.status !== 206 || now.etag !== revision.etag || now.lastModified !== revision.lastModified
  const range = changed ? undefined : contentRange(response, url)
  if (changed || range?.byteLength !== revision.byteLength) {
    await response.body?.cancel()
    throw new CheckpointError({ place: publicName(url), expected: revisionText(revision), got: 'another revision: the file changed while it was read' })
  }
  if (range.start !== start || range.end !== end) throw rangeError(url, wanted, response)
  return readBody(response, url, { byteLength: end - start, signal: options.signal })
}

/** The condition under which a server may answer with a part: If-Range takes strong validators alone (RFC 9110, 13.1.5). */
export function ifRange({ etag, lastModified }: { etag: string | null; lastModified: string | null }): Record<string, string> {
  const validator = etag !== null && !etag.startsWith('W/') ? etag : lastModified
  return validator === null ? {} : { 'if-range': validator }
}

export function validators(response: Response): { etag: string | null; lastModified: string | null } {
  return { etag: response.headers.get('etag'), lastModified: response.headers.get('last-modified') }
}

/** `bytes 0-99/1000` as start 0, end 100, byteLength 1000. Throws a CheckpointError for anything else. */
export function contentRange(response: Response, url: URL): { start: number; end: number; byteLength: number } {
  const [, first, last, total] = /^bytes ([0-9]{1,15})-([0-9]{1,15})\/([0-9]{1,15})$/.exec(response.headers.get('content-range') ?? '') ?? []
  const range = { start: Number(first), end: Number(last) + 1, byteLength: Number(total) }
  if (range.start < range.end && range.end <= range.byteLength) return range
  throw rangeError(url, 'bytes FIRST-LAST/TOTAL', response)
}

/** No range lies within an empty file: it is refused, with the length. */
function isEmptyFile(response: Response): boolean {
  return response.status === 416 && response.headers.get('content-range') === 'bytes */0'
}

/** The length that a whole answer announces, or undefined. */
export function contentLength(headers: Headers): number | undefined {
  const text = headers.get('content-length')
  return text !== null && /^[0-9]{1,15}$/.test(text) ? Number(text) : undefined
}

async function readWhole(response: Response, url: URL, signal: AbortSignal | undefined): Promise<Uint8Array> {
  const announced = contentLength(response.headers)
  const limit = Math.min(announced ?? MAX_WHOLE_BYTES, MAX_WHOLE_BYTES)
  if (announced !== undefined && announced > limit) {
    await response.body?.cancel()
    throw new CheckpointError({ place: publicName(url), expected: `at most ${limit} bytes from a server without range requests`, got: `${announced} bytes` })
  }
  // Where the length is known the file stands in memory once, else twice for a moment.
  if (announced !== undefined) return readBody(response, url, { byteLength: announced, signal })
  const chunks: Uint8Array[] = []
  let filled = 0
  for await (const chunk of bodyChunks(response, url, signal)) {
    filled += chunk.byteLength
    if (filled > limit) throw new CheckpointError({ place: publicName(url), expected: `${limit} bytes`, got: 'more' })
    chunks.push(chunk)
  }
  const bytes = new Uint8Array(filled)
  let offset = 0
  for (const chunk of chunks) {
    bytes.set(chunk, offset)
    offset += chunk.byteLength
  }
  return bytes
}

function rangeError(url: URL, wanted: string, response: Response): CheckpointError {
  return new CheckpointError({ place: `${publicName(url)}, Content-Range`, expected: wanted, got: String(response.headers.get('content-range')) })
}

function revisionText({ etag, lastModified, byteLength }: Revision): string {
  return `the revision of the first answer (${etag ?? lastModified ?? 'no ETag'}, ${byteLength} bytes)`
}
