/** A model in use for long takes no more memory than one in use for a while: 10,000 tokens of one session, 1,000 requests of their own. */
import { spawnSync } from 'node:child_process'
import { pathToFileURL } from 'node:url'
import { expect, test } from 'vitest'
import { fixtureModel, repositoryPath } from '../support/fixtures.ts'

/**
 * In a process of its own, after a garbage collection: JavaScript's heap, and what is beside it (wasm memory, ArrayBuffers). Measured after 1000 tokens
 * or 300 requests, since code is compiled and tables are made before that, and at the end. (With the hybrid the heap gains 440 KB from request 100 to
 * 1000, 60 KB to 2000 and nothing to 5000.)
 */
const SCRIPT = `
const [index, source, work, atOnce] = process.argv.slice(1)
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
    await generate(10_000)
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
    const requests = async (first, end) => {
      for (let i = first; i < end; i += Number(atOnce)) await Promise.all(Array.from({ length: Number(atOnce) }, (_, j) => request(i + j)))
    }
    await requests(0, 300)
    const before = await settled()
    await requests(300, 1300)
    return { before, after: await settled(), count }
  }
}
console.log(JSON.stringify(await works[work]()))
await mamba.dispose()
`

type Memory = Readonly<Record<'heapUsed' | 'external' | 'arrayBuffers', number>>

/** A leak of a few hundred bytes a request would show; what V8 keeps of its own accord is less. */
const MAX_GROWTH_BYTES = 500_000

/** Of many at once states wait for a turn, as many as it happens; their memory is kept for the next, up to this (src/state/snapshot.ts). */
const MAX_PARKED_BYTES = 2 ** 25

const CASES: readonly (readonly [work: 'tokens' | 'requests', model: string, source: string, count: number, atOnce: number])[] = [
  ['tokens', 'the embedded model', '', 11_000, 1],
  ['requests', 'the embedded model', '', 1300, 1],
  ['requests', 'the embedded model', '', 1300, 10],
  ['requests', 'a hybrid', fixtureModel('zamba2'), 1300, 10]
]

test.each(CASES)('no memory grows over %s of %s (case %#)', { timeout: 600_000 }, (work, _, source, count, atOnce) => {
  const index = pathToFileURL(repositoryPath('src/index.ts')).href
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', '--conditions=source', '--input-type=module', '-e', SCRIPT, index, source, work, `${atOnce}`], { encoding: 'utf8' })
  expect([status, stderr]).toEqual([0, ''])
  const measured = JSON.parse(stdout) as { readonly before: Memory; readonly after: Memory; readonly count: number }
  expect(measured.count).toBe(count)
  const growth = Object.fromEntries(Object.entries(measured.after).map(([kind, bytes]) => [kind, bytes - measured.before[kind as keyof Memory]]))
  console.log(`${work}: ${JSON.stringify(growth)} bytes more, beside ${JSON.stringify(measured.before)}`)
  const { heapUsed, ...besideHeap } = growth
  expect(heapUsed).toBeLessThan(MAX_GROWTH_BYTES)
  for (const bytes of Object.values(besideHeap)) expect(bytes).toBeLessThan(atOnce === 1 ? MAX_GROWTH_BYTES : MAX_PARKED_BYTES)
})
