/** Tokenizers through GGUF metadata: GPT-NeoX's goldens, the byte vocabulary, every pre-tokenizer's cuts, templates, damage. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { withArrays } from '../../src/checkpoint/gguf-arrays.ts'
import { createMetadataReader } from '../../src/checkpoint/gguf-metadata.ts'
import { readGgufHeader } from '../../src/checkpoint/gguf-reader.ts'
import type { GgufValue } from '../../src/checkpoint/gguf-types.ts'
import { ggufBytes } from '../../src/checkpoint/gguf-writer.ts'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import { readGgufTokenizer, type TokenizerFiles } from '../../src/tokenizer/gguf-tokenizer.ts'
import { writeGgufTokenizer } from '../../src/tokenizer/gguf-tokenizer-writer.ts'
import { createTokenizer, type Tokenizer } from '../../src/tokenizer/tokenizer.ts'

type Json = Record<string, unknown>
const readJson = (path: string): Json => JSON.parse(readFileSync(path, 'utf8'))
const neoxJson = readJson('test/fixtures/gpt-neox-tokenizer.json')
const bytesJson = readJson('test/models/classics-8m/tokenizer.json')

/** Through the bytes of a file. */
async function throughGguf(metadata: ReadonlyMap<string, GgufValue>): Promise<TokenizerFiles> {
  const header = await readGgufHeader(bytesSource(await ggufBytes({ metadata, tensors: [] }), 'm.gguf'))
  const files = readGgufTokenizer(withArrays(createMetadataReader(header)))
  if (files === undefined) throw new Error('no tokenizer')
  return files
}

const tokenizerOf = ({ tokenizerJson, tokenizerConfig }: TokenizerFiles): Tokenizer => createTokenizer(tokenizerJson, tokenizerConfig, 'm.gguf')

describe('GPT-NeoX', async () => {
  const config = { bos_token: '<|endoftext|>', eos_token: { content: '<|endoftext|>' }, unk_token: '<|endoftext|>', chat_template: '{{ messages }}' }
  const metadata = writeGgufTokenizer({ tokenizerJson: neoxJson, tokenizerConfig: config, vocabSize: 50280, ids: { eos: [0], pad: 1 }, place: 'tokenizer.json' })
  const files = await throughGguf(metadata)
  const neox = tokenizerOf(files)
  const goldens: { text: string, ids: number[], decoded: string }[] = JSON.parse(readFileSync('test/fixtures/tokenizer_goldens.json', 'utf8'))

  test.each(goldens)('encodes and decodes as the reference: $text', ({ text, ids, decoded }) => {
    expect([...neox.encode(text)]).toEqual(ids)
    expect(neox.decode(ids)).toBe(decoded)
  })

  test('is the same tokenizer: size, special tokens, text of every id', () => {
    const original = createTokenizer(neoxJson, { ...config, pad_token: '<|padding|>' }, 'tokenizer.json')
    expect(neox.vocabSize).toBe(50277)
    expect(neox.specialTokens).toEqual(original.specialTokens)
    const ids = Array.from({ length: 50280 }, (_, id) => id)
    expect(ids.filter((id) => neox.decode([id]) !== original.decode([id]))).toEqual([])
    const alice = readFileSync('test/fixtures/alice.txt', 'utf8')
    expect(String(neox.encode(alice)) === String(original.encode(alice))).toBe(true)
    expect(files.tokenizerConfig.chat_template).toBe('{{ messages }}')
  })

  test('is written under the name that llama.cpp\'s converter finds for it, by its checksum of the ids of this text', () => {
    // conversion/base.py, get_vocab_base_pre: this hash is 'mpt', then 'olmo'.
    const text = '\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български \'\'\'\'\'\'```````""""......!!!!!!?????? I\'ve been \'told he\'s there, \'RE you sure? \'M not sure I\'ll make it, \'D you like some tea? We\'Ve a\'lL'
    expect(createHash('sha256').update(`[${neox.encode(text).join(', ')}]`).digest('hex')).toBe('b6dc8df998e1cfbdc4eac8243701a65afe638679230920b50d6f17d81c098166')
    expect(metadata.get('tokenizer.ggml.pre')).toEqual({ type: 'string', value: 'olmo' })
  })

  test('has the keys and types that llama.cpp asks for', () => {
    const value = (key: string): unknown => metadata.get(`tokenizer.ggml.${key}`)?.value
    expect([...metadata.keys()]).toEqual([
      ...['model', 'pre', 'tokens', 'token_type', 'merges', 'bos_token_id', 'eos_token_id', 'unknown_token_id', 'padding_token_id', 'add_bos_token', 'add_eos_token'].map((key) => `tokenizer.ggml.${key}`), 'tokenizer.chat_template'
    ])
    const tokens = value('tokens') as string[]
    const types = [...(value('token_type') as Int32Array)]
    expect([tokens.length, tokens[0], tokens[2], tokens[50276], tokens[50277], tokens[50279]]).toEqual([50280, '<|endoftext|>', '!', '  ', '[PAD50277]', '[PAD50279]'])
    expect([types.length, types[0], types[1], types[2], types[50253], types[50254], types[50276], types[50277]]).toEqual([50280, 3, 3, 1, 1, 4, 4, 5])
    expect((value('merges') as string[]).slice(0, 2)).toEqual(['Ġ Ġ', 'Ġ t'])
    expect(['bos_token_id', 'eos_token_id', 'unknown_token_id', 'padding_token_id', 'add_bos_token', 'add_eos_token'].map(value)).toEqual([0, 0, 0, 1, false, false])
  })
})

