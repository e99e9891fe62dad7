/** Conversations in a state: the same tokens and replies as one long text that is read from the start. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type ChatMessage, type ChatOptions, CheckpointError, type Completion, type GenerateChunk, Mamba, UnsupportedError } from '../../src/index.ts'
import { recordFiles } from '../../src/checkpoint/file-set.ts'
import { convertToGguf } from '../../src/convert.ts'
import { CHATML, DIALOGUE, FALCON, LLAMA2, THINKING } from '../support/chat-templates.ts'
import { filesOf, fixtureModel } from '../support/fixtures.ts'
import { CHAT_CHARACTERS, CHAT_TOKENS, chatTokenizer } from '../tokenizer/small-tokenizers.ts'

const WEIGHTS = filesOf(fixtureModel('mamba'))
const encode = (value: unknown): Uint8Array => new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value))
const CONFIG = { bos_token: '<s>', eos_token: { content: '<|im_end|>' }, chat_template: CHATML }

async function load(changes: Record<string, unknown> = {}): Promise<Mamba> {
  const texts = Object.entries({ 'tokenizer.json': chatTokenizer(), 'tokenizer_config.json': CONFIG, ...changes }).filter(([, value]) => value !== undefined)
  return Mamba.load({ ...WEIGHTS, ...Object.fromEntries(texts.map(([name, value]) => [name, encode(value)])) }, { threads: 1 })
}

let mamba: Mamba
beforeAll(async () => {
  mamba = await load()
})
afterAll(async () => mamba.dispose())

/** By the vocabulary's list: the test's own tokenizer. */
function idsOf(text: string): number[] {
  const pieces = text.split(/(<unk>|<s>|<\/s>|<\|im_end\|>|<\|im_start\|>)/)
  const idOf = (character: string): number => 5 + CHAT_CHARACTERS.indexOf(character)
  return pieces.flatMap((piece) => (CHAT_TOKENS.includes(piece) ? [CHAT_TOKENS.indexOf(piece)] : Array.from(piece, idOf)))
}

/** Nothing ends the reply before its six tokens. */
const SIX: ChatOptions = { temperature: 0, maxTokens: 6, ignoreEos: true }

/** A reply up to the token that ends it in a chat. */
function endsBefore(ids: readonly number[], text: string): Pick<Completion, 'ids' | 'text'> {
  return ids.includes(3) ? { ids: ids.slice(0, ids.indexOf(3)), text: text.slice(0, text.indexOf('<|im_end|>')) } : { ids, text }
}

/** What the model says after a text, read from the start. */
async function reread(text: string, options = SIX): Promise<Pick<Completion, 'ids' | 'text'>> {
  const { ids, text: reply } = await mamba.complete(idsOf(text), options)
  return { ids, text: reply }
}

