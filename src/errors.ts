/**
 * The errors of this package beside JavaScript's own TypeError and RangeError.
 * Each message reads `place: expected …, got …`; the parts are properties too.
 */

/** What an error says. */
export interface ErrorParts {
  /** Where: a file, a key, a tensor; e.g. `layers.3.mixer.A_log`. */
  readonly place: string
  readonly expected: string
  readonly got: string
}

/** What the package's own errors have in common. */
export class PlacedError extends Error implements ErrorParts {
  readonly place: string
  readonly expected: string
  readonly got: string

  constructor(parts: ErrorParts, options?: ErrorOptions) {
    super(messageOf(parts), options)
    this.place = parts.place
    this.expected = parts.expected
    this.got = parts.got
  }
}

/** A checkpoint that is damaged, incomplete or contradicts itself. */
export class CheckpointError extends PlacedError {
  override readonly name = 'CheckpointError'
}

/** Something valid that this package, or this host, does not have. */
export class UnsupportedError extends PlacedError {
  override readonly name = 'UnsupportedError'
}

/** As many calls are under way as `maxBatch` and `maxQueue` allow: to be made again when some have ended. */
export class BusyError extends PlacedError {
  override readonly name = 'BusyError'
}

/** The engine broke down under way, e.g. a thread of it died. It answers no further calls. */
export class EngineError extends PlacedError {
  override readonly name = 'EngineError'
}

/** Something that another writer has changed since it was read. */
export class ConflictError extends PlacedError {
  override readonly name = 'ConflictError'
}

/** `place: expected …, got …`, the form of every message, RangeError's and TypeError's too. */
export function messageOf({ place, expected, got }: ErrorParts): string {
  return `${place}: expected ${expected}, got ${got}`
}

/** RangeError for what is no integer from `min` to `max`. */
export function checkInteger(place: string, value: unknown, min: number, max = Infinity): void {
  if (Number.isInteger(value) && Number(value) >= min && Number(value) <= max) return
  throw new RangeError(messageOf({ place, expected: `an integer from ${min}${max < Infinity ? ` to ${max}` : ''}`, got: describe(value) }))
}

/** A value as it appears in a message: short, and never a whole file. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value)
  if (value === null || value === undefined || typeof value === 'number' || typeof value === 'boolean') return String(value)
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'function') return 'a function'
  if (Array.isArray(value)) return value.length > 8 ? `an array of ${value.length}` : `[${value.map(describe).join(', ')}]`
  return `an object (${Object.prototype.toString.call(value).slice(8, -1)})`
}
