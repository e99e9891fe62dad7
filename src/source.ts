/** What `Mamba.load` takes: where a checkpoint's files are. */

import type { FileSet } from './checkpoint/byte-source.ts'
import { type FileLike, recordFiles } from './checkpoint/file-set.ts'
import { describe, messageOf } from './errors.ts'
import type { SourceOptions } from './named-source.ts'
import { platform } from '#platform'

export type { SourceOptions }

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

/** Throws a TypeError for what is no source. */
export async function resolveSource(source: ModelSource | undefined, options: SourceOptions): Promise<FileSet> {
  if (source === undefined) return platform.embeddedModel()
  if (source instanceof URL || typeof source === 'string') return (await import('./named-source.ts')).namedFiles(source, options)
  if (source instanceof Uint8Array || source instanceof ArrayBuffer || source instanceof Blob) return recordFiles({ 'model.gguf': source })
  if (typeof source !== 'object' || source === null || Array.isArray(source)) {
    throw new TypeError(messageOf({ place: 'source', expected: 'a path, an address, a hub id or files by name', got: describe(source) }))
  }
  return isFileSet(source) ? source : recordFiles(source, options)
}

function isFileSet(source: FileSet | Readonly<Record<string, FileLike>>): source is FileSet {
  return typeof source.open === 'function'
}
