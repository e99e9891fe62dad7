/** A model in a worker of Node's own. Browsers have it in test/runtime. */
import { spawnSync } from 'node:child_process'
import { type Worker } from 'node:worker_threads'
import { expect, test, vi } from 'vitest'
import { Mamba } from '../../src/index.ts'
import { loadInWorker } from '../../src/worker/load-in-worker.ts'
import { reasonOf } from '../support/anything.ts'
import { repositoryPath } from '../support/fixtures.ts'

/** The workers that were started, for who ends one from outside. */
const started: Worker[] = []
vi.mock('node:worker_threads', async (importOriginal) => {
  const original = await importOriginal<typeof import('node:worker_threads')>()
  class KnownWorker extends original.Worker {
    constructor(...args: ConstructorParameters<typeof Worker>) {
      super(...args)
      started.push(this)
    }
  }
  return { ...original, Worker: KnownWorker }
})

const OPTIONS = { maxTokens: 24, seed: 7, ignoreEos: true } as const

test('says the same, with threads of its own, and leaves this thread its turns', async () => {
  await using direct = await Mamba.load()
  await using mamba = await loadInWorker(undefined, { threads: 2 })
  expect(mamba.backend.threads).toBe(2)
  let nTurns = 0
  const timer = setInterval(() => nTurns++, 1)
  const { text } = await mamba.complete('Once', { ...OPTIONS, maxTokens: 200 })
  clearInterval(timer)
  expect(nTurns).toBeGreaterThan(10)
  expect(text).toBe((await direct.complete('Once', { ...OPTIONS, maxTokens: 200 })).text)
})

test('errors are this thread’s classes', async () => {
  expect(await reasonOf(() => loadInWorker(new Uint8Array(10)))).toMatchObject({ name: 'CheckpointError' })
})

test.each([
  ['ended from outside', (worker: Worker) => worker.terminate(), /exit code 1/],
  ['out of memory', (worker: Worker) => worker.emit('error', new Error('Worker terminated due to reaching memory limit')) && worker.terminate(), /failed: Worker terminated due to/]
])('a worker %s rejects what waits and what comes', async (_, end, got) => {
  const mamba = await loadInWorker()
  const waiting = [mamba.complete('Once', { ...OPTIONS, maxTokens: 1e6 }), mamba.session().append('Once '.repeat(50_000))].map((call) => reasonOf(() => call))
  await mamba.complete('Twice', OPTIONS)
  await end(started.at(-1) as Worker)
  for (const error of [...(await Promise.all(waiting)), await reasonOf(() => mamba.complete('Once'))]) {
    expect(error).toMatchObject({ name: 'EngineError', place: 'worker', got: expect.stringMatching(got) })
  }
})

test.each([0, 999, Number.NaN, Infinity, '5000'])('a limit of silence of %j is refused', async (silenceLimitMs) => {
  expect(await reasonOf(() => loadInWorker(undefined, { silenceLimitMs: silenceLimitMs as number }))).toMatchObject({ name: 'RangeError', message: expect.stringContaining('silenceLimitMs') })
})

test.each([
  ['that nobody disposed does not keep the process', '', 'done\n'],
  ['keeps it while somebody waits', 'mamba.complete("Once", { maxTokens: 8, temperature: 0 }).then(({ ids }) => console.log(ids.length));', 'done\n8\n']
])('a model %s', (_, more, stdout) => {
  const script = `
    const { loadInWorker } = await import(${JSON.stringify(new URL('../../src/worker/load-in-worker.ts', import.meta.url).href)})
    const mamba = await loadInWorker()
    ${more}
    console.log('done')`
  const result = spawnSync(process.execPath, ['--conditions=source', '--input-type=module', '--eval', script], { cwd: repositoryPath('.'), encoding: 'utf8', timeout: 30_000 })
  expect({ status: result.status, stdout: result.stdout, stderr: result.stderr }).toEqual({ status: 0, stdout, stderr: '' })
})
