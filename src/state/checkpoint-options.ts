/** Which states of a session are kept: checked before what keeps them (checkpoint-ring.ts) is loaded. */

import { checkInteger } from '../errors.ts'

/** Which states a session keeps, to go back to. */
export interface CheckpointOptions {
  /** Tokens between two of them: to go back, at most so many are read again. */
  readonly every: number
  /** How many, the empty text's counted while it is among them: (keep − 1) · every − 1 tokens back are always possible. */
  readonly keep: number
}

const MAX_COUNT = 2 ** 31 - 1

/** RangeError that names the option. */
export function checkCheckpointOptions(options: CheckpointOptions): void {
  for (const name of ['every', 'keep'] as const) checkInteger(`checkpoints.${name}`, options[name], 1, MAX_COUNT)
}
