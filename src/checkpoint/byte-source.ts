/**
 * Where bytes come from: anything that can be read by range. A file handle, a Blob, an HTTP server, bytes in memory.
 */
import { CheckpointError, messageOf } from '../errors.ts'

/** A readable range of bytes of known size. */
export interface ByteSource {
  /** For messages: the file's name or address. */
  readonly name: string
  readonly byteLength: number
  /**
   * The bytes [start, end), exactly end - start of them, to be read and not written: they may be a view of the source's own memory.
   * Throws a CheckpointError when the source holds fewer, and the signal's reason when aborted.
   * Callers ask for less than 2 GiB at once. A source that would allocate memory for them may use the start of `memory` instead, which is large enough.
   */
  read(start: number, end: number, signal?: AbortSignal, memory?: Uint8Array): Promise<Uint8Array>
  /** Gives back what it holds, e.g. a file handle. */
  close(): Promise<void>
}

/** A flat folder of named files. */
export interface FileSet {
  /** For messages: the folder's path, address or hub id. */
  readonly name: string
  /** The file, or undefined where there is none of that name. */
  open(fileName: string, signal?: AbortSignal): Promise<ByteSource | undefined>
}

/** Bytes in memory as a source. Nothing is copied, unless the memory is shared. */
export function bytesSource(bytes: Uint8Array | ArrayBuffer, name = 'bytes'): ByteSource {
  const view = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes)
  // TextDecoder refuses views of shared memory in some runtimes.
  const shared = !(view.buffer instanceof ArrayBuffer)
  const { byteLength } = view
  return {
    name,
    byteLength,
    async read(start, end, signal) {
      signal?.throwIfAborted()
      checkRange({ name, byteLength }, start, end)
      return shared ? view.slice(start, end) : view.subarray(start, end)
    },
    async close() {}
  }
}

/** A Blob or a browser's File as a source. */
export function blobSource(blob: Blob, name = 'blob'): ByteSource {
  const byteLength = blob.size
  return {
    name,
    byteLength,
    async read(start, end, signal) {
      signal?.throwIfAborted()
      checkRange({ name, byteLength }, start, end)
      const bytes = new Uint8Array(await blob.slice(start, end).arrayBuffer())
      signal?.throwIfAborted()
      return bytes
    },
    async close() {}
  }
}

/** For sources: a RangeError when [start, end) is no range, a CheckpointError when it goes beyond the end of the source. */
export function checkRange(source: { readonly name: string; readonly byteLength: number }, start: number, end: number): void {
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || end < start || end - start >= 2 ** 31) {
    throw new RangeError(messageOf({ place: source.name, expected: 'a range of bytes of less than 2 GiB', got: `[${start}, ${end})` }))
  }
  if (end > source.byteLength) {
    throw new CheckpointError({ place: source.name, expected: `at least ${end} bytes`, got: `${source.byteLength} bytes` })
  }
}

/** The whole source as text. Throws a CheckpointError beyond `maxBytes` and where it is not UTF-8. */
export async function readText(source: ByteSource, maxBytes: number, signal?: AbortSignal): Promise<string> {
  if (source.byteLength > maxBytes) {
    throw new CheckpointError({ place: source.name, expected: `at most ${maxBytes} bytes`, got: `${source.byteLength} bytes` })
  }
  return decodeText(await source.read(0, source.byteLength, signal), source.name)
}

/** UTF-8 bytes as text. Throws a CheckpointError where they are not UTF-8. */
export function decodeText(bytes: Uint8Array, place: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new CheckpointError({ place, expected: 'text in UTF-8', got: 'other bytes' }, { cause })
  }
}
