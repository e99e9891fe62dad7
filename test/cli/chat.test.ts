/** `mamba-wasm chat` says line by line what `mamba.chat` says. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Mamba } from '../../src/index.ts'
import { CHATML, LLAMA2 } from '../support/chat-templates.ts'
import { chatTokenizer } from '../tokenizer/small-tokenizers.ts'
import { resultOf, runCli, start, startOnTerminal, temporaryFolder, tinyModel } from './run-cli.ts'

const model = tinyModel({
  'tokenizer.json': JSON.stringify(chatTokenizer()), 'tokenizer_config.json': JSON.stringify({ bos_token: '<s>', eos_token: '<|im_end|>' }), 'chat_template.jinja': CHATML
})
const OPTIONS = { temperature: 0, maxTokens: 8, ignoreEos: true }
const ARGS = [model, '-t', '0', '-n', '8', '--ignore-eos']

/** The replies of the library, each on lines of its own. */
async function repliesTo(questions: readonly string[], system?: string): Promise<string> {
  await using mamba = await Mamba.load(model)
  await using chat = mamba.chat(system === undefined ? [] : [{ role: 'system', content: system }], OPTIONS)
  let all = ''
  for (const question of questions) {
    const { text } = await chat.complete(question)
    all += text.endsWith('\n') ? text : `${text}\n`
  }
  return all
}

test('lines of a pipe are messages of one conversation', async () => {
  const { code, stdout, stderr } = await runCli(['chat', ...ARGS], { input: 'hello\n\nand then?' })
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).toBe(await repliesTo(['hello', 'and then?']))
})

test('/reset begins anew, with the system message, and /exit ends', async () => {
  const { code, stdout } = await runCli(['chat', ...ARGS, '--system', 'Be brief.'], { input: 'hello\n/reset\nhello\n/exit\nhello\n' })
  const reply = await repliesTo(['hello'], 'Be brief.')
  expect([code, stdout]).toEqual([0, reply + reply])
})

test('figures on standard error where they are asked for', async () => {
  const { stderr } = await runCli(['chat', ...ARGS, '--stats'], { input: 'hello\nx\n' })
  // <|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n, then what the second turn adds after eight tokens.
  expect(stderr).toMatch(/^kept 0 tokens; read 24, [\d.,]+ tokens\/s; generated 8, [\d.,]+ tokens\/s; seed \d+\nkept 32 tokens; read 22, [^\n]+\n$/)
})

test('a template of a file', async () => {
  const file = join(temporaryFolder(), 'llama2.jinja')
  writeFileSync(file, LLAMA2)
  const { code, stderr } = await runCli(['chat', ...ARGS, '--stats', '--chat-template', file], { input: 'hello\n' })
  expect([code, stderr]).toEqual([0, expect.stringMatching(/^kept 0 tokens; read 21,/)])
})

test('a model without a template is an error before anything is asked', async () => {
  const { code, stdout, stderr } = await runCli(['chat'], { input: '' })
  expect([code, stdout]).toEqual([1, ''])
  expect(stderr).toMatch(/^mamba-wasm: [^\n]+: expected a chat template [^\n]+, got none\n$/)
})

test('two models are one too many', async () => {
  const { code, stderr } = await runCli(['chat', model, '--model', model])
  expect(code).toBe(2)
  expect(stderr).toMatch(/^mamba-wasm: expected one model, got MODEL and --model\n/)
})

const ENDLESS = ['chat', model, '-n', '100000000', '--ignore-eos', '--seed', '1']

test('SIGINT stops a reply, the next one is asked for, and then SIGINT ends', async () => {
  const child = start(ENDLESS)
  const result = resultOf(child)
  const some = async (): Promise<void> => new Promise((resolve) => child.stdout?.once('data', () => resolve()))
  child.stdin?.write('hello\n')
  await some()
  child.kill('SIGINT')
  await new Promise((resolve) => setTimeout(resolve, 700))
  const next = some()
  child.stdin?.write('hello\n')
  await next
  child.kill('SIGINT')
  await new Promise((resolve) => setTimeout(resolve, 700))
  child.kill('SIGINT')
  const { code, stderr } = await result
  expect([code, stderr]).toEqual([130, ''])
})

test('on a terminal there is a prompt, Ctrl-C stops the reply, and the end of the input ends', async () => {
  const child = startOnTerminal(ENDLESS)
  const result = resultOf(child)
  let shown = ''
  child.stdout?.on('data', (data: Buffer) => (shown += String(data)))
  const until = async (what: () => boolean): Promise<void> => {
    while (!what()) await new Promise((resolve) => setTimeout(resolve, 20))
  }
  await until(() => shown.includes('> '))
  child.stdin?.write('hello\r')
  await until(() => shown.length > 100)
  child.stdin?.write('\u0003')
  const at = shown.length
  await until(() => shown.slice(at).includes('> '))
  child.stdin?.write('\u0004')
  const { code } = await result
  expect(code).toBe(0)
})
