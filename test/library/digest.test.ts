/** The promise in one number: every engine has the digests that are in the repository, however it goes about it. */
import { describe, expect, test } from 'vitest'
import { digest, type DigestOptions, type LoadOptions } from '../../src/index.ts'
import { expectedDigests, loadForDigest } from '../support/digests.ts'

interface Way {
  readonly name: string
  readonly load?: LoadOptions
  readonly options?: DigestOptions
}

const WAYS: readonly Way[] = [
  { name: 'as it comes' },
  { name: 'scalar', load: { build: 'scalar' } },
  { name: 'SIMD, one thread, 7 tokens at a time', load: { build: 'simd', threads: 1 }, options: { chunk: 7 } },
  { name: 'SIMD, two threads', load: { build: 'simd', threads: 2 } },
  { name: 'two threads, all at once, two slots', load: { threads: 2, maxBatch: 2 }, options: { isConcurrent: true, chunk: 33 } },
  { name: 'with a prefix cache', load: { threads: 1, prefixCache: { maxBytes: 1e8 } }, options: { isConcurrent: true } }
]
/** A large model is read in some ways only: the scalar build takes its time. */
const FEWER_WAYS = WAYS.filter(({ name }) => /comes|two threads/.test(name))

describe.each(expectedDigests())('$model, $dtype', (expected) => {
  test.each(expected.model?.startsWith('test/fixtures') ? WAYS : FEWER_WAYS)('$name', async ({ load, options }) => {
    await using mamba = await loadForDigest(expected, load)
    expect(await digest(mamba, options)).toBe(expected.digest)
  })
})

test('they are all different, and there is one for each architecture in each format', () => {
  const [embedded, ...all] = expectedDigests()
  expect(new Set(all.map((entry) => entry.digest)).size).toBe(all.length)
  // The embedded model is classics-8m, written in 8 bits beforehand: rounded here while it loads, it is the same.
  expect(all.find(({ model, dtype }) => model === 'test/models/classics-8m' && dtype === 'q8_0')?.digest).toBe(embedded.digest)
  for (const name of ['mamba', 'falcon_mamba', 'mamba2', 'mamba2_groups', 'bamba', 'falcon_h1', 'granitemoehybrid', 'granitemoehybrid_moe', 'jamba', 'nemotron_h', 'zamba2']) {
    expect(all.filter(({ model }) => model === `test/fixtures/models/${name}`).map(({ dtype }) => dtype), name).toEqual(['f32', 'q8_0'])
  }
})

test('other arithmetic has another one, and an abort ends it', async () => {
  const [expected] = expectedDigests().filter(({ model }) => model?.endsWith('/mamba'))
  await using reference = await loadForDigest(expected, { backend: 'reference' })
  expect(await digest(reference)).not.toBe(expected.digest)
  await expect(digest(reference, { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough')
})
