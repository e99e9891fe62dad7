/** Mamba-2's two forms from the outside: what is told of them, who has them, and that the chunked one stays out of the promise of the same bits. */
import { expect, test } from 'vitest'
import { CheckpointError, digest, type LoadOptions, Mamba, type SsdForm, UnsupportedError } from '../../src/index.ts'
import { runCli } from '../cli/run-cli.ts'
import { reasonOf, untyped } from '../support/anything.ts'
import { expectedDigests, loadForDigest } from '../support/digests.ts'
import { fixtureModel } from '../support/fixtures.ts'

const MAMBA2 = fixtureModel('mamba2')

test.each<[string, string, LoadOptions, SsdForm | null]>([
  ['by default', MAMBA2, {}, 'recurrent'], ['as asked for', MAMBA2, { ssd: 'chunked' }, 'chunked'], ['in a hybrid', fixtureModel('bamba'), { ssd: 'chunked' }, 'chunked'],
  ['in the scalar build', MAMBA2, { build: 'scalar' }, 'recurrent'], ['in the reference backend', MAMBA2, { backend: 'reference' }, 'recurrent'],
  ['of Mamba-1', fixtureModel('mamba'), { ssd: 'recurrent' }, null], ['of Mamba-1 in the reference backend', fixtureModel('mamba'), { backend: 'reference' }, null]
])('the form is told: %s', async (_, source, options, ssd) => {
  await using mamba = await Mamba.load(source, options)
  expect(mamba.backend.ssd).toBe(ssd)
})

test.each<[string, string, LoadOptions]>([
  ['a model without Mamba-2 layers', fixtureModel('mamba'), { ssd: 'chunked' }], ['a hybrid without them', fixtureModel('jamba'), { ssd: 'chunked' }],
  ['the scalar build', MAMBA2, { ssd: 'chunked', build: 'scalar' }], ['the reference backend', MAMBA2, { ssd: 'chunked', backend: 'reference' }],
  ['a form that is none', MAMBA2, { ssd: untyped('quadratic') }]
])('%s is an UnsupportedError', async (_, source, options) => {
  const error = await reasonOf(() => Mamba.load(source, options))
  expect(error).toBeInstanceOf(UnsupportedError)
  expect(String(error)).toMatch(/^UnsupportedError: ssd/)
})

test('by chunks there is another digest, the same for any number of threads', async () => {
  const expected = expectedDigests().filter(({ model, dtype }) => model?.endsWith('/mamba2') && dtype === 'f32')
  expect(expected).toHaveLength(1)
  const digests = new Set<string>()
  for (const threads of [1, 2, 3]) {
    await using mamba = await loadForDigest(expected[0], { ssd: 'chunked', threads })
    digests.add(await digest(mamba))
  }
  expect(digests.size).toBe(1)
  expect(digests).not.toContain(expected[0].digest)
})

test('a state goes on in the form that it comes from, and in no other', async () => {
  const ids = Array.from({ length: 50 }, (_, i) => (7 * i) % 150)
  await using chunked = await Mamba.load(MAMBA2, { ssd: 'chunked' })
  await using recurrent = await Mamba.load(MAMBA2)
  expect(chunked.fingerprint).not.toBe(recurrent.fingerprint)
  await using session = chunked.session()
  await session.append(ids)
  const bytes = await session.save()
  await using restored = await chunked.restore(bytes)
  expect(await restored.forward(ids.slice(0, 20))).toEqual(await session.forward(ids.slice(0, 20)))
  const error = await reasonOf(() => recurrent.restore(bytes))
  expect(error).toBeInstanceOf(CheckpointError)
  expect(String(error)).toContain('saved session: model')
})

test('the command line has it', async () => {
  const { code, stdout } = await runCli(['digest', 'test/fixtures/models/mamba2', '--ssd', 'chunked', '--json', '--quiet'])
  expect(code).toBe(0)
  expect(JSON.parse(stdout)).toMatchObject({ backend: { ssd: 'chunked' } })
  const refused = await runCli(['digest', 'test/fixtures/models/mamba', '--ssd', 'chunked', '--quiet'])
  expect(refused.code).not.toBe(0)
  expect(refused.stderr).toContain('Mamba-2')
})
