/** `mamba-wasm bench`: speeds and profiles of the embedded model, as text and as JSON. */
import { describe, expect, test } from 'vitest'
import { benchCommand } from '../../src/cli/bench-command.ts'
import { createTerminal, type OutputStream } from '../../src/cli/terminal.ts'
import type { Profile } from '../../src/profile.ts'
import { fixtureModel } from '../support/fixtures.ts'
import { GPUS } from '../support/gpu.ts'

async function run(args: readonly string[], signal = new AbortController().signal): Promise<string> {
  let text = ''
  const stream: OutputStream = { write: (part) => Boolean((text += part)) || true, once() {} }
  await benchCommand.run({ terminal: createTerminal({ out: stream, err: stream, env: {} }), signal, env: {}, onInterrupt() {} }, args)
  return text
}

const SHORT = ['--tokens', '20', '--steps', '3', '--repeats', '2', '--quiet']

describe('mamba-wasm bench', () => {
  test('tells the speeds', async () => {
    const text = await run([...SHORT, '--threads', '1', '--build', 'simd'])
    expect(text).toMatch(/^backend +wasm simd, 1 thread\nprompt of 20 tokens +[\d.,]+ tokens\/s\none token at a time +[\d.,]+ tokens\/s, [\d.]+ ms each\n$/)
  })

  test.each([1, 2])('profiles a chunk and a token, threads: %i', async (threads) => {
    const text = await run([...SHORT, '--threads', String(threads), '--profile'])
    expect(text).toMatch(/\n1 token: [\d.]+ ms op by op, [\d.]+ ms in one go \([\d.,]+ tokens\/s\)\n {2}one core: [\d.]+ GFLOP\/s in f32/)
    expect(text.match(/\n {2}selectiveScan +8 /g)).toHaveLength(2)
    expect(text.match(/\n {2}outside linear and scan: [\d.]+ %/g)).toHaveLength(2)
    expect(text.includes('each op ends with a barrier')).toBe(threads > 1)
  })

  test.each(GPUS)('profiles on %s', { timeout: 120_000 }, async () => {
    const text = await run(['--model', fixtureModel('mamba'), ...SHORT, '--backend', 'webgpu', '--profile'])
    expect(text).toContain("Op by op times are the GPU's own")
    expect(text).toMatch(/\n1 token: [\d.]+ ms op by op, [\d.]+ ms in one go \([\d.,]+ tokens\/s\)\n {2}op +ops +ms +share +rate\n/)
    expect(text.match(/\n {2}selectiveScan +3 /g)).toHaveLength(2)
    expect(text).not.toContain('limit')
  })

  test('within the context of a model with attention', async () => {
    const args = ['--model', fixtureModel('bamba'), ...SHORT, '--threads', '1', '--profile', '--json']
    const report: { profile: { chunk: Profile } } = JSON.parse(await run([...args, '--context-length', '23']))
    expect(report.profile.chunk.nTokens).toBe(23)
    await expect(run([...args, '--context-length', '22'])).rejects.toThrow('contextLength: expected at most 22 tokens')
  })

  test('as JSON', async () => {
    const report = JSON.parse(await run([...SHORT, '--json', '--profile']))
    expect(report).toMatchObject({ backend: { name: 'wasm' }, prefill: { nTokens: 20 }, decode: { nTokens: 3 } })
    expect(report.prefill.samplesMs).toHaveLength(2)
    const { chunk, token }: { chunk: Profile; token: Profile } = report.profile
    expect(token.nTokens).toBe(1)
    expect(chunk.nTokens).toBeGreaterThan(16)
    for (const { lines, limits } of [chunk, token]) {
      expect(lines.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 6)
      expect(Object.values(limits ?? {}).every((value) => value > 0 && Number.isFinite(value))).toBe(true)
    }
  })

  test('refuses what has no sense', async () => {
    await expect(run(['a', '--model', 'b'])).rejects.toThrow('expected MODEL or --model, got both')
    await expect(run(['--profile', '--build', 'scalar'])).rejects.toThrow('the limits are those of SIMD')
    await expect(run(SHORT, AbortSignal.abort(new Error('enough')))).rejects.toThrow('enough')
  })
})