describe('the byte vocabulary', async () => {
  const files = await throughGguf(writeGgufTokenizer({ tokenizerJson: bytesJson, tokenizerConfig: {}, vocabSize: 256, ids: { bos: 0, eos: [0] }, place: 'tokenizer.json' }))
  const bytes = tokenizerOf(files)

  test.each(['', ' ', 'Hello\n', 'naïve — “日本” 😀', '\ufeff\u0000\u007f', "it's 1234  x"])('is the bytes of the text: %j', (text) => {
    expect([...bytes.encode(text)]).toEqual([...new TextEncoder().encode(text)])
    expect(bytes.decode(bytes.encode(text))).toBe(text)
  })

  test('is seen to be one: large texts are looked up, not merged', () => {
    const alice = readFileSync('test/fixtures/alice.txt', 'utf8').repeat(10)
    const start = performance.now()
    expect(bytes.encode(alice).length).toBe(new TextEncoder().encode(alice).length)
    expect(performance.now() - start).toBeLessThan(1000)
    expect(bytes.specialTokens).toEqual({ ids: [] })
  })
})

/** A vocabulary of bytes, of all pairs of digits and letters that stand together in TEXT, and of what `more` adds. */
const TEXT = "It's WE'LL 12345 ab12 x=y; don't\r\n  z"
// By id: objects have keys like '0' first.
const BYTES = Object.entries((bytesJson.model as { vocab: Record<string, number> }).vocab).toSorted(([, a], [, b]) => a - b).map(([token]) => token)
const standIn = (text: string): string => Array.from(new TextEncoder().encode(text), (byte) => BYTES[byte]).join('')

function pairVocab(more: readonly string[] = []): { tokens: string[], merges: string[] } {
  const letters = Array.from(standIn(TEXT))
  const pairs = [...new Set(letters.slice(1).map((letter, i) => `${letters[i]} ${letter}`))]
  return { tokens: [...BYTES, ...pairs.map((pair) => pair.replace(' ', '')), ...more], merges: pairs }
}

const raw = (values: Record<string, GgufValue>): ReadonlyMap<string, GgufValue> => new Map(Object.entries(values).map(([key, value]) => [`tokenizer.ggml.${key}`, value]))
const text = (value: string): GgufValue => ({ type: 'string', value })
const texts = (value: string[]): GgufValue => ({ type: 'array', itemType: 'string', value })
const uint32 = (value: number): GgufValue => ({ type: 'uint32', value })
const int32s = (...value: number[]): GgufValue => ({ type: 'array', itemType: 'int32', value: Int32Array.from(value) })
const bool = (value: boolean): GgufValue => ({ type: 'bool', value })

