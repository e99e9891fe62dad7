/** Threads: the same bits whatever their number, asleep while idle, gone when they should be, and nothing hangs when one dies. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { platform } from '#platform'
import { EngineError } from '../../src/errors.ts'
import { Mamba } from '../../src/index.ts'
import type { WorkerTask } from '../../src/platform/platform.ts'
import { expectSameBits } from '../support/compare.ts'
import { fixtureModel, repositoryPath } from '../support/fixtures.ts'

const TINY = repositoryPath('test/fixtures/models/mamba')
const IDS = Array.from({ length: 50 }, (_, i) => (i * 37) % 160)

afterEach(() => {
  vi.restoreAllMocks()
})

const MODELS = [
  ['mamba', 'f32'], ['mamba', 'q8_0'], ['bamba', 'f32'], ['granitemoehybrid_moe', 'q4_0'], ['jamba', 'f32'], ['zamba2', 'f32']
] as const

describe.each(MODELS)('%s, %s', (name, dtype) => {
  test.each([2, 3, 4, 5, 6, 7, 8])('%i threads give the bits of one', async (threads) => {
    await using one = await Mamba.load(fixtureModel(name), { dtype, threads: 1 })
    await using many = await Mamba.load(fixtureModel(name), { dtype, threads })
    expect([one.backend.threads, many.backend.threads]).toEqual([1, threads])
    expectSameBits(await many.forward(IDS, { allLogits: true }), await one.forward(IDS, { allLogits: true }), 'a prompt')
    const [a, b] = await Promise.all([one, many].map((mamba) => mamba.complete(IDS, { maxTokens: 12, seed: 1 })))
    expect(b.ids).toEqual(a.ids)
  })
})

describe('a worker that dies', () => {
  /** Changes what the workers of the next model are given. */
  function breakWorkers(change: (task: WorkerTask) => WorkerTask): void {
    const start = platform.startWorker
    vi.spyOn(platform, 'startWorker').mockImplementation((task, onEnd) => start(change(task), onEnd))
  }

  test('in the middle: every waiting call rejects, and every later one', async () => {
    // The last bytes of memory: reading the records behind them traps.
    breakWorkers((task) => ({ ...task, control: task.memory.buffer.byteLength - 4 }))
    const mamba = await Mamba.load(TINY, { threads: 2 })
    const startMs = performance.now()
    const results = await Promise.allSettled([mamba.forward(IDS), mamba.complete(IDS), mamba.score(IDS)])
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
    for (const result of results) expect(result).toMatchObject({ reason: { name: 'EngineError', place: expect.stringContaining('thread') } })
    await expect(mamba.forward(IDS)).rejects.toBeInstanceOf(EngineError)
    expect(performance.now() - startMs).toBeLessThan(5000)
    await mamba.dispose()
  })

  test('while thread 0 waits for it at a barrier', async () => {
    // A module that says it is ready and has no work to do it with.
    breakWorkers((task) => ({ ...task, module: new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0)) }))
    const startMs = performance.now()
    const mamba = await Mamba.load(TINY, { threads: 2 })
    await expect(mamba.forward(IDS)).rejects.toBeInstanceOf(EngineError)
    expect(performance.now() - startMs).toBeLessThan(5000)
    await mamba.dispose()
  })

  test('before it is ready: loading rejects', async () => {
    // A module that asks for a function x.y, which nobody gives it.
    const needy = new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 2, 7, 1, 1, 120, 1, 121, 0, 0))
    breakWorkers((task) => ({ ...task, module: needy }))
    await expect(Mamba.load(TINY, { threads: 2 })).rejects.toMatchObject({ name: 'EngineError', message: expect.stringMatching(/"?x"?/) })
  })
})

const run = promisify(execFile)

/** Runs a script with `Mamba` in a process of its own and returns its last line as JSON. */
async function inProcess(script: string, ...flags: string[]): Promise<Record<string, number>> {
  const program = `
    import { readFileSync } from 'node:fs'
    import { setTimeout } from 'node:timers/promises'
    import { Mamba } from ${JSON.stringify(repositoryPath('src/index.ts'))}
    const load = (threads) => Mamba.load(${JSON.stringify(TINY)}, { threads })
    const nThreads = () => Number(/^Threads:\\s+(\\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))[1])
    ${script}
  `
  const { stdout } = await run(process.execPath, ['--conditions=source', ...flags, '--input-type=module', '--eval', program], { timeout: 20_000 })
  return JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '')
}

describe('the process', () => {
  test('ends by itself while workers wait for work', async () => {
    await inProcess('const mamba = await load(4); await mamba.forward([1, 2, 3]); console.log("{}")')
  })

  test('does not burn the CPU while idle', async () => {
    const { usedMs } = await inProcess(`
      const mamba = await load(4)
      await mamba.forward([1, 2, 3])
      await setTimeout(100)
      const before = process.cpuUsage()
      await setTimeout(1000)
      const { user, system } = process.cpuUsage(before)
      console.log(JSON.stringify({ usedMs: (user + system) / 1000 }))
    `)
    expect(usedMs).toBeLessThan(100)
  })

  test('has its threads back after dispose', async () => {
    const { before, during, after } = await inProcess(`
      await (await load(1)).forward([1])
      const before = nThreads()
      const mamba = await load(5)
      await mamba.forward([1, 2, 3])
      const during = nThreads()
      await mamba.dispose()
      await setTimeout(200)
      console.log(JSON.stringify({ before, during, after: nThreads() }))
    `)
    expect(during - before).toBeGreaterThanOrEqual(4)
    expect(after).toBeLessThanOrEqual(before)
  })

  test('has its threads back when nobody holds the model any more', async () => {
    const { before, after } = await inProcess(`
      await (await load(1)).forward([1])
      const before = nThreads()
      await (async () => { await (await load(5)).forward([1, 2, 3]) })()
      for (let i = 0; i < 40 && nThreads() > before; i++) { globalThis.gc(); await setTimeout(50) }
      console.log(JSON.stringify({ before, after: nThreads() }))
    `, '--expose-gc')
    expect(after).toBeLessThanOrEqual(before)
  })
})