describe('through the state as by reading all', () => {
  /** What the templates make of a conversation, by hand. */
  const chatml = (messages: readonly ChatMessage[]): string => `${messages.map(({ role, content }) => `<|im_start|>${role}\n${content}<|im_end|>\n`).join('')}<|im_start|>assistant\n`
  const falcon = (messages: readonly ChatMessage[]): string => `${messages.map(({ role, content }) => `${role[0].toUpperCase()}${role.slice(1)}: ${content}\n`).join('')}Assistant:`
  const llama2 = (messages: readonly ChatMessage[]): string =>
    messages.map(({ role, content }) => (role === 'user' ? `<s>[INST] ${content.trim()} [/INST]` : ` ${content.trim()} <|im_end|>`)).join('')

  const again = 'the template writes the last reply otherwise than it was generated: it is read again'
  /** `kept`: what is in the state of the tokens of the turn before, its reply of six and its prompt without the opening words. */
  test.each([
    { name: 'ChatML', chatTemplate: CHATML, textOf: chatml, reason: 'the state has read the whole conversation', kept: 6 },
    // The reply follows the colon at once, and comes with a space in the history.
    { name: 'Falcon', chatTemplate: FALCON, textOf: falcon, reason: again, kept: -'\nAssistant:'.length },
    { name: 'Llama 2', chatTemplate: LLAMA2, textOf: llama2, reason: again, kept: 0 }
  ])('$name', async ({ chatTemplate, textOf, reason, kept }) => {
    await using chat = mamba.chat([], { ...SIX, chatTemplate })
    const messages: ChatMessage[] = []
    let nBefore: number | null = null
    for (const question of ['hello', 'a b; c?', 'What <|im_end|> is λ', 'x']) {
      messages.push({ role: 'user', content: question })
      const prompt = textOf(messages)
      const nPrompt = idsOf(prompt).length
      const { ids, text, usage, finishReason } = await chat.complete(question)
      expect({ ids, text }).toEqual(await reread(prompt))
      expect(finishReason).toBe('length')
      const keptTokens = nBefore === null ? 0 : nBefore + kept
      expect(chat.reading).toEqual({ keptTokens, readTokens: nPrompt - keptTokens, reason: nBefore === null ? 'nothing was read before' : reason })
      expect(usage).toEqual({ promptTokens: nPrompt - keptTokens, completionTokens: 6 })
      messages.push({ role: 'assistant', content: text })
      expect(chat.messages).toEqual(messages)
      nBefore = nPrompt
    }
  })

  test('a reply that ended by itself is in the state with its end', async () => {
    // Of a hundred replies, the first that ends with the tokenizer's token.
    for (let seed = 0; seed < 100; seed++) {
      const ends: ChatOptions = { temperature: 1.5, maxTokens: 40, seed }
      await using chat = mamba.chat([], ends)
      const first = await chat.complete('hello')
      if (first.eos !== 3) continue
      const { ids, text } = await chat.complete('and then?')
      const history = [{ role: 'user', content: 'hello' }, { role: 'assistant', content: first.text }, { role: 'user', content: 'and then?' }]
      const expected = await reread(chatml(history), ends)
      expect({ ids, text }).toEqual(endsBefore(expected.ids, expected.text))
      expect(chat.reading).toMatchObject({ reason: 'the state has read the whole conversation', keptTokens: idsOf(chatml(history.slice(0, 1))).length + first.ids.length + 1 })
      return
    }
    throw new Error('no reply ended')
  })

  test('messages given at once, and a template that changes what came first', async () => {
    const counting = `{{ messages | length }}${CHATML}`
    await using chat = mamba.chat(DIALOGUE, { ...SIX, chatTemplate: counting })
    const pieces: GenerateChunk[] = []
    for await (const chunk of chat) pieces.push(chunk)
    expect({ ids: pieces.flatMap(({ ids }) => ids), text: pieces.map(({ text }) => text).join('') }).toEqual(await reread(`4${chatml(DIALOGUE)}`))
    const history = [...chat.messages, { role: 'user', content: 'x' }]
    const { ids, text } = await chat.complete('x')
    expect({ ids, text }).toEqual(await reread(`6${chatml(history)}`))
    expect(chat.reading).toMatchObject({ keptTokens: 0, reason: 'the template writes the earlier conversation otherwise than it was read: all is read again' })
  })

  test('reasoning that the template drops is read no more', async () => {
    await using chat = mamba.chat([{ role: 'user', content: 'a' }, { role: 'assistant', content: '<think>b</think>c' }], { ...SIX, chatTemplate: THINKING, templateVariables: { enable_thinking: false } })
    const { ids } = await chat.complete('d')
    const history = '<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nc<|im_end|>\n<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n'
    expect(ids).toEqual((await reread(history)).ids)
    await chat.complete('e')
    // The empty reasoning that opened the reply is not in the history.
    expect(chat.reading?.keptTokens).toBe(idsOf(history).length - idsOf('<|im_start|>assistant\n<think>\n\n</think>\n\n').length)
  })
})

