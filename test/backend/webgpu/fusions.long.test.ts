/** Steps of every architecture by fused kernels: fusions.test.ts has some of them. */
import { expect, test } from 'vitest'
import { checkFusedSteps, FUSED_MODELS } from '../../support/fused-steps.ts'
import { gpuDevice, GPUS } from '../../support/gpu.ts'

test('there are models', () => expect(FUSED_MODELS.length).toBeGreaterThan(10))

test.each(GPUS.flatMap(() => FUSED_MODELS))('%s: prompts, then steps of one sequence and of two', { timeout: 180_000 }, async (name) => checkFusedSteps(name, await gpuDevice()))
