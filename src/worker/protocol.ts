/**
 * What a page and the worker with its engine say to each other, over one MessagePort.
 *
 * Objects live in the worker, under handles that the page gives out; the page has stand-ins for them. A call names a handle, a method and its arguments.
 * Ports keep the order of messages, so calls begin in the order in which they were made, as on the objects themselves.
 *
 *    page ── call, id 7: append('Once', { signal, onProgress }) on handle 3 ──► engine
 *         ◄─────────────── progress, id 7 …
 *         ── abort, id 7 ──►
 *         ◄─────────────── answer, id 7: the value, or failure, id 7: the error
 *    page ── call, id 8: generate(…), in pieces ──►   pull, id 8 ──►   ◄── piece, id 8   pull, id 8 ──► …   leave, id 8 ──►   ◄── answer, id 8
 */

import { BusyError, CheckpointError, ConflictError, EngineError, type ErrorParts, UnsupportedError } from '../errors.ts'

/** The library itself: its one method is `load`. */
export const LIBRARY = 0

export interface Call {
  readonly kind: 'call'
  readonly id: number
  readonly handle: number
  /** What the object is, for the error of one that is gone. */
  readonly place: string
  readonly method: string
  /** The last of them may be options, without `signal` and `onProgress`, which are functions of the page. */
  readonly args: readonly unknown[]
  readonly signal: 'none' | 'given' | 'aborted'
  readonly hasProgress: boolean
  /** 'value' for one answer, 'pieces' for an async generator's. */
  readonly answers: 'value' | 'pieces'
  /** The handle under which the object that the call makes is to be known. */
  readonly makes: number | null
}

export type ToEngine =
  | Call
  /** One more piece. */
  | { readonly kind: 'pull'; readonly id: number }
  /** No more pieces: the generator's `return`. */
  | { readonly kind: 'leave'; readonly id: number }
  | { readonly kind: 'abort'; readonly id: number }
  /** Nobody has the object's stand-in any more. */
  | { readonly kind: 'drop'; readonly handle: number }

/** Properties of the object called, or made, that changed since they were told. */
export type Told = Readonly<Record<string, unknown>>

export type FromEngine =
  /** The value, or the end of the pieces. */
  | { readonly kind: 'answer'; readonly id: number; readonly value: unknown; readonly told: Told }
  | { readonly kind: 'piece'; readonly id: number; readonly value: unknown; readonly told: Told }
  /** null for the reason of the call's own signal, which the page has. */
  | { readonly kind: 'failure'; readonly id: number; readonly error: unknown; readonly told: Told }
  | { readonly kind: 'progress'; readonly id: number; readonly value: unknown }

const PLACED_ERRORS = { BusyError, CheckpointError, ConflictError, EngineError, UnsupportedError }
const PLAIN_ERRORS = { Error, RangeError, TypeError, SyntaxError }

/** An error as it travels: a copy made by the port alone would have lost its class. */
interface PackedError {
  readonly packedError: string
  readonly isDom: boolean
  readonly message: string
  readonly stack: string | undefined
  readonly parts: ErrorParts | null
  readonly cause: unknown
}

/** What a port's copy would lose or refuse, in the value and in the properties of a plain object: errors keep their classes, addresses go as text. */
export function pack(value: unknown): unknown {
  return mapShallow(value, packOne)
}

/** The inverse, addresses aside. */
export function unpack(value: unknown): unknown {
  return isPackedError(value) ? unpackError(value) : mapShallow(value, (part) => (isPackedError(part) ? unpackError(part) : part))
}

/** `pack`, with bytes and ids as copies of the very part that is meant: a port alone would take along all the memory that they lie in. */
export function packCopy(value: unknown): unknown {
  return mapShallow(value, (part) => (ArrayBuffer.isView(part) && !(part instanceof DataView) ? Uint8Array.prototype.slice.call(part) : packOne(part)))
}

/** Memory that goes over instead of being copied: of arrays in the value and in its properties, which are nobody else's. */
export function buffersOf(value: unknown): ArrayBuffer[] {
  const parts = isPlain(value) ? Object.values(value) : [value]
  return [...new Set(parts.flatMap((part) => (ArrayBuffer.isView(part) && part.buffer instanceof ArrayBuffer ? [part.buffer] : [])))]
}

function packOne(value: unknown): unknown {
  if (value instanceof URL) return value.href
  return value instanceof Error ? packError(value) : value
}

function packError(error: Error): PackedError {
  const { name, message, stack, cause } = error
  const parts = isPlaced(error) ? { place: error.place, expected: error.expected, got: error.got } : null
  const isDom = typeof DOMException !== 'undefined' && error instanceof DOMException
  return { packedError: name, isDom, message, stack, parts, cause: cause instanceof Error ? packError(cause) : undefined }
}

function unpackError({ packedError: name, isDom, message, stack, parts, cause }: PackedError): Error {
  const options = isPackedError(cause) ? { cause: unpackError(cause) } : {}
  const error = createError(name, { isDom, message, parts, options })
  // Where it was thrown: the stack of this function says nothing.
  if (stack !== undefined && !isDom) Object.defineProperty(error, 'stack', { value: stack, configurable: true, writable: true })
  return error
}

function createError(name: string, { isDom, message, parts, options }: { isDom: boolean; message: string; parts: ErrorParts | null; options: ErrorOptions }): Error {
  if (isDom) return new DOMException(message, name)
  if (parts !== null && isKey(PLACED_ERRORS, name)) return new PLACED_ERRORS[name](parts, options)
  if (isKey(PLAIN_ERRORS, name)) return new PLAIN_ERRORS[name](message, options)
  return Object.defineProperty(new Error(message, options), 'name', { value: name, configurable: true, writable: true })
}

function isPlaced(error: Error): error is Error & ErrorParts {
  return Object.hasOwn(PLACED_ERRORS, error.name)
}

function isPackedError(value: unknown): value is PackedError {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, 'packedError')
}

function isKey<T extends object>(table: T, name: PropertyKey): name is keyof T {
  return Object.hasOwn(table, name)
}

function mapShallow(value: unknown, map: (part: unknown) => unknown): unknown {
  if (!isPlain(value)) return map(value)
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, map(part)]))
}

/** `{ … }`: no array, no Blob, no bytes, no object of a class. */
export function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}