/** No pair is merged across a cut: the tokens of TEXT show the cuts. (All names were compared with llama.cpp's own ids once, by node-llama-cpp 3.22.1 on 89 texts.) */
const cuts = async (pre: string): Promise<string[]> => {
  const { tokens, merges } = pairVocab()
  const tokenizer = tokenizerOf(await throughGguf(raw({ model: text('gpt2'), pre: text(pre), tokens: texts(tokens), merges: texts(merges), add_bos_token: bool(false) })))
  return Array.from(tokenizer.encode(TEXT), (id) => tokenizer.decode([id]))
}

describe('pre-tokenizers', () => {
  const GPT2 = ['It', "'s", ' W', 'E', "'", 'LL', ' 1', '23', '45', ' a', 'b', '12', ' x', '=', 'y', ';', ' d', 'on', "'t", '\r\n', ' ', ' z']

  test.each(['gpt-2', 'phi-2', 'olmo', 'mpt'])('%s', async (name) => expect(await cuts(name)).toEqual(GPT2))

  test('single digits', async () => {
    for (const name of ['starcoder', 'refact', 'smollm', 'command-r']) expect((await cuts(name)).filter((token) => /\d/.test(token))).toEqual(['1', '2', '3', '4', '5', '1', '2'])
    for (const name of ['qwen2', 'stablelm2']) expect((await cuts(name)).filter((token) => /\d/.test(token))).toEqual(['1', '2', '3', '4', '5', '1', '2'])
  })

  test('three digits, contractions in any case', async () => {
    for (const name of ['dbrx', 'smaug-bpe', 'llama-bpe', 'llama3', 'llama-v3', 'falcon3', 'falcon-h1', 'pixtral']) {
      const tokens = await cuts(name)
      expect(tokens.filter((token) => /\d/.test(token))).toEqual(['12', '3', '45', '12'])
      expect(tokens.join('|')).toContain("E|'L|L| |12")
    }
  })

  test('composed or not', async () => {
    const { tokens, merges } = pairVocab()
    for (const [pre, length] of [['olmo', 2], ['mpt', 2], ['qwen2', 2], ['gpt-2', 3], ['llama-bpe', 3]] as const) {
      const tokenizer = tokenizerOf(await throughGguf(raw({ model: text('gpt2'), pre: text(pre), tokens: texts(tokens), merges: texts(merges), add_bos_token: bool(false) })))
      expect([pre, tokenizer.encode('e\u0301').length]).toEqual([pre, length])
    }
  })

  test('a piece that is a token stays one where merges are ignored', async () => {
    const { tokens, merges } = pairVocab(['hello'])
    for (const [pre, length] of [['llama-bpe', 1], ['dbrx', 5]] as const) {
      const tokenizer = tokenizerOf(await throughGguf(raw({ model: text('gpt2'), pre: text(pre), tokens: texts(tokens), merges: texts(merges), add_bos_token: bool(false) })))
      expect(tokenizer.encode('hello').length).toBe(length)
    }
  })

  test('the default, where the file names none', async () => {
    const { tokens, merges } = pairVocab()
    const tokenizer = tokenizerOf(await throughGguf(raw({ model: text('gpt2'), tokens: texts(tokens), merges: texts(merges) })))
    expect(Array.from(tokenizer.encode('12345 x=y'), (id) => tokenizer.decode([id]))).toEqual(['12', '3', '45', ' x', '=', 'y'])
  })
})

