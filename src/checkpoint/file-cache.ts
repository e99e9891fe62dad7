/**
 * Where downloads are kept, as the hub needs it: small records and large files under keys. The platform brings the storage
 * (a folder on disk, a browser's Cache API).
 */
import type { ByteSource } from './byte-source.ts'

/** The storage has no room. Never seen outside: the hub then reads the file from its server as needed, and says so. */
export class NoRoomError extends Error {}

export interface CacheEntry {
  readonly key: string
  readonly byteLength: number
}

/** Keys are relative paths: plain file names joined by `/`. */
export interface FileCache {
  /** For messages, e.g. the folder's path. */
  readonly name: string
  /** A small text, or undefined where there is none. */
  readRecord(key: string): Promise<string | undefined>
  /** Replaces the whole text at once: a reader sees the old one or the new one. */
  writeRecord(key: string, text: string): Promise<void>
  /** A complete file, or undefined where there is none. */
  openFile(key: string): Promise<ByteSource | undefined>
  /**
   * A place to write the file of this key, for this writer alone. With `resume` it begins with what an earlier writer that ended
   * early had written; the caller says so only if both write the same bytes. `byteLength` is the whole file's.
   * A NoRoomError, from here or from the writing, where it does not fit.
   */
  openPart(key: string, options: PartOptions): Promise<PartialFile>
  /** Removes what else is in the folder of this key (older revisions and their parts), but for `record.json` and what is being written. */
  removeOthers(key: string): Promise<void>
  /** All that is kept, but for what is being written; in a folder that is not the cache's alone, what others have there, too. */
  list(): Promise<readonly CacheEntry[]>
  /** Removes what is under this key, if there is anything. */
  remove(key: string): Promise<void>
}

export interface PartOptions {
  readonly resume: boolean
  readonly byteLength: number
}

export interface PartialFile {
  /** What is there at the time of opening: the first bytes of the file. */
  readonly byteLength: number
  write(bytes: Uint8Array, offset: number): Promise<void>
  /** The file is complete: from here on `openFile` has it, unless another writer took this one for dead; it then finishes the file. */
  finish(): Promise<void>
  /** The file is not complete; with `keep` a later writer may resume it. */
  abandon(options: { readonly keep: boolean }): Promise<void>
}
