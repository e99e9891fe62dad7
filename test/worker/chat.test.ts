/** A conversation behind messages, as directly. */
import { expect, test } from 'vitest'
import { Mamba } from '../../src/index.ts'
import type { WorkerMamba } from '../../src/worker/load-in-worker.ts'
import { CHATML } from '../support/chat-templates.ts'
import { filesOf, fixtureModel } from '../support/fixtures.ts'
import { chatTokenizer } from '../tokenizer/small-tokenizers.ts'
import { loadBehindPort } from './behind-port.ts'

const encode = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value))
const SOURCE = {
  ...filesOf(fixtureModel('mamba')),
  'tokenizer.json': encode(chatTokenizer()),
  'tokenizer_config.json': encode({ bos_token: '<s>', eos_token: { content: '<|im_end|>' }, chat_template: CHATML })
}

async function talk(mamba: Mamba | WorkerMamba) {
  const nDone: number[] = []
  const chat = mamba.chat([{ role: 'system', content: 'be brief' }], { temperature: 0, maxTokens: 6, onProgress: ({ doneTokens }) => nDone.push(doneTokens) })
  const before = [chat.messages, chat.reading]
  let streamed = ''
  for await (const { text } of chat.send('hello')) streamed += text
  const middle = [chat.messages, chat.reading]
  const { text, ids } = await chat.complete('a b', { maxTokens: 3 })
  for await (const chunk of chat) streamed += chunk.text
  const result = { before, streamed, middle, text, ids, messages: chat.messages, reading: chat.reading, nDone }
  await chat.dispose()
  return result
}

test('the same replies, messages and reading', async () => {
  await using direct = await Mamba.load(SOURCE, { threads: 1 })
  const { mamba } = await loadBehindPort(SOURCE, { threads: 1 })
  const want = await talk(direct)
  expect(want.messages).toHaveLength(6)
  expect(want.nDone.length).toBeGreaterThan(2)
  expect(await talk(mamba)).toEqual(want)
  await mamba.dispose()
})
