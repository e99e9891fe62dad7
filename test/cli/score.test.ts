/** `mamba-wasm score` tells what `mamba.score` measures. */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { Mamba } from '../../src/index.ts'
import { ALICE, runCli, temporaryFolder, tinyModel } from './run-cli.ts'

const text = readFileSync(ALICE, 'utf8').slice(0, 1200)
const file = join(temporaryFolder(), 'alice.txt')
writeFileSync(file, text)

describe('the embedded model', () => {
  test('with and without windows, as a table and as JSON, from a file and from standard input', async () => {
    const mamba = await Mamba.load()
    const whole = await mamba.score(text)
    const windowed = await mamba.score(text, { window: 300 })
    await mamba.dispose()
    const table = await runCli(['score', file])
    const json = await runCli(['score', '--window', '300', '--json', '-'], { input: text })
    expect([table.code, json.code, table.stderr, json.stderr]).toEqual([0, 0, '', ''])
    expect(table.stdout.split('\n').slice(0, 3)).toEqual([
      `bits per byte  ${whole.bitsPerByte?.toFixed(4)}`, `perplexity     ${whole.perplexity.toFixed(4)}`, 'tokens         1,200'
    ])
    expect(table.stdout).toMatch(/\ntokens\/s +[\d.,]+\n$/)
    const { bitsPerByte, perplexity, nTokens } = windowed
    expect(JSON.parse(json.stdout)).toMatchObject({ bitsPerByte, perplexity, nTokens, window: 300, backend: { name: 'wasm' } })
    expect(bitsPerByte).toBeGreaterThan(whole.bitsPerByte ?? NaN)
  })
})

describe('a model of a folder', () => {
  const tiny = tinyModel()

  test('the text is taken as it is, its last newline included', async () => {
    const { stdout } = await runCli(['score', '--model', tiny, '--json', '-'], { input: 'ab\r\n\n' })
    expect(JSON.parse(stdout)).toMatchObject({ nTokens: 5, window: null })
  })

  test('a text without anything to predict is a failure', async () => {
    expect(await runCli(['score', '--model', tiny, '-'], { input: 'a' })).toEqual({
      code: 1, stdout: '', stderr: 'mamba-wasm: standard input: expected a text of two tokens or more, got 1\n'
    })
  })

  test('a file that is not there', async () => {
    expect(await runCli(['score', '--model', tiny, 'no-such-file.txt'])).toEqual({
      code: 1, stdout: '', stderr: 'mamba-wasm: no-such-file.txt: expected a readable file, got none of that name\n'
    })
  })
})
