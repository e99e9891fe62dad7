/** Help, version, and command lines that say nothing sensible. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { describeOptions, type OptionTable, parseOptions, UsageError } from '../../src/cli/options.ts'
import { ROOT, runCli } from './run-cli.ts'

describe('help', () => {
  test('of the program names every command', async () => {
    const { code, stdout, stderr } = await runCli(['--help'])
    expect(code).toBe(0)
    expect(stderr).toBe('')
    for (const name of ['generate', 'chat', 'score', 'inspect']) expect(stdout).toMatch(new RegExp(`^  ${name} `, 'm'))
  })

  test.each([
    ['generate', ['--max-tokens', '--temperature', '--top-k', '--top-p', '--min-p', '--repetition-penalty', '--seed', '--stop', '--ignore-eos', '--model', '--threads']],
    ['chat', ['--system', '--chat-template', '--stats', '--temperature', '--seed', '--threads', '/reset', '/exit']],
    ['score', ['--window', '--model', '--json']],
    ['inspect', ['--json', '--revision']]
  ])('of %s names its options and has examples, within 80 columns', async (command, options) => {
    const { code, stdout } = await runCli([command, '--help'])
    expect(code).toBe(0)
    for (const option of options) expect(stdout).toContain(option)
    expect(stdout).toContain(`\n  mamba-wasm ${command}`)
    expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80)
  })

  test('the version is that of the package', async () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
    expect(await runCli(['--version'])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' })
  })
})

describe('exit code 2, with what was expected and where the help is', () => {
  test.each([
    [[], /expected a command: generate, chat, score, inspect/, 'mamba-wasm --help'],
    [['sing'], /expected a command .*got "sing"/, 'mamba-wasm --help'],
    [['generate', '--sing'], /Unknown option '--sing'/, 'mamba-wasm generate --help'],
    [['generate', '--top-p', '1.5'], /--top-p: expected a number, from 0 to 1, got "1.5"/, 'mamba-wasm generate --help'],
    [['score'], /expected a FILE, got none/, 'mamba-wasm score --help']
  ])('%j', async (args, message, help) => {
    const { code, stdout, stderr } = await runCli(args)
    expect(code).toBe(2)
    expect(stdout).toBe('')
    expect(stderr).toMatch(/^mamba-wasm: /)
    expect(stderr).toMatch(message)
    expect(stderr.split('\n').at(-2)).toBe(`See: ${help}`)
  })
})

describe('options', () => {
  const table = {
    name: { kind: 'text', value: 'NAME', short: 'n', help: 'a name' },
    stop: { kind: 'texts', value: 'TEXT', help: 'several' },
    count: { kind: 'integer', value: 'N', min: 1, help: 'how many' },
    share: { kind: 'number', value: 'X', min: 0, max: 1, fallback: 0.5, help: 'how much' },
    build: { kind: 'choice', choices: ['auto', 'simd'], fallback: 'auto', help: 'which' },
    loud: { kind: 'flag', help: 'aloud' }
  } as const satisfies OptionTable

  test('what is not given has its fallback', () => {
    expect(parseOptions(table, [])).toEqual({
      values: { name: undefined, stop: [], count: undefined, share: 0.5, build: 'auto', loud: false }, operands: []
    })
  })

  test('what is given is of its kind', () => {
    const args = ['-n', 'x', '--stop', 'a', 'one', '--stop=b', '--count', '3', '--share', '1', '--build=simd', '--loud', '-', '--', '--two']
    expect(parseOptions(table, args)).toEqual({
      values: { name: 'x', stop: ['a', 'b'], count: 3, share: 1, build: 'simd', loud: true }, operands: ['one', '-', '--two']
    })
  })

  test.each([
    ['--count=0'], ['--count=1.5'], ['--count='], ['--count=many'], ['--count=NaN'], ['--count'], ['--count', '-1'], ['--count=9007199254740993'],
    ['--share=-0.1'], ['--share=1.1'], ['--share=Infinity'], ['--share= '], ['--build=fast'], ['--loud=yes'], ['--nam=x'], ['-x']
  ])('refuses %s %s', (...args) => {
    expect(() => parseOptions(table, args)).toThrow(UsageError)
  })

  test('the help has a line for each', () => {
    expect(describeOptions(table).split('\n').map((line) => line.trim().split(/  +/)[0])).toEqual([
      '-n, --name NAME', '--stop TEXT', '--count N', '--share X', '--build auto|simd', '--loud'
    ])
  })
})
