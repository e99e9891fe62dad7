/**
 * The beginning of a GGUF file, read in growing pieces: its length is nowhere told, and a file may be far larger than what is wanted of it.
 */
import { CheckpointError } from '../errors.ts'
import type { ByteSource } from './byte-source.ts'

/** The first piece holds the header of a small model; tokenizers take megabytes. */
const FIRST_PIECE_BYTES = 2 ** 16
const MAX_PIECE_BYTES = 2 ** 22
/** As for safetensors. The largest real headers, of 250 000 tokens with their merges, take some 15 MB. */
const MAX_HEADER_BYTES = 100_000_000

export interface Cursor {
  readonly source: ByteSource
  readonly signal: AbortSignal | undefined
  /** What is there of the source, from `pieceStart` on. */
  bytes: Uint8Array
  view: DataView
  pieceStart: number
  pieceBytes: number
  /** The next byte, in `bytes`. */
  at: number
}

export function createCursor(source: ByteSource, signal?: AbortSignal): Cursor {
  const bytes = new Uint8Array(0)
  return { source, signal, bytes, view: new DataView(bytes.buffer), pieceStart: 0, pieceBytes: FIRST_PIECE_BYTES, at: 0 }
}

/** The offset of the next byte in the source. */
export function offsetOf(cursor: Cursor): number {
  return cursor.pieceStart + cursor.at
}

/** How many bytes may still be read. */
export function bytesLeft(cursor: Cursor): number {
  return Math.min(cursor.source.byteLength, MAX_HEADER_BYTES) - offsetOf(cursor)
}

/** For messages. */
export function placeOf({ source }: Cursor, what: string): string {
  return `${source.name}, ${what}`
}

function has(cursor: Cursor, byteLength: number): boolean {
  return cursor.at + byteLength <= cursor.bytes.byteLength
}

/** Makes the next `byteLength` bytes be there. Throws a CheckpointError where the file, or what is read of it, ends before. `what` names them. */
export async function fill(cursor: Cursor, byteLength: number, what: string): Promise<void> {
  if (has(cursor, byteLength)) return
  checkLeft(cursor, byteLength, what)
  const { source, signal } = cursor
  const start = offsetOf(cursor)
  const end = Math.min(start + Math.max(byteLength, cursor.pieceBytes), source.byteLength)
  cursor.bytes = await source.read(start, end, signal)
  cursor.view = new DataView(cursor.bytes.buffer, cursor.bytes.byteOffset, cursor.bytes.byteLength)
  cursor.pieceStart = start
  cursor.at = 0
  cursor.pieceBytes = Math.min(2 * cursor.pieceBytes, MAX_PIECE_BYTES)
}

/** Throws where fewer than `byteLength` bytes are left, whether they are there yet or not. */
function checkLeft(cursor: Cursor, byteLength: number | bigint, what: string): void {
  const left = bytesLeft(cursor)
  if (byteLength <= left) return
  const { source } = cursor
  const isLimit = source.byteLength > MAX_HEADER_BYTES
  const got = isLimit ? `${left} bytes to the limit of ${MAX_HEADER_BYTES} for a header` : `${left} bytes to the end of the file`
  throw new CheckpointError({ place: placeOf(cursor, what), expected: `${byteLength} bytes at offset ${offsetOf(cursor)}`, got })
}

/** The next 4 bytes, which must be there. */
export function takeUint32(cursor: Cursor): number {
  const value = cursor.view.getUint32(cursor.at, true)
  cursor.at += 4
  return value
}

/** The next 8 bytes, which must be there: a bigint, since lies reach to 2^64. */
export function takeUint64(cursor: Cursor): bigint {
  const value = cursor.view.getBigUint64(cursor.at, true)
  cursor.at += 8
  return value
}

// A byte order mark is a character like any other: a token may begin with one.
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** A length and so many bytes of UTF-8. */
export async function readString(cursor: Cursor, what: string): Promise<string> {
  if (!has(cursor, 8)) await fill(cursor, 8, what)
  const length = takeUint64(cursor)
  checkLeft(cursor, length, what)
  const byteLength = Number(length)
  if (!has(cursor, byteLength)) await fill(cursor, byteLength, what)
  return takeText(cursor, byteLength, what)
}

/** As `readString`, for a string that is wholly there; undefined otherwise. A wait for each of 250 000 tokens would take longer than reading them. */
export function takeString(cursor: Cursor, what: string): string | undefined {
  if (!has(cursor, 8)) return undefined
  const byteLength = Number(cursor.view.getBigUint64(cursor.at, true))
  if (!has(cursor, 8 + byteLength)) return undefined
  cursor.at += 8
  return takeText(cursor, byteLength, what)
}

function takeText(cursor: Cursor, byteLength: number, what: string): string {
  const { bytes, at } = cursor
  cursor.at += byteLength
  try {
    return decoder.decode(bytes.subarray(at, at + byteLength))
  } catch (cause) {
    throw new CheckpointError({ place: placeOf(cursor, what), expected: `text in UTF-8 at offset ${cursor.pieceStart + at}`, got: 'other bytes' }, { cause })
  }
}
