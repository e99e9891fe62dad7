/** Damaged checkpoints by the thousand. */
import { test } from 'vitest'
import { checkMutations } from '../support/mutate.ts'

test.each([2, 3, 4])('damaged files load, or are refused by name, seed %i', { timeout: 600_000 }, (seed) => checkMutations(3000, seed))