describe('tokens around a text', () => {
  const base = (): Record<string, GgufValue> => {
    const { tokens, merges } = pairVocab(['<s>', '</s>'])
    const types = new Int32Array(tokens.length).fill(1)
    types.fill(3, tokens.length - 2)
    return {
      model: text('gpt2'), pre: text('gpt-2'), tokens: texts(tokens), merges: texts(merges), token_type: { type: 'array', itemType: 'int32', value: types },
      bos_token_id: uint32(tokens.length - 2), eos_token_id: uint32(tokens.length - 1)
    }
  }

  test.each<[string, Record<string, GgufValue>, string]>([
    ['none', {}, 'It'], ['the first', { add_bos_token: bool(true) }, '<s>It'], ['the last', { add_eos_token: bool(true) }, 'It</s>'], ['both', { add_bos_token: bool(true), add_eos_token: bool(true) }, '<s>It</s>'],
    ['the first by the pre-tokenizer', { pre: text('llama-bpe') }, '<s>It'], ['none against the pre-tokenizer', { pre: text('llama-bpe'), add_bos_token: bool(false) }, 'It']
  ])('%s, there and back again', async (_, change, expected) => {
    const files = await throughGguf(raw({ ...base(), ...change }))
    const tokenizer = tokenizerOf(files)
    expect(tokenizer.decode(tokenizer.encode('It'))).toBe(expected)
    expect(tokenizer.decode(tokenizer.encode('It'), { skipSpecialTokens: true })).toBe('It')
    expect(tokenizer.decode(tokenizer.encode('It', { addSpecialTokens: false }))).toBe('It')
    const again = tokenizerOf(await throughGguf(writeGgufTokenizer({ ...files, vocabSize: tokenizer.vocabSize, ids: {}, place: 't.json' })))
    expect([...again.encode('It</s>')]).toEqual([...tokenizer.encode('It</s>')])
    expect(again.specialTokens).toEqual(tokenizer.specialTokens)
  })

  test.each<[string, unknown]>([
    ['two before', { type: 'TemplateProcessing', single: [{ SpecialToken: { id: '<s>' } }, { SpecialToken: { id: '<s>' } }, { Sequence: { id: 'A' } }], special_tokens: {} }],
    ['no text', { type: 'TemplateProcessing', single: [{ SpecialToken: { id: '<s>' } }], special_tokens: {} }],
    ['BERT\'s', { type: 'BertProcessing', sep: ['x', 0], cls: ['y', 1] }]
  ])('more than one on a side is unsupported: %s', (_, post_processor) => {
    const write = () => writeGgufTokenizer({ tokenizerJson: { ...bytesJson, post_processor }, tokenizerConfig: {}, vocabSize: 256, ids: {}, place: 't.json' })
    expect(write).toThrow(UnsupportedError)
    expect(write).toThrow('t.json: post_processor: expected at most one token before a text and one after it')
  })
})

const idsWritten = (ids: Parameters<typeof writeGgufTokenizer>[0]['ids'], tokenizerConfig: Json = {}) => {
  const metadata = writeGgufTokenizer({ tokenizerJson: bytesJson, tokenizerConfig, vocabSize: 256, ids, place: 't.json' })
  return Object.fromEntries([...metadata].filter(([key]) => key.endsWith('_token_id')).map(([key, { value }]) => [key.slice(15, -9), value]))
}

const split = (Regex: string): Json => ({ type: 'Sequence', pretokenizers: [{ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false }, { type: 'ByteLevel', add_prefix_space: false, use_regex: false }] })

