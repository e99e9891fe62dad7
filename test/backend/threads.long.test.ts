/** The deadline at a barrier, for a thread that neither works nor says that it has failed. */
import { expect, test, vi } from 'vitest'
import { platform } from '#platform'
import { EngineError } from '../../src/errors.ts'
import { Mamba } from '../../src/index.ts'
import { repositoryPath } from '../support/fixtures.ts'

test('a thread that stays away is missed after half a minute', { timeout: 120_000 }, async () => {
  const start = platform.startWorker
  vi.spyOn(platform, 'startWorker').mockImplementation((task, onEnd) =>
    // It watches a memory of its own, where nothing ever happens.
    start({ ...task, memory: new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }), control: 32768, failed: 0, exit: 4, pages: { start: 0, end: 0, step: 1 } }, onEnd)
  )
  const mamba = await Mamba.load(repositoryPath('test/fixtures/models/mamba'), { threads: 2 })
  const startMs = performance.now()
  await expect(mamba.forward([1, 2, 3])).rejects.toBeInstanceOf(EngineError)
  const elapsedMs = performance.now() - startMs
  expect(elapsedMs).toBeGreaterThan(20_000)
  expect(elapsedMs).toBeLessThan(60_000)
})
