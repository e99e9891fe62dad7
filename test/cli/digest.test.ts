/** `mamba-wasm digest` prints the expected digests. */
import { describe, expect, test } from 'vitest'
import { expectedDigests } from '../support/digests.ts'
import { runCli } from './run-cli.ts'

describe('digest', () => {
  test('of the embedded model', async () => {
    const [expected] = expectedDigests().filter(({ model }) => model === null)
    const { code, stdout, stderr } = await runCli(['digest', '--threads', '1', '--quiet'])
    expect([code, stdout, stderr]).toEqual([0, `${expected.digest}\n`, ''])
  })

  test('of a folder, in 8 bits, some tokens at a time and all prompts at once, as JSON', async () => {
    const [expected] = expectedDigests().filter(({ model, dtype }) => model === 'test/fixtures/models/mamba' && dtype === 'q8_0')
    const { code, stdout } = await runCli(['digest', 'test/fixtures/models/mamba', '--dtype', 'q8_0', '--chunk', '11', '--concurrent', '--json', '--quiet'])
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ digest: expected.digest, fingerprint: expect.stringMatching(/^[0-9a-f]{32}$/), backend: { name: 'wasm' } })
  })

  test('with two models is not understood', async () => {
    expect((await runCli(['digest', 'a', '--model', 'b'])).code).toBe(2)
  })
})