describe('writing', () => {
  const write = (change: Json, vocabSize = 300) => writeGgufTokenizer({ tokenizerJson: { ...bytesJson, ...change }, tokenizerConfig: {}, vocabSize, ids: {}, place: 't.json' })
  const model = (change: Json): Json => ({ model: { ...(bytesJson.model as Json), ...change } })
  const merged = model({ merges: [['a', 'b']], vocab: { a: 0, b: 1, ab: 2 } })

  test.each<[string, Json, string]>([
    ['gpt-2', { ...merged, pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false } }, 'gpt-2'],
    ['olmo', { ...merged, normalizer: { type: 'NFC' }, pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false } }, 'olmo'],
    ['qwen2', { ...merged, normalizer: { type: 'NFC' }, pre_tokenizer: split("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+") }, 'qwen2'],
    ['llama 3', { ...model({ merges: ['a b'], vocab: { a: 0, b: 1, ab: 2 }, ignore_merges: true }), pre_tokenizer: split("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+") }, 'llama-bpe'],
    ['dbrx', { ...merged, pre_tokenizer: split("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+") }, 'dbrx'],
    ['starcoder', { ...merged, pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, { type: 'ByteLevel', add_prefix_space: false, use_regex: true }] } }, 'starcoder']
  ])('names the pre-tokenizer: %s', (_, change, expected) => expect(write(change).get('tokenizer.ggml.pre')?.value).toBe(expected))

  test.each<[string, Json, string]>([
    ['another model', model({ type: 'Unigram' }), 't.json: model.type: expected "BPE", got "Unigram"'],
    ['another rule', { ...merged, pre_tokenizer: split('\\w+') }, 't.json: pre_tokenizer: expected one that llama.cpp has a name for, got'],
    ['no rule where there are merges', { ...merged, pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: false } }, 't.json: pre_tokenizer: expected one that llama.cpp has a name for'],
    ['a space put before', { pre_tokenizer: { type: 'ByteLevel', add_prefix_space: true } }, 't.json: pre_tokenizer: expected one that llama.cpp has a name for'],
    ['another normalizer', { normalizer: { type: 'Lowercase' } }, 't.json: pre_tokenizer: expected one that llama.cpp has a name for, got "[\\"Lowercase\\",'],
    ['merges of tokens with spaces', model({ merges: [['a ', 'b']] }), 't.json: model.merges: expected pairs of tokens without spaces']
  ])('refuses as unsupported: %s', (_, change, message) => {
    expect(() => write(change)).toThrow(UnsupportedError)
    expect(() => write(change)).toThrow(message)
  })

  test('refuses ids beyond the model, and what is no tokenizer', () => {
    expect(() => write({}, 200)).toThrow(new CheckpointError({ place: 't.json: "È"', expected: "an id below 200, the model's number of tokens", got: '200' }))
    expect(() => write({ model: null })).toThrow(CheckpointError)
    expect(() => write({ pre_tokenizer: null })).toThrow(CheckpointError)
    expect(() => write(model({ merges: [1] }))).toThrow(CheckpointError)
  })

  test('a list of chat templates comes back', async () => {
    const tokenizerConfig = { chat_template: [{ name: 'default', template: 'A' }, { name: 'rag', template: 'B' }] }
    const metadata = writeGgufTokenizer({ tokenizerJson: bytesJson, tokenizerConfig, vocabSize: 256, ids: {}, place: 't.json' })
    expect(metadata.get('tokenizer.chat_template')?.value).toBe('A')
    expect((await throughGguf(metadata)).tokenizerConfig.chat_template).toEqual(tokenizerConfig.chat_template)
  })

  test('a second end is the end of a turn; what has no id is left out', () => {
    expect(idsWritten({ bos: null, eos: [7, 8], pad: null })).toEqual({ eos: 7, eot: 8 })
    expect(idsWritten({ eos: [999] })).toEqual({})
    expect(idsWritten({ eos: [7] }, { eos_token: 'B' })).toEqual({ eos: 7, eot: 66 })
    expect(idsWritten({}, { bos_token: 'A', eos_token: { content: 'B' }, pad_token: 'nothing', unk_token: null })).toEqual({ bos: 65, eos: 66 })
  })
})

