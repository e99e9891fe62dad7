/** What speculative decoding (speculation.ts) is asked for and what it tells: checked before it is loaded. */

import { checkInteger } from './errors.ts'

/** Tokens in a draft by default. */
export const MAX_DRAFT = 3

/** How much is drafted, and when. */
export interface SpeculationOptions {
  /**
   * Tokens in a draft at most, 1 to 15. Default 3: with the token before them four rows, as many as the kernels take at a time. On mamba-130m four rows
   * take 1.8 times as long as one in f32, 2.7 times in q8_0, eight rows 3.4 and 5.3 times (the bench suite `batch`): that is what a draft has to gain.
   */
  readonly maxDraft?: number | undefined
  /** Tokens that must have come before in the same order, 1 to 64. Default 3, or 8 in a vocabulary of bytes. */
  readonly minMatch?: number | undefined
}

/** Drafted tokens of one call, and those of them that the model chose, too. */
export interface SpeculationUsage {
  readonly draftedTokens: number
  readonly acceptedTokens: number
}

/** RangeError that names the option. */
export function checkSpeculation({ maxDraft = MAX_DRAFT, minMatch = 1 }: SpeculationOptions): void {
  checkInteger('speculation.maxDraft', maxDraft, 1, 15)
  checkInteger('speculation.minMatch', minMatch, 1, 64)
}