describe('replies that do not end', () => {
  test('one that is left belongs to the conversation with what it had given', async () => {
    await using chat = mamba.chat([], { ...SIX, maxTokens: 1000 })
    let given = ''
    for await (const { text } of chat.send('hello')) {
      given += text
      if (given.length > 3) break
    }
    expect(chat.messages).toEqual([{ role: 'user', content: 'hello' }, { role: 'assistant', content: given }])
    const { ids } = await chat.complete('x', { maxTokens: 6 })
    expect(ids).toEqual((await reread(`<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n${given}<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n`)).ids)
    expect(chat.reading).toEqual({ keptTokens: idsOf('<|im_start|>user\nhello<|im_end|>\n').length, readTokens: expect.any(Number), reason: 'the last reply was left: it is read again' })
  })

  test('an abort before the first piece leaves the conversation as it was, and what was read is kept', async () => {
    await using chat = mamba.chat([], SIX)
    const abort = new AbortController()
    const long = 'hello '.repeat(500)
    const reason = new Error('enough')
    await expect(chat.complete(long, { signal: abort.signal, onProgress: () => abort.abort(reason) })).rejects.toBe(reason)
    expect(chat.messages).toEqual([])
    const { ids, usage } = await chat.complete(long)
    expect(ids).toEqual((await reread(`<|im_start|>user\n${long}<|im_end|>\n<|im_start|>assistant\n`)).ids)
    expect(usage.promptTokens).toBeLessThan(20)
  })

  test('another question after an abort goes on from the question before', async () => {
    await using chat = mamba.chat([], SIX)
    const { text } = await chat.complete('hello')
    const abort = new AbortController()
    await expect(chat.complete('long '.repeat(500), { signal: abort.signal, onProgress: () => abort.abort() })).rejects.toThrow()
    const { ids } = await chat.complete('x')
    const before = '<|im_start|>user\nhello<|im_end|>\n'
    expect(chat.reading?.keptTokens).toBe(idsOf(before).length)
    expect(ids).toEqual((await reread(`${before}<|im_start|>assistant\n${text}<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n`)).ids)
  })

  test('the progress is of what is read', async () => {
    await using chat = mamba.chat([], SIX)
    const seen: { doneTokens: number, totalTokens: number }[] = []
    await chat.complete('hello '.repeat(200), { onProgress: (progress) => seen.push(progress) })
    const total = idsOf('<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n').length + 1200
    expect(seen.length).toBeGreaterThan(0)
    for (const { doneTokens, totalTokens } of seen) expect([totalTokens, doneTokens <= total]).toEqual([total, true])
  })

  test('stop strings are not of the reply', async () => {
    await using chat = mamba.chat([], { ...SIX, maxTokens: 12 })
    const whole = await chat.complete('hello')
    await using stopped = mamba.chat([], { ...SIX, maxTokens: 12, stop: whole.text.slice(4, 6) })
    const { text, finishReason } = await stopped.complete('hello')
    expect([text, finishReason]).toEqual([whole.text.slice(0, whole.text.indexOf(whole.text.slice(4, 6))), 'stop'])
    expect(stopped.messages.at(-1)).toEqual({ role: 'assistant', content: text })
  })

  test('a refusal leaves the conversation as it was', async () => {
    await using chat = mamba.chat([], { ...SIX, chatTemplate: LLAMA2 })
    await chat.complete('hello')
    const before = chat.messages
    await expect(chat.complete({ role: 'assistant', content: 'I go on' })).rejects.toThrow(UnsupportedError)
    await expect(chat.complete([{ role: 'assistant', content: 'I' }])).rejects.toThrow('chatTemplate: expected messages that it takes, got Conversation roles must alternate')
    expect(chat.messages).toEqual(before)
    await chat.complete('x')
    expect(chat.messages.length).toBe(4)
  })

  test('turns come in the order in which they were asked for', async () => {
    await using chat = mamba.chat([], SIX)
    await Promise.all(['a', 'b', 'c'].map(async (question) => chat.complete(question)))
    expect(chat.messages.filter(({ role }) => role === 'user').map(({ content }) => content)).toEqual(['a', 'b', 'c'])
  })

  test('a disposed chat answers no more', async () => {
    const chat = mamba.chat([], SIX)
    const chunks = chat.send('hello')
    await chunks.next()
    await chat.dispose()
    await chat.dispose()
    await expect(chat.complete('x')).rejects.toThrow(new TypeError('chat: expected a chat in use, got one that was disposed'))
  })

  test('a reply all in one that has begun comes, whether its chat or its model is disposed', async () => {
    const model = await load()
    const { ids } = await model.chat([], SIX).complete('hello')
    const chat = model.chat([], SIX)
    const first = chat.complete('hello')
    // Its turn has come.
    await new Promise((resolve) => setTimeout(resolve))
    await chat.dispose()
    expect((await first).ids).toEqual(ids)
    const second = model.chat([], SIX).complete('hello')
    await model.dispose()
    expect((await second).ids).toEqual(ids)
    await expect(model.chat([], SIX).complete('hello')).rejects.toThrow(new TypeError('mamba: expected a model in use, got one that was disposed'))
    await expect(model.chat([], SIX).send('hello').next()).rejects.toThrow(new TypeError('mamba: expected a model in use, got one that was disposed'))
  })
})