describe('reading', () => {
  const valid = (): Record<string, GgufValue> => ({ model: text('gpt2'), pre: text('gpt-2'), tokens: texts(['a', 'b', 'ab', '__proto__']), merges: texts(['a b']) })
  const read = (change: Record<string, GgufValue | undefined>) => {
    const values = Object.entries({ ...valid(), ...change }).filter((entry): entry is [string, GgufValue] => entry[1] !== undefined)
    return readGgufTokenizer(withArrays(createMetadataReader({ name: 'm.gguf', metadata: raw(Object.fromEntries(values)) })))
  }

  test('no tokenizer', () => {
    expect(readGgufTokenizer(withArrays(createMetadataReader({ name: 'm.gguf', metadata: new Map() })))).toBeUndefined()
    for (const model of ['none', 'no_vocab']) expect(read({ model: text(model) })).toBeUndefined()
  })

  test('tokens of any name', () => {
    const tokenizer = tokenizerOf(read({})!)
    expect([[...tokenizer.encode('ab')], tokenizer.decode([3]), tokenizer.vocabSize]).toEqual([[2], '__proto__', 4])
  })

  test('chat templates: one, several, and names alone', () => {
    const templatesOf = (values: Record<string, GgufValue>) => {
      const metadata = new Map([...raw(valid()), ...Object.entries(values)])
      return readGgufTokenizer(withArrays(createMetadataReader({ name: 'm.gguf', metadata })))?.tokenizerConfig.chat_template
    }
    expect(templatesOf({})).toBeUndefined()
    expect(templatesOf({ 'tokenizer.chat_template': text('A') })).toBe('A')
    const others = { 'tokenizer.chat_templates': texts(['rag', 'gone']), 'tokenizer.chat_template.rag': text('B') }
    expect(templatesOf({ 'tokenizer.chat_template': text('A'), ...others })).toEqual([{ name: 'default', template: 'A' }, { name: 'rag', template: 'B' }])
    expect(templatesOf(others)).toEqual([{ name: 'rag', template: 'B' }])
  })

  test('token types: unused ones have no text, added ones are found in texts', () => {
    const tokenizer = tokenizerOf(read({ tokens: texts(['a', 'b', 'ab', '<x>', 'yy', '[PAD]']), token_type: int32s(1, 1, 1, 3, 4, 5) })!)
    expect([...tokenizer.encode('ab<x>yya')]).toEqual([2, 3, 4, 0])
    expect([tokenizer.decode([2, 3, 4, 5]), tokenizer.decode([2, 3, 4, 5], { skipSpecialTokens: true }), tokenizer.specialTokens.ids]).toEqual(['ab<x>yy', 'abyy', [3]])
  })

  test.each<[string, Record<string, GgufValue | undefined>, string]>([
    ['a model of another kind', { model: text('t5') }, 'm.gguf, tokenizer.ggml.model: expected "gpt2" or "llama", got "t5"'],
    ['a pre-tokenizer of no one', { pre: text('new-bpe') }, 'm.gguf, tokenizer.ggml.pre: expected one of default, gpt-2, ']
  ])('refuses as unsupported: %s', (_, change, message) => {
    expect(() => read(change)).toThrow(UnsupportedError)
    expect(() => read(change)).toThrow(message)
  })

  test.each<[string, Record<string, GgufValue | undefined>, string]>([
    ['no tokens', { tokens: undefined }, 'm.gguf, tokenizer.ggml.tokens: expected an array of strings, got nothing'],
    ['no merges', { merges: undefined }, 'm.gguf, tokenizer.ggml.merges: expected an array of strings, got nothing'],
    ['tokens that are numbers', { tokens: { type: 'array', itemType: 'uint8', value: Uint8Array.of(1) } }, 'm.gguf, tokenizer.ggml.tokens: expected an array of strings, got an array of 1 uint8'],
    ['a token twice', { tokens: texts(['a', 'b', 'a']) }, 'm.gguf, tokenizer.ggml.tokens, 2: expected each token once, got "a" again'],
    ['a merge of one', { merges: texts(['ab']) }, 'm.gguf, tokenizer.ggml.merges: expected two tokens with a space between them, got "ab"'],
    ['too few types', { token_type: { type: 'array', itemType: 'int32', value: Int32Array.of(1) } }, 'm.gguf, tokenizer.ggml.token_type: expected 4 types, one for each token, got 1'],
    ['an id beyond the tokens', { eos_token_id: uint32(4) }, 'm.gguf, tokenizer.ggml.eos_token_id: expected an id below 4, got 4'],
    ['a flag that is a number', { add_bos_token: uint32(1) }, 'm.gguf, tokenizer.ggml.add_bos_token: expected a bool, got uint32 1']
  ])('refuses %s', (_, change, message) => {
    expect(() => read(change)).toThrow(CheckpointError)
    expect(() => read(change)).toThrow(message)
  })
})
