/** Whether there is a GPU to test on. */
import { expect, test } from 'vitest'
import { GPUS } from '../../support/gpu.ts'

test('CI has an adapter: without one the tests of the WebGPU backend would not run, and nobody would know', () => {
  console.log(`WebGPU adapter: ${GPUS.join() || 'none'}`)
  expect(GPUS.length).toBeGreaterThanOrEqual(process.env.CI ? 1 : 0)
})
