/**
 * Where bytes come from: anything that can be read by range. A file handle, a Blob, an HTTP server, bytes in memory.
 */

/** A readable range of bytes of known size. */
export interface ByteSource {
  /** For messages: the file's name or address. */
  readonly name: string
  readonly byteLength: number
  /**
   * The bytes [start, end), exactly end - start of them.
   * Throws a CheckpointError when the source holds fewer, and the signal's reason when aborted.
   * Callers ask for less than 2 GiB at once.
   */
  read(start: number, end: number, signal?: AbortSignal): Promise<Uint8Array>
  close(): Promise<void>
}

/** A flat folder of named files. */
export interface FileSet {
  /** For messages: the folder's path, address or hub id. */
  readonly name: string
  /** The file, or undefined where there is none of that name. */
  open(fileName: string, signal?: AbortSignal): Promise<ByteSource | undefined>
}
