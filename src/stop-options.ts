/** Stop strings as they are asked for: checked before what finds them (stop-strings.ts) is loaded. */
import { describe, messageOf } from './errors.ts'

export interface StopResult {
  /** What is safe to show now: it comes before any stop string. Whole characters. */
  readonly text: string
  readonly stopped: boolean
  /** The stop string that was met; there when stopped. */
  readonly stop?: string
}

export interface StopMatcher {
  /** Takes the next piece of text. Once stopped, every further piece gives no text. */
  push(piece: string): StopResult
  /** The end of the text: what was held back, '' when stopped. The matcher is then as new. */
  flush(): string
}

/** Without stop strings all is safe to show. */
export const NO_STOPS: StopMatcher = { push: (text) => ({ text, stopped: false }), flush: () => '' }

const SURROGATE = /\p{Surrogate}/u

/** RangeError for an empty string or one with half a surrogate pair, TypeError for anything but strings. */
export function checkStops(stops: readonly string[]): void {
  if (!Array.isArray(stops)) throw new TypeError(messageOf({ place: 'stop', expected: 'an array of strings', got: describe(stops) }))
  for (const [i, stop] of stops.entries()) {
    const parts = { place: `stop[${i}]`, expected: 'a string of one whole character or more', got: describe(stop) }
    if (typeof stop !== 'string') throw new TypeError(messageOf(parts))
    if (stop === '' || SURROGATE.test(stop)) throw new RangeError(messageOf(parts))
  }
}
