/** Damaged checkpoints, some hundreds; thousands in mutation.long.test.ts. */
import { test } from 'vitest'
import { checkMutations } from '../support/mutate.ts'

test('damaged files load, or are refused by name', { timeout: 120_000 }, () => checkMutations(400, 1))
