/** The examples of examples/, as they stand there, on the packed package: each in its runtime, with the text that the library gives here. */

import { execFile } from 'node:child_process'
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type ChatMessage, Mamba } from '../../src/index.ts'
import { CHATML } from '../support/chat-templates.ts'
import { fixtureModel, repositoryPath } from '../support/fixtures.ts'
import { chatTokenizer } from '../tokenizer/small-tokenizers.ts'
import { expectSame, runEdgeExample } from './edge-example.ts'
import { program } from './installs.ts'

const run = promisify(execFile)

const PROMPT = 'The captain looked at the'

/** By name; each gives what it found, or throws. */
export const EXAMPLES: Readonly<Record<string, (folder: string) => Promise<string>>> = {
  'examples/node/write.js': async (folder) => writes(await copyExample(folder, 'node'), process.execPath, ['write.js']),
  'examples/node/sessions.js': runSessions,
  'examples/chat/chat.js': runChat,
  'examples/deno/write.ts': async (folder) =>
    writes(await copyExample(folder, 'deno'), await program('deno', 'deno'), ['run', '--allow-read', '--allow-env', '--allow-sys', 'write.ts']),
  'examples/bun/write.ts': async (folder) => writes(await copyExample(folder, 'bun'), await program('bun', 'bun'), ['write.ts']),
  'examples/edge/worker.js': async (folder) => runEdgeExample(await copyExample(folder, 'edge'))
}

/** A folder of its own within the project, whose packages it finds. */
async function copyExample(folder: string, name: string): Promise<string> {
  const target = join(folder, 'examples', name)
  await rm(target, { recursive: true, force: true })
  await mkdir(target, { recursive: true })
  await cp(repositoryPath(`examples/${name}`), target, { recursive: true })
  return target
}

async function writes(folder: string, command: string, args: readonly string[]): Promise<string> {
  const { stdout } = await run(command, [...args, PROMPT], { cwd: folder, timeout: 60_000 })
  await using mamba = await Mamba.load()
  const { text } = await mamba.complete(PROMPT, { maxTokens: 120, seed: 3 })
  expectSame('its text', stdout, `${PROMPT}${text}\n`)
  return JSON.stringify(stdout.slice(0, 60))
}

async function runSessions(folder: string): Promise<string> {
  const cwd = await copyExample(folder, 'node')
  const begun = await run(process.execPath, ['sessions.js'], { cwd, timeout: 60_000 })
  const goneOn = await run(process.execPath, ['sessions.js', 'story.state'], { cwd, timeout: 60_000 })
  await using mamba = await Mamba.load()
  const session = mamba.session()
  await session.append('It was a dark night, and the old house')
  const other = session.fork()
  const one = await session.complete({ maxTokens: 60, seed: 1 })
  const two = await other.complete({ maxTokens: 60, seed: 2 })
  const more = await session.complete({ maxTokens: 60, seed: 5 })
  expectSame('both branches', begun.stdout, `one:${one.text}\ntwo:${two.text}\nsaved: story.state\n`)
  expectSame('after the restart', goneOn.stdout, `${more.text}\n`)
  return `${(await readFile(join(cwd, 'story.state'))).byteLength} bytes saved, and gone on with in another process`
}

/** With a fixture of random weights, a tokenizer of single characters and a template. */
async function runChat(folder: string): Promise<string> {
  const cwd = await copyExample(folder, 'chat')
  const model = join(cwd, 'model')
  await cp(fixtureModel('mamba'), model, { recursive: true })
  await writeFile(join(model, 'tokenizer.json'), JSON.stringify(chatTokenizer()))
  await writeFile(join(model, 'tokenizer_config.json'), JSON.stringify({ bos_token: '<s>', eos_token: '<|im_end|>', chat_template: CHATML }))
  await using mamba = await Mamba.load(model)
  let messages: readonly ChatMessage[] = []
  for (const lines of [['hello', 'what is it'], ['and more']]) {
    await using chat = mamba.chat(messages, { maxTokens: 500, seed: 3 })
    let expected = ''
    for (const line of lines) expected += `${(await chat.complete(line)).text}\n`
    const running = run(process.execPath, ['chat.js', 'model'], { cwd, timeout: 60_000 })
    running.child.stdin?.end(`${lines.join('\n')}\n`)
    expectSame('what it writes', (await running).stdout, expected)
    messages = JSON.parse(await readFile(join(cwd, 'chat.json'), 'utf8')) as ChatMessage[]
    expectSame('what it keeps', JSON.stringify(messages), JSON.stringify(chat.messages))
  }
  return `${messages.length} messages, in two runs`
}