describe('what ends a reply', () => {
  const endsOf = async (model: Mamba): Promise<number[]> => {
    const ends = new Set<number>()
    for (let seed = 0; seed < 60; seed++) {
      await using chat = model.chat([], { temperature: 1.5, topP: 1, maxTokens: 60, seed })
      const { eos, ids } = await chat.complete('hello')
      if (eos !== null) ends.add(eos)
      expect(ids).not.toContain(eos)
    }
    return [...ends].toSorted((a, b) => a - b)
  }

  test('the config\'s token and the tokenizer\'s', async () => expect(await endsOf(mamba)).toEqual([2, 3]))

  test('and those of generation_config.json', async () => {
    await using model = await load({ 'generation_config.json': { eos_token_id: [2, 4] } })
    expect(model.config.eosTokenIds).toEqual([2, 4])
    expect(await endsOf(model)).toEqual([2, 3, 4])
  })

  test('which must be ids', async () => {
    await expect(load({ 'generation_config.json': { eos_token_id: '</s>' } })).rejects.toThrow(/generation_config\.json: eos_token_id: expected a token id, several or null, got "<\/s>"/)
  })
})

describe('where templates are', () => {
  /** The template is told by the length of what it makes. */
  const promptTokens = async (changes: Record<string, unknown>, options: ChatOptions): Promise<number> => {
    await using model = await load(changes)
    await using chat = model.chat([], { ...SIX, ...options })
    return (await chat.complete('')).usage.promptTokens
  }
  const tokens = (n: number): string => 'a'.repeat(n)

  test.each<[string, Record<string, unknown>, ChatOptions, number]>([
    ['a text of the config', { 'tokenizer_config.json': { chat_template: tokens(3) } }, {}, 3],
    ['the file, which wins', { 'tokenizer_config.json': { chat_template: tokens(3) }, 'chat_template.jinja': tokens(5) }, {}, 5],
    ['the file alone', { 'tokenizer_config.json': undefined, 'chat_template.jinja': tokens(5) }, {}, 5],
    ['the default of a list', { 'tokenizer_config.json': { chat_template: [{ name: 'tool_use', template: tokens(2) }, { name: 'default', template: tokens(4) }] } }, {}, 4],
    ['another one of the list', { 'tokenizer_config.json': { chat_template: [{ name: 'tool_use', template: tokens(2) }, { name: 'default', template: tokens(4) }] } }, { chatTemplate: 'tool_use' }, 2],
    ['the option', {}, { chatTemplate: tokens(7) }, 7],
    ['special tokens, as text or as an object', { 'tokenizer_config.json': { bos_token: '<s>', eos_token: { content: '</s>' }, chat_template: '{{ bos_token + eos_token }}' } }, {}, 2]
  ])('%s', async (_, changes, options, nTokens) => expect(await promptTokens(changes, options)).toBe(nTokens))

  test.each<[string, Record<string, unknown>, typeof UnsupportedError | typeof CheckpointError, RegExp]>([
    ['none', { 'tokenizer_config.json': {} }, UnsupportedError, /tokenizer_config\.json: expected a chat template \(chat_template\.jinja, tokenizer_config\.json, GGUF metadata\), or the option chatTemplate, got none$/],
    ['no default', { 'tokenizer_config.json': { chat_template: [{ name: 'rag', template: '' }] } }, UnsupportedError, /got only templates by other names: \["rag"\]$/],
    ['no tokenizer', { 'tokenizer.json': undefined }, UnsupportedError, /^chat: expected a model with a tokenizer, got a model without one$/],
    ['a number', { 'tokenizer_config.json': { chat_template: 5 } }, CheckpointError, /tokenizer_config\.json: chat_template: expected an array, got 5$/],
    ['a list of texts', { 'tokenizer_config.json': { chat_template: ['a'] } }, CheckpointError, /chat_template\[0\]: expected an object, got "a"$/],
    ['a template that is too long', { 'chat_template.jinja': ' '.repeat(1_000_001) }, CheckpointError, /chat_template\.jinja: chat_template: expected at most 1000000 characters, got 1000001$/]
  ])('%s', async (_, changes, type, message) => {
    const start = async (): Promise<void> => {
      await using model = await load(changes)
      model.chat()
    }
    await expect(start()).rejects.toThrow(type)
    await expect(start()).rejects.toThrow(message)
  })

  test('what a template says wrong names where it stands', async () => {
    await using model = await load({ 'chat_template.jinja': '{% if %}' })
    await expect(model.chat().complete('x')).rejects.toThrow(/chat_template\.jinja: chat template: expected a Jinja template that works, got/)
  })
})

