/** What `Mamba.load` takes: where a checkpoint's files are. */

import type { FileSet } from './checkpoint/byte-source.ts'
import { checkpointFile, checkpointName, type FileLike, recordFiles, urlFiles } from './checkpoint/file-set.ts'
import type { HubOptions } from './checkpoint/hub.ts'
import { describe, messageOf } from './errors.ts'
import { platform } from '#platform'

/**
 * - nothing: the embedded model
 * - a string: an existing path (a folder, a .gguf file, or a .safetensors or .bin file with its config beside it), else an http(s) address of
 *   such a folder or file, else a hub id (`state-spaces/mamba-130m-hf`), with a file's name for one of its files (`owner/name/file.gguf`)
 * - a URL: http(s) or file
 * - the bytes of a .gguf file, or a Blob of them
 * - a file set, such as the embedded model's of `mamba-wasm/models/classics-8m`
 * - files by name: `{ 'config.json': bytes, 'model.safetensors': blob, … }`
 */
export type ModelSource = string | URL | Uint8Array | ArrayBuffer | Blob | FileSet | Readonly<Record<string, FileLike>>

export type SourceOptions = Omit<HubOptions, 'cache'> & {
  /** Folder for downloads by hub id; by default the user's cache folder. null keeps nothing: files are read by range as needed. */
  readonly cacheFolder?: string | null | undefined
}

/** Throws a TypeError for what is no source. */
export async function resolveSource(source: ModelSource | undefined, options: SourceOptions): Promise<FileSet> {
  if (source === undefined) return platform.embeddedModel()
  if (source instanceof URL) return fromUrl(source, options)
  if (typeof source === 'string') return fromString(source, options)
  if (source instanceof Uint8Array || source instanceof ArrayBuffer || source instanceof Blob) return recordFiles({ 'model.gguf': source })
  if (typeof source !== 'object' || source === null || Array.isArray(source)) {
    throw new TypeError(messageOf({ place: 'source', expected: 'a path, an address, a hub id or files by name', got: describe(source) }))
  }
  return isFileSet(source) ? source : recordFiles(source, options)
}

function isFileSet(source: FileSet | Readonly<Record<string, FileLike>>): source is FileSet {
  return typeof source.open === 'function'
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
