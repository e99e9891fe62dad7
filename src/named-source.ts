/** A checkpoint by its name: a path, an address or a hub id. Loaded for those alone. */

import type { FileSet } from './checkpoint/byte-source.ts'
import { checkpointFile, checkpointName, urlFiles } from './checkpoint/file-set.ts'
import type { DownloadOptions } from './checkpoint/hub.ts'
import { describe, messageOf } from './errors.ts'
import { platform } from '#platform'

/** How files come from a hub or an address. */
export interface SourceOptions extends DownloadOptions {
  /** Folder for downloads by hub id; by default the user's cache folder. null keeps nothing: files are read by range as needed. */
  readonly cacheFolder?: string | null | undefined
}

/** Throws a TypeError for a path of nothing. */
export async function namedFiles(source: string | URL, options: SourceOptions): Promise<FileSet> {
  return source instanceof URL ? fromUrl(source, options) : fromString(source, options)
}

async function fromString(source: string, options: SourceOptions): Promise<FileSet> {
  const local = await platform.localFiles(source)
  if (local !== undefined) return local
  if (/^[a-z]+:\/\//i.test(source)) return fromUrl(new URL(source), options)
  if (/^(\.{0,2}|~)[/\\]/.test(source)) throw new TypeError(messageOf({ place: 'source', expected: 'an existing file or folder', got: describe(source) }))
  const { hubFiles } = await import('./checkpoint/hub.ts')
  const { cacheFolder, ...hubOptions } = options
  const cache = cacheFolder === null ? undefined : await platform.downloadCache(cacheFolder)
  const [, id, own] = /^(.+\/.+)\/([^/]+)$/.exec(source) ?? []
  if (id === undefined || checkpointName(own) === undefined) return hubFiles(source, { ...hubOptions, cache })
  return checkpointFile(hubFiles(id, { ...hubOptions, cache }), own)
}

async function fromUrl(url: URL, options: SourceOptions): Promise<FileSet> {
  if (url.protocol === 'file:') {
    const path = decodeURIComponent(url.pathname)
    const local = await platform.localFiles(path)
    if (local === undefined) throw new TypeError(messageOf({ place: 'source', expected: 'an existing file or folder', got: describe(url.href) }))
    return local
  }
  const own = url.pathname.slice(url.pathname.lastIndexOf('/') + 1)
  if (checkpointName(own) === undefined) return urlFiles(url, options)
  const { openUrl } = await import('./checkpoint/http-source.ts')
  const beside = urlFiles(new URL('.', url), options)
  // The file by its whole address: a signed one has a query.
  const named: FileSet = { name: beside.name, open: (fileName, signal) => (fileName === own ? openUrl(url, { ...options, signal }) : beside.open(fileName, signal)) }
  return checkpointFile(named, own)
}
