/**
 * Checkpoints by hub id, with the layout of huggingface.co: `{host}/{id}/resolve/{revision}/{file}`.
 *
 * One way through it, for each file: ask what the server has (HEAD), take that from the cache or else download it, under a name of its
 * own revision; a failure that may be gone the next time starts this over, and what was downloaded is resumed. So a revision that changes
 * in between is seen, and two never mix.
 */
import { CheckpointError, describe, messageOf } from '../errors.ts'
import type { ByteSource, FileSet } from './byte-source.ts'
import { folderKey } from './cache-keys.ts'
import { type FileCache, NoRoomError, type PartialFile } from './file-cache.ts'
import { checkFileName } from './file-set.ts'
import { parseHttpUrl, publicName } from './http-address.ts'
import { TransientError, bodyChunks, checkStatus, request, withRetries, type HttpAnswer, type HttpOptions } from './http.ts'
import { contentLength, contentRange, openUrl } from './http-source.ts'
import { isJsonObject, parseJson } from './json.ts'

/** How far the download of a file has come. */
export interface HubProgress {
  readonly file: string
  readonly loadedBytes: number
  readonly totalBytes: number
  /** Why the file could not be kept: it is read from its server as needed, now and the next time. */
  readonly notKept?: string
}

/** From which hub, and what of it. */
export interface DownloadOptions extends HttpOptions {
  /** Default: https://huggingface.co */
  readonly host?: URL | string | undefined
  /** A branch, a tag or a commit. Default: main. */
  readonly revision?: string | undefined
  readonly onProgress?: ((progress: HubProgress) => void) | undefined
}

export interface HubOptions extends DownloadOptions {
  /** Where downloads are kept. Default: nowhere; files are then read by range as they are needed. */
  readonly cache?: FileCache | undefined
}

/** One file of a hub. */
interface HubFile {
  readonly fileName: string
  readonly url: URL
  /** For messages: id and file name. */
  readonly name: string
  /** The folder of this file in the cache: `record.json` and, by revision, the bytes. */
  readonly key: string
}

/** What the server has at present. */
interface Revision {
  /** The ETag, or what else tells two revisions apart. */
  readonly tag: string
  /** Whether equal tags mean equal bytes, so that a download may be resumed. */
  readonly isStrong: boolean
  readonly byteLength: number
}

/**
 * The files of `id` (`owner/name`, or `name`) on a hub. With a cache, `open` resolves when the file is complete on this machine: at once
 * when the server still has the same revision, or cannot be reached and the cache has one; and what the server had not, when it was last
 * asked, is not there when it cannot be reached.
 * The files throw CheckpointErrors for what cannot be had; this throws a TypeError or RangeError for arguments of no use.
 */
