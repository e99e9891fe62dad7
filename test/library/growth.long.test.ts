/** A model in use for long takes no more memory than one in use for a while: 10,000 tokens of one session, 1,000 requests of their own. */
import { spawnSync } from 'node:child_process'
import { pathToFileURL } from 'node:url'
import { expect, test } from 'vitest'
import { fixtureModel, repositoryPath } from '../support/fixtures.ts'

/**
 * In a process of its own, after a garbage collection: JavaScript's heap, and what is beside it (wasm memory, ArrayBuffers). Measured when a tenth is
 * done, since code is compiled and tables are made before that, and at the end.
 */
const SCRIPT = `
const [index, source, work] = process.argv.slice(1)
const { Mamba } = await import(index)
const mamba = await Mamba.load(source === '' ? undefined : source, { threads: 1 })
const settled = async () => {
  for (let i = 0; i < 5; i++) {
    await new Promise((resolve) => setTimeout(resolve, 20))
    globalThis.gc()
  }
  const { heapUsed, external, arrayBuffers } = process.memoryUsage()
  return { heapUsed, external, arrayBuffers }
}
const options = { temperature: 0.8, ignoreEos: true }
const works = {
  async tokens() {
    const session = mamba.session()
    await session.append([1, 2, 3])
    const generate = async (maxTokens) => {
      for await (const _ of session.generate({ ...options, maxTokens, seed: 1 }));
    }
    await generate(1000)
    const before = await settled()
    await generate(9000)
    const after = await settled()
    const { position } = session
    await session.dispose()
    return { before, after, count: position - 3 }
  },
  async requests() {
    let count = 0
    const request = async (i) => {
      const { ids } = await mamba.complete([1 + (i % 100), 2, 3], { ...options, maxTokens: 4, seed: i })
      if (ids.length === 4) count++
      const session = mamba.session()
      await session.append([3, 2, 1])
      const restored = await mamba.restore(await session.save())
      await restored.dispose()
      await session.dispose()
      // Some are left before their end, as a client does that goes away.
      if (i % 10 === 0) for await (const _ of mamba.generate([5, 6], { ...options, maxTokens: 50, seed: i })) break
    }
    // Ten at once: states that wait for a turn are parked in memory that is used again.
    const requests = async (first, end) => {
      for (let i = first; i < end; i += 10) await Promise.all(Array.from({ length: 10 }, (_, j) => request(i + j)))
    }
    await requests(0, 100)
    const before = await settled()
    await requests(100, 1000)
    return { before, after: await settled(), count }
  }
}
console.log(JSON.stringify(await works[work]()))
await mamba.dispose()
`

type Memory = Readonly<Record<'heapUsed' | 'external' | 'arrayBuffers', number>>

/** A leak of a few hundred bytes a request would show; what V8 keeps of its own accord is less. */
const MAX_GROWTH_BYTES = 500_000

const CASES: readonly (readonly [model: string, work: 'tokens' | 'requests', source: string, count: number])[] = [
  ['the embedded model', 'tokens', '', 10_000],
  ['the embedded model', 'requests', '', 1000],
  ['a hybrid', 'requests', fixtureModel('zamba2'), 1000]
]

test.each(CASES)('%s: no memory grows over its %s', { timeout: 600_000 }, (_, work, source, count) => {
  const index = pathToFileURL(repositoryPath('src/index.ts')).href
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', '--conditions=source', '--input-type=module', '-e', SCRIPT, index, source, work], { encoding: 'utf8' })
  expect([status, stderr]).toEqual([0, ''])
  const measured = JSON.parse(stdout) as { readonly before: Memory; readonly after: Memory; readonly count: number }
  expect(measured.count).toBe(count)
  const growth = Object.fromEntries(Object.entries(measured.after).map(([kind, bytes]) => [kind, bytes - measured.before[kind as keyof Memory]]))
  console.log(`${work}: ${JSON.stringify(growth)} bytes more, beside ${JSON.stringify(measured.before)}`)
  for (const bytes of Object.values(growth)) expect(bytes).toBeLessThan(MAX_GROWTH_BYTES)
})
