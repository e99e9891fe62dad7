/** What speculative decoding (speculation.ts) is asked for and what it tells: checked before it is loaded. */

import { describe, messageOf } from './errors.ts'

/** Tokens in a draft by default. */
export const MAX_DRAFT = 3

export interface SpeculationOptions {
  /**
   * Tokens in a draft at most, 1 to 15. Default 3: with the token before them four rows, as many as the kernels take at a time. On mamba-130m four rows
   * take 1.8 times as long as one in f32, 2.7 times in q8_0, eight rows 3.4 and 5.3 times (the bench suite `batch`): that is what a draft has to gain.
   */
  readonly maxDraft?: number | undefined
  /** Tokens that must have come before in the same order, 1 to 64. Default 3, or 8 in a vocabulary of bytes. */
  readonly minMatch?: number | undefined
}

export interface SpeculationUsage {
  readonly draftedTokens: number
  readonly acceptedTokens: number
}

/** RangeError that names the option. */
export function checkSpeculation({ maxDraft = MAX_DRAFT, minMatch = 1 }: SpeculationOptions): void {
  for (const [place, value, max] of [['maxDraft', maxDraft, 15], ['minMatch', minMatch, 64]] as const) {
    if (!Number.isInteger(value) || value < 1 || value > max) {
      throw new RangeError(messageOf({ place: `speculation.${place}`, expected: `an integer from 1 to ${max}`, got: describe(value) }))
    }
  }
}