export function hubFiles(id: string, options: HubOptions = {}): FileSet {
  const { revision = 'main', cache } = options
  const host = parseHttpUrl(options.host ?? 'https://huggingface.co')
  checkId(id)
  checkRevision(revision)
  const base = publicName(host).replace(/\/+$/, '')
  return {
    name: id,
    async open(fileName, openSignal) {
      checkFileName(fileName, id)
      const file = {
        fileName,
        url: new URL(`${base}/${id}/resolve/${encodeURIComponent(revision)}/${encodeURIComponent(fileName)}`),
        name: `${id}/${fileName}`,
        key: folderKey({ host: base.replace(/^https:\/\//, ''), model: id, revision, file: fileName })
      }
      const signals = [options.signal, openSignal].filter((signal) => signal !== undefined)
      const fileOptions = { ...options, signal: signals.length === 0 ? undefined : AbortSignal.any(signals) }
      return withRetries(file.name, () => (cache === undefined ? openRemote(file, fileOptions) : openCached(file, cache, fileOptions)), fileOptions)
    }
  }
}

async function openRemote(file: HubFile, options: HubOptions): Promise<ByteSource | undefined> {
  if ((await lookUp(file, options)) === undefined) return undefined
  const source = await openUrl(file.url, options)
  return source && { ...source, name: file.name }
}

async function openCached(file: HubFile, cache: FileCache, options: HubOptions): Promise<ByteSource | undefined> {
  const kept = await readRecord(file, cache)
  let current: Revision | undefined
  try {
    current = await lookUp(file, options)
  } catch (error) {
    if (kept === undefined || !(error instanceof TransientError)) throw error
    if (kept === 'absent') return undefined
    const source = await openKept(file, kept, cache)
    if (source === undefined) throw error
    reportProgress(file, source.byteLength, source.byteLength, options)
    return source
  }
  if (current === undefined) {
    if (kept !== 'absent') await writeRecord(file, 'absent', cache)
    return undefined
  }
  let source = await openKept(file, current, cache)
  if (source === undefined) {
    try {
      await download(file, current, { cache, options })
    } catch (error) {
      if (!(error instanceof NoRoomError)) throw error
      options.onProgress?.({ file: file.fileName, loadedBytes: 0, totalBytes: current.byteLength, notKept: error.message })
      return openRemote(file, options)
    }
    source = await openKept(file, current, cache)
    // Another process may have taken the last step with what this one wrote, or removed it for a newer revision.
    if (source === undefined) throw new TransientError(`another process changed ${file.name} in ${cache.name}`)
  } else {
    reportProgress(file, source.byteLength, source.byteLength, options)
  }
  if (kept === undefined || kept === 'absent' || kept.tag !== current.tag || kept.byteLength !== current.byteLength) await writeRecord(file, current, cache)
  return source
}

/** What the server has, or undefined where it has no such file. */
async function lookUp(file: HubFile, options: HubOptions): Promise<Revision | undefined> {
  const answer = await request(file.url, { method: 'HEAD', headers: {}, stopAt: describesStored }, options)
  const { headers, status } = answer.response
  const isMissing = status === 404 && !['RepoNotFound', 'RevisionNotFound'].includes(headers.get('x-error-code') ?? '')
  if (isMissing) return undefined
  if (!describesStored(headers)) await checkStatus(answer, file.url, [200])
  const byteLength = Number(headers.get('x-linked-size') ?? contentLength(headers))
  if (!Number.isSafeInteger(byteLength) || byteLength < 0) {
    throw new CheckpointError({ place: publicName(file.url), expected: 'a length in the headers', got: 'none' })
  }
  return { ...tagOf(answer, file), byteLength }
}

/** Whether an answer tells the tag and the length of a large file; its redirect leads to the hub's store, which may refuse HEAD. */
function describesStored(headers: Headers): boolean {
  return headers.has('x-linked-etag')
}

/** The hub's own tag, else the last answer's ETag, else its date. */
function tagOf({ hops, response }: HttpAnswer, file: HubFile): { tag: string; isStrong: boolean } {
  const linked = hops.find(describesStored)?.get('x-linked-etag')
  const etag = linked ?? response.headers.get('etag')
  // A server that compresses on its way weakens the tag of the same file.
  if (etag) return { tag: etag.replace(/^W\//, ''), isStrong: !etag.startsWith('W/') }
  const lastModified = response.headers.get('last-modified')
  if (lastModified !== null) return { tag: lastModified, isStrong: false }
  throw new CheckpointError({ place: publicName(file.url), expected: 'an ETag or Last-Modified header', got: 'neither' })
}

interface Download {
  readonly cache: FileCache
  readonly options: HubOptions
}

/** Brings the whole of `current` into the cache. */
async function download(file: HubFile, current: Revision, { cache, options }: Download): Promise<void> {
  const key = await bytesKey(file, current)
  const part = await cache.openPart(key, { resume: current.isStrong, byteLength: current.byteLength })
  try {
    await fillPart(part, file, current, { key, cache, options })
  } catch (error) {
    // What a wrong answer brought is of no use, and what has no room is in the way; what was cut short is of use.
    await part.abandon({ keep: current.isStrong && !(error instanceof CheckpointError || error instanceof NoRoomError) })
    throw error
  }
  await part.finish()
  await cache.removeOthers(key)
}

async function fillPart(part: PartialFile, file: HubFile, current: Revision, { key, cache, options }: Download & { key: string }): Promise<void> {
  const { byteLength } = current
  const place = publicName(file.url)
  const validator = part.byteLength === 0 ? undefined : await cache.readRecord(`${key}.validator`)
  let offset = validator === undefined || part.byteLength > byteLength ? 0 : part.byteLength
  if (offset === byteLength) return
  const headers = { range: `bytes=${offset}-`, ...(offset > 0 && validator !== undefined && { 'if-range': validator }) }
  const answer = await request(file.url, { method: 'GET', headers }, options)
  const { response } = answer
  await checkStatus(answer, file.url, [200, 206])
  try {
    const { tag } = tagOf(answer, file)
    if (tag !== current.tag) throw new TransientError(`${file.name} changed on the server between two requests`)
    const range = response.status === 206 ? contentRange(response, file.url) : undefined
    const length = range?.byteLength ?? contentLength(response.headers) ?? byteLength
    if (length !== byteLength) throw new CheckpointError({ place, expected: `${byteLength} bytes, as announced`, got: `${length} bytes` })
    if (range !== undefined && range.start !== offset) {
      throw new CheckpointError({ place, expected: `the bytes from ${offset} on`, got: `those from ${range.start} on` })
    }
    if (range === undefined) offset = 0
  } catch (error) {
    await response.body?.cancel()
    throw error
  }
  const etag = response.headers.get('etag')
  if (etag !== null && !etag.startsWith('W/')) await cache.writeRecord(`${key}.validator`, etag)
  reportProgress(file, offset, byteLength, options)
  for await (const chunk of bodyChunks(response, file.url, options.signal)) {
    if (offset + chunk.byteLength > byteLength) throw new CheckpointError({ place, expected: `${byteLength} bytes`, got: 'more' })
    await part.write(chunk, offset)
    offset += chunk.byteLength
    reportProgress(file, offset, byteLength, options)
  }
  if (offset < byteLength) throw new TransientError(`${offset} of ${byteLength} bytes from ${file.url.origin}`)
}

function reportProgress({ fileName }: HubFile, loadedBytes: number, totalBytes: number, { onProgress }: HubOptions): void {
  onProgress?.({ file: fileName, loadedBytes, totalBytes })
}

/** The complete file of this revision in the cache. */
async function openKept(file: HubFile, revision: Revision, cache: FileCache): Promise<ByteSource | undefined> {
  const source = await cache.openFile(await bytesKey(file, revision))
  if (source === undefined || source.byteLength === revision.byteLength) return source && { ...source, name: file.name }
  await source.close()
  return undefined
}

/** A name for the bytes of a revision: tags may be long and hold any character. */
async function bytesKey(file: HubFile, { tag }: Revision): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(tag)))
  return `${file.key}/${Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')}`
}

/**
 * What the server had when it last answered: a revision, or no such file. Most models lack some of the files that are asked for, and without a
 * server they would not load if that were forgotten. A record that cannot be read counts as none: the server is asked again.
 */
async function readRecord(file: HubFile, cache: FileCache): Promise<Revision | 'absent' | undefined> {
  const text = await cache.readRecord(`${file.key}/record.json`)
  if (text === undefined) return undefined
  try {
    const record = parseJson(text, file.name)
    if (!isJsonObject(record)) return undefined
    const { isAbsent, tag, isStrong, byteLength } = record
    if (isAbsent === true) return 'absent'
    return typeof tag === 'string' && typeof isStrong === 'boolean' && typeof byteLength === 'number' ? { tag, isStrong, byteLength } : undefined
  } catch {
    return undefined
  }
}

async function writeRecord(file: HubFile, found: Revision | 'absent', cache: FileCache): Promise<void> {
  try {
    await cache.writeRecord(`${file.key}/record.json`, JSON.stringify(found === 'absent' ? { isAbsent: true } : found))
  } catch (error) {
    // The file is there, and found again as long as the server is.
    if (!(error instanceof NoRoomError)) throw error
  }
}

/** The hub's own rule for names. It leaves no way to another path or host, and none to name two ids alike in the cache. */
function checkId(id: string): void {
  if (typeof id !== 'string') throw new TypeError(messageOf({ place: 'hub id', expected: 'a string', got: describe(id) }))
  const names = id.split('/')
  const isValid = names.length <= 2 && names.every((name) => /^\w(?:[\w.-]{0,94}\w)?$/.test(name) && !/--|\.\./.test(name))
  if (!isValid) throw new RangeError(messageOf({ place: 'hub id', expected: 'owner/name or name, of letters, digits, "-", "_" and "."', got: describe(id) }))
}

function checkRevision(revision: string): void {
  if (typeof revision !== 'string' || !/^[\w][\w./+-]{0,120}$/.test(revision) || revision.includes('..')) {
    throw new RangeError(messageOf({ place: 'revision', expected: 'the name of a branch or tag, or a commit', got: describe(revision) }))
  }
}