test('a GGUF file has all of it: tokens, template, ends', async () => {
  // Of SentencePiece's kind: spaces are marks.
  const { model, ...rest } = chatTokenizer()
  const { vocab } = model as { vocab: Record<string, number> }
  const marked = Object.fromEntries(Object.entries(vocab).map(([token, id]) => [token.replace(' ', '▁'), id]))
  const json = {
    ...rest, normalizer: { type: 'Replace', pattern: { String: ' ' }, content: '▁' }, model: { ...model as object, byte_fallback: true, vocab: marked },
    decoder: { type: 'Sequence', decoders: [{ type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'Fuse' }] }
  }
  const files = { ...WEIGHTS, 'tokenizer.json': encode(json), 'tokenizer_config.json': encode(CONFIG), 'chat_template.jinja': encode(LLAMA2) }
  const parts: Uint8Array[] = []
  await convertToGguf(recordFiles(files), { type: 'F32', name: 'm', sink: { write: async (bytes) => void parts.push(bytes.slice()) } })
  await using gguf = await Mamba.load(Buffer.concat(parts), { threads: 1 })
  await using chat = gguf.chat([{ role: 'system', content: 'a b' }], SIX)
  const { ids } = await chat.complete('hello x')
  expect(ids).toEqual((await reread('<s>[INST] <<SYS>>\na b\n<</SYS>>\n\nhello x [/INST]')).ids)
  // The config's and, for the end of a turn, the tokenizer's.
  expect(gguf.config.eosTokenIds).toEqual([2, 3])
})

test('a beginning of its own is not added to what the template writes', async () => {
  await using chat = mamba.chat([], { ...SIX, chatTemplate: LLAMA2 })
  const { usage } = await chat.complete('hello')
  expect(mamba.tokenize('a')[0]).toBe(1)
  expect(usage.promptTokens).toBe(idsOf('<s>[INST] hello [/INST]').length)
})

test('the messages are those of the call', async () => {
  const message = { role: 'user', content: 'hello' }
  await using chat = mamba.chat([message], SIX)
  message.content = 'changed'
  expect((await chat.complete([])).ids).toEqual((await reread('<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n')).ids)
})

test.each<[string, unknown, string]>([
  ['a text in a list', ['hello'], 'messages[0]: expected a role and a content, got "hello"'],
  ['no content', [{ role: 'user' }], 'messages[0].content: expected a string, got undefined'],
  ['a role that is none', [{ role: 1, content: '' }], 'messages[0].role: expected a string, got 1'],
  ['nothing', null, 'messages[0]: expected a role and a content, got null']
])('no messages: %s', (_, messages, message) => {
  // @ts-expect-error: not of the type
  expect(() => mamba.chat(messages)).toThrow(new TypeError(message))
})

test('options are checked at once', () => {
  expect(() => mamba.chat([], { temperature: -1 })).toThrow(RangeError)
  expect(() => mamba.chat().send('x', { maxTokens: 0.5 })).toThrow(RangeError)
})
