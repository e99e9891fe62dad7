/** `mamba-wasm generate` prints what `mamba.complete` gives, and nothing else. */

import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Mamba } from '../../src/index.ts'
import { ROOT, runCli, tinyModel } from './run-cli.ts'

const tiny = tinyModel()
/** A model of random weights ends at some token or other. */
const TINY = ['--model', tiny, '--ignore-eos', '--max-tokens', '24']
const PROMPT = 'Alice was beginning to get very tired of'

describe('the embedded model', () => {
  test('prompt and text on standard output, figures on standard error, no escape codes', async () => {
    const { code, stdout, stderr } = await runCli(['generate', '--max-tokens', '12', '--temperature', '0'])
    const mamba = await Mamba.load()
    const { text } = await mamba.complete(PROMPT, { maxTokens: 12, temperature: 0 })
    await mamba.dispose()
    expect(code).toBe(0)
    expect(stdout).toBe(`${PROMPT}${text}\n`)
    expect(stderr).toMatch(/^prompt 40 tokens, [\d.,]+ tokens\/s; generated 12 tokens, [\d.,]+ tokens\/s; \d+ threads?, wasm simd[a-z-]*; memory [\d.]+ MB wasm, [\d.]+ [kM]B ArrayBuffers; seed \d+\n$/)
  })
})

describe('a model of a folder', () => {
  let mamba: Mamba
  beforeAll(async () => {
    mamba = await Mamba.load(tiny)
  })
  afterAll(() => mamba.dispose())

  test('every option reaches the sampler', async () => {
    const options = { maxTokens: 24, temperature: 1.1, topK: 20, topP: 0.9, minP: 0.01, repetitionPenalty: 1.3, seed: 5, ignoreEos: true }
    const args = ['-t', '1.1', '--top-k', '20', '--top-p', '0.9', '--min-p', '0.01', '--repetition-penalty', '1.3', '-s', '5']
    const { stdout } = await runCli(['generate', ...TINY, ...args, '--json', 'Once'])
    const { text, ids, usage, finishReason, stop, seed } = await mamba.complete('Once', options)
    expect(JSON.parse(stdout)).toMatchObject({ prompt: 'Once', text, ids, usage, finishReason, stop, seed })
  })

  test('the same seed gives the same text in either build, another one another', async () => {
    const [first, second, other] = await Promise.all(
      [['7', 'simd'], ['7', 'scalar'], ['8', 'simd']].map(([seed, build]) => runCli(['generate', ...TINY, '--quiet', '--seed', seed, '--build', build, 'Once']))
    )
    expect(first).toEqual({ code: 0, stdout: second.stdout, stderr: '' })
    expect(other.stdout).not.toBe(first.stdout)
    expect(first.stdout).toMatch(/^Once/)
  })

  test('JSON is one line with the figures', async () => {
    const { code, stdout, stderr } = await runCli(['generate', ...TINY, '--json', '--quiet', '--backend', 'reference', 'Once'])
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout.trimEnd()).not.toContain('\n')
    expect(JSON.parse(stdout)).toMatchObject({
      usage: { promptTokens: 4, completionTokens: 24 },
      timings: { promptMs: expect.any(Number), generatedTokensPerSecond: expect.any(Number) },
      backend: { name: 'reference', build: 'float64', threads: 1, memoryBytes: { total: expect.any(Number), arrayBuffers: expect.any(Number) } }
    })
  })

  test('the figures name the seed that repeats the text', async () => {
    const { stdout, stderr } = await runCli(['generate', ...TINY, 'Once'])
    const seed = /seed (\d+)\n$/.exec(stderr)?.[1] ?? ''
    expect((await runCli(['generate', ...TINY, '--seed', seed, 'Once'])).stdout).toBe(stdout)
  })

  test('the prompt comes from standard input, whole, without the newline at its end', async () => {
    const { stdout } = await runCli(['generate', ...TINY, '--json', '--quiet', '-'], { input: 'two\nlines\n' })
    expect(JSON.parse(stdout)).toMatchObject({ prompt: 'two\nlines', usage: { promptTokens: 9 } })
  })

  test('stop strings end the text before them', async () => {
    const { text } = await mamba.complete('Once', { maxTokens: 24, seed: 7, ignoreEos: true })
    const stop = text.slice(6, 9)
    const { stdout } = await runCli(['generate', ...TINY, '--seed', '7', '--json', '--stop', 'not there', '--stop', stop, 'Once'])
    expect(JSON.parse(stdout)).toMatchObject({ finishReason: 'stop', stop, text: text.slice(0, text.indexOf(stop)) })
  })
})

describe('failures have exit code 1 and one line', () => {
  test.each([
    ['no such model', ['--model', './no-such-model'], /no-such-model/],
    ['a model without a tokenizer', ['--model', join(ROOT, 'test/fixtures/models/mamba')], /expected a tokenizer\.json/],
    ['an empty prompt', ['--model', tiny, ''], /expected at least one token/],
    [
      'a config that contradicts the weights',
      ['--model', tinyModel({ 'config.json': JSON.stringify({ model_type: 'mamba', vocab_size: 160, hidden_size: 48, num_hidden_layers: 3 }) })],
      /backbone\.embeddings\.weight: expected .*\(160, 48\), got \(160, 32\)/
    ]
  ])('%s', async (_, args, message) => {
    const { code, stdout, stderr } = await runCli(['generate', ...args])
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(/^mamba-wasm: [^\n]*\n$/)
    expect(stderr).toMatch(message)
  })

  test('standard input that is not UTF-8', async () => {
    const { code, stderr } = await runCli(['generate', '-'], { input: Buffer.from([0xc3, 0x28]) })
    expect(code).toBe(1)
    expect(stderr).toBe('mamba-wasm: standard input: expected text in UTF-8, got other bytes\n')
  })
})
