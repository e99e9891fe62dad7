/** Encoding and decoding against HuggingFace's tokenizers: the golden file for GPT-NeoX, and by hand (version 0.23.2) for small ones. */
import { readFileSync } from 'node:fs'
import { Tokenizer as Library } from '@huggingface/tokenizers'
import { describe, expect, it } from 'vitest'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import { createTokenizer } from '../../src/tokenizer/tokenizer.ts'
import { metaspace, readJson, sentencePiece, wordPiece, type TokenizerJson } from './small-tokenizers.ts'

const neoxJson = readJson('test/fixtures/gpt-neox-tokenizer.json')
const neox = createTokenizer(neoxJson, { bos_token: '<|endoftext|>', eos_token: { content: '<|endoftext|>' }, pad_token: '[NONE]' }, 'tokenizer.json')
const bytesJson = readJson('test/models/classics-8m/tokenizer.json')
const bytes = createTokenizer(bytesJson, undefined, 'tokenizer.json')
const alice = readFileSync('test/fixtures/alice.txt', 'utf8')

describe('GPT-NeoX', () => {
  const goldens: { text: string, ids: number[], decoded: string }[] = JSON.parse(readFileSync('test/fixtures/tokenizer_goldens.json', 'utf8'))

  it.each(goldens)('encodes and decodes as the reference: $text', ({ text, ids, decoded }) => {
    expect([...neox.encode(text)]).toEqual(ids)
    expect(neox.decode(ids)).toBe(decoded)
    const stream = neox.decodeStream()
    expect(ids.map(id => stream.push(id)).join('') + stream.flush()).toBe(decoded)
  })

  it('knows its vocabulary', () => {
    expect(neox.vocabSize).toBe(50277)
    expect(neox.specialTokens).toEqual({ bos: 0, eos: 0, ids: [0, 1] })
  })

  it('decodes ids of padding rows to nothing, and leaves out special tokens when asked', () => {
    expect(neox.decode([50276, 50279, 50300, 5])).toBe('  $')
    expect(neox.decode(neox.encode('a<|endoftext|>b'), { skipSpecialTokens: true })).toBe('ab')
    expect(neox.decode(neox.encode('a<|endoftext|>b'))).toBe('a<|endoftext|>b')
    expect(neox.decode(new Int32Array(0))).toBe('')
  })

  it('is not cleaned up, whatever the config says: transformers spares BPE since 5.7', () => {
    const asked = createTokenizer(neoxJson, { clean_up_tokenization_spaces: true }, 'tokenizer.json')
    expect(asked.decode(asked.encode('x != y , z'))).toBe('x != y , z')
  })

  it('gives a book back, in time proportional to its length', () => {
    const timeOf = (text: string) => {
      const started = performance.now()
      expect(neox.decode(neox.encode(text)) === text.normalize('NFC')).toBe(true)
      return performance.now() - started
    }
    timeOf(alice)
    // 8 times the text: 8 times the time when linear, 64 when quadratic.
    expect(timeOf(alice) / timeOf(alice.slice(0, alice.length / 8))).toBeLessThan(32)
    expect(neox.encode('a'.repeat(100_000)).length).toBe(12_500)
  })
})

describe('the byte vocabulary', () => {
  const texts = ['', ' ', 'Hello\n', 'naïve — “日本” 😀', '\ufeff\u0000\u007f', '\ud83d alone', alice.slice(0, 5000)]

  it.each(texts)('is the bytes of the text: %j', text => {
    expect([...bytes.encode(text)]).toEqual([...new TextEncoder().encode(text)])
    expect(bytes.decode(bytes.encode(text))).toBe(text.replaceAll(/\p{Surrogate}/gu, '\ufffd'))
  })

  it('encodes by table as the library does by merging', () => {
    const library = new Library(bytesJson, {})
    for (const text of texts) expect([...bytes.encode(text)]).toEqual(library.encode(text).ids)
  })

  it('maps bytes to ids by the vocabulary, in whatever order that is', () => {
    const { model }: { model: { vocab: Record<string, number> } } = JSON.parse(readFileSync('test/models/classics-8m/tokenizer.json', 'utf8'))
    for (const token of Object.keys(model.vocab)) model.vocab[token] = 255 - model.vocab[token]
    const reversed = createTokenizer({ ...bytesJson, model }, undefined, 'tokenizer.json')
    expect([...reversed.encode('ab')]).toEqual([255 - 97, 255 - 98])
    expect(reversed.decode([255 - 97])).toBe('a')
  })

  it('takes a large text at once', () => {
    expect(bytes.encode(alice.repeat(20)).length).toBe(new TextEncoder().encode(alice).length * 20)
  })
})

type Golden = [text: string, ids: number[], decoded: string, withoutSpecial: string]

const SENTENCE_PIECE: Golden[] = [
  ['hello world', [1, 282, 285, 286], '<s> hello world', 'hello world'],
  ['  hello', [1, 287, 282], '<s>   hello', '  hello'],
  ['', [1], '<s>', ''],
  ['日本 hello', [1, 259, 233, 154, 168, 233, 159, 175, 282], '<s> 日本 hello', '日本 hello'],
  ['é! 😀😀', [1, 259, 277, 274, 259, 243, 162, 155, 131, 243, 162, 155, 131], '<s> é! 😀😀', 'é! 😀😀'],
  ['hello\nworld.', [1, 282, 13, 271, 284, 286, 272], '<s> hello\nworld.', 'hello\nworld.'],
  ['</s>hello', [1, 2, 282], '<s></s> hello', 'hello']
]
const METASPACE: Golden[] = [
  ['hello world', [282, 285, 286], 'hello world', 'hello world'],
  ['  hello', [259, 282], ' hello', ' hello'],
  ['日本', [259, 233, 154, 168, 233, 159, 175], '<0xE6><0x97><0xA5><0xE6><0x9C><0xAC>', '<0xE6><0x97><0xA5><0xE6><0x9C><0xAC>']
]
const WORD_PIECE: Golden[] = [
  ['Hello  world', [1, 2], 'hello world', 'hello world'],
  ['é! 😀😀', [0, 11, 0], '[UNK]! [UNK]', '!'],
  ["hello world's, do!", [1, 2, 6, 7, 5, 8, 11], "hello world ' s, do!", "hello world ' s, do!"]
]

describe.each([
  { name: 'SentencePiece with bytes', json: sentencePiece(), goldens: SENTENCE_PIECE },
  { name: 'Metaspace, first', json: metaspace('first'), goldens: [...METASPACE, ['</s>hello', [2, 265, 279, 280], '</s>hello', 'hello'] satisfies Golden] },
  { name: 'Metaspace, always', json: metaspace('always'), goldens: [...METASPACE, ['</s>hello', [2, 282], '</s> hello', 'hello'] satisfies Golden] },
  { name: 'Metaspace, never', json: metaspace('never'), goldens: [['  hello', [259, 282], '  hello', '  hello'], ['hello', [265, 279, 280], 'hello', 'hello']] satisfies Golden[] },
  // As newer files of Mistral's kind have it.
  {
    name: 'Metaspace, first, with bytes', json: { ...sentencePiece(), normalizer: null, pre_tokenizer: metaspace('first').pre_tokenizer },
    goldens: [
      ['hello world', [1, 282, 285, 286], '<s> hello world', 'hello world'],
      ['  hello', [1, 259, 282], '<s>  hello', ' hello'],
      ['日本 hello', [1, 259, 233, 154, 168, 233, 159, 175, 282], '<s> 日本 hello', '日本 hello'],
      ['</s>hello', [1, 2, 265, 279, 280], '<s></s>hello', 'hello']
    ] satisfies Golden[]
  },
  { name: 'WordPiece', json: wordPiece(), goldens: WORD_PIECE }
])('$name', ({ json, goldens }) => {
  const tokenizer = createTokenizer(json, undefined, 'tokenizer.json')
  it.each(goldens)('encodes and decodes as the reference: %j', (text, ids, decoded, withoutSpecial) => {
    expect([...tokenizer.encode(text)]).toEqual(ids)
    expect(tokenizer.decode(ids)).toBe(decoded)
    expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe(withoutSpecial)
  })
})

it('decodes as the reference what no text encodes to', () => {
  const ids = [287, 282, 259, 287, 233, 154, 168, 283, 242, 190, 194, 260]
  const bytesOf = '<0xE6><0x97><0xA5> w<0xEF><0xBB><0xBF>a'
  expect(createTokenizer(sentencePiece(), undefined, '').decode(ids)).toBe('  hello   日 w\ufeffa')
  expect(createTokenizer(metaspace('first'), undefined, '').decode(ids)).toBe(` hello   ${bytesOf}`)
  expect(createTokenizer(metaspace('never'), undefined, '').decode(ids)).toBe(`   hello   ${bytesOf}`)
  expect(createTokenizer(wordPiece(), undefined, '').decode([1, 3, 4, 2, 11, 6, 7, 8, 10, 5])).toBe("hellos. world! ' s don't,")
})

it('leaves out the template without addSpecialTokens', () => {
  expect([...createTokenizer(sentencePiece(), undefined, '').encode('hello', { addSpecialTokens: false })]).toEqual([282])
})

it('cleans up spaces after a model that is no BPE when the config says so', () => {
  const json = { ...wordPiece(), decoder: { type: 'WordPiece', prefix: '##', cleanup: false } }
  const ids = [1, 5, 2, 6, 7, 8, 10, 4]
  expect(createTokenizer(json, { clean_up_tokenization_spaces: true }, '').decode(ids)).toBe("hello, world's don't.")
  expect(createTokenizer(json, {}, '').decode(ids)).toBe("hello , world ' s do n't .")
})

it('takes files of older forms: no type, merges as strings, no added tokens', () => {
  const model = { vocab: { a: 0, b: 1, ab: 2 }, merges: ['a b'] }
  expect([...createTokenizer({ model }, undefined, '').encode('abab')]).toEqual([2, 2])
})

it('gives a word-level model its unknown token, and refuses text that has none', () => {
  const model = { type: 'WordLevel', vocab: { '[UNK]': 0, A: 1, C: 2 } }
  const pre_tokenizer = { type: 'Whitespace' }
  expect([...createTokenizer({ pre_tokenizer, model: { ...model, unk_token: '[UNK]' } }, undefined, '').encode('A C G')]).toEqual([1, 2, 0])
  expect(() => createTokenizer({ pre_tokenizer, model }, undefined, '').encode('A C G')).toThrow(new RangeError('text: expected only tokens of the vocabulary, got "G"'))
})

const withModel = (change: TokenizerJson) => ({ ...sentencePiece(), model: { type: 'BPE', vocab: { a: 0 }, merges: [], ...change } })

describe('malformed files', () => {
  it.each<[string, unknown, string]>([
    ['no object', [], 't.json: expected an object, got []'],
    ['null', null, 't.json: expected an object, got null'],
    ['no model', {}, 't.json: model: expected an object, got undefined'],
    ['no vocabulary', withModel({ vocab: undefined }), 't.json: model.vocab: expected an object, got undefined'],
    ['an empty vocabulary', { model: { type: 'BPE', vocab: {}, merges: [] } }, 't.json: model.vocab: expected tokens, got none'],
    ['an id that is none', withModel({ vocab: { a: -1 } }), 't.json: model.vocab["a"]: expected an integer from 0 to 2^24 - 1, got -1'],
    ['an id beyond reason', withModel({ vocab: { a: 1e9 } }), 't.json: model.vocab["a"]: expected an integer from 0 to 2^24 - 1, got 1000000000'],
    ['merges that are no list', withModel({ merges: 'a b' }), 't.json: model.merges: expected an array, got "a b"'],
    ['an added token without text', { ...sentencePiece(), added_tokens: [{ id: 0 }] }, 't.json: added_tokens[0].content: expected a string, got undefined'],
    ['a decoder that is no object', { ...sentencePiece(), decoder: 'ByteLevel' }, 't.json: decoder: expected an object, got "ByteLevel"'],
    ['a decoder without its parts', { ...sentencePiece(), decoder: { type: 'Replace', content: ' ' } }, 't.json: decoder[0].pattern: expected an object, got undefined']
  ])('%s', (_, json, message) => {
    expect(() => createTokenizer(json, undefined, 't.json')).toThrow(CheckpointError)
    expect(() => createTokenizer(json, undefined, 't.json')).toThrow(message)
  })

  it('what the library stumbles over', () => {
    expect(() => createTokenizer(withModel({ merges: [1, 2] }), undefined, 't.json')).toThrow(CheckpointError)
    expect(() => createTokenizer(sentencePiece(), 'config', 't.json')).toThrow(CheckpointError)
  })

  it.each<[string, unknown]>([
    ['a pre-tokenizer nobody knows', { ...sentencePiece(), pre_tokenizer: { type: 'New' } }],
    ['a decoder nobody knows', { ...sentencePiece(), decoder: { type: 'CTC' } }],
    ['an order that cannot be streamed', { ...sentencePiece(), decoder: { type: 'Sequence', decoders: [{ type: 'ByteFallback' }, { type: 'Strip', content: ' ', start: 1, stop: 0 }] } }],
    ['a suffix for the ends of words', withModel({ end_of_word_suffix: '</w>' })]
  ])('unsupported: %s', (_, json) => {
    expect(() => createTokenizer(json, undefined, 't.json')).toThrow(UnsupportedError)
  })

  it('and arguments that are no text and no ids', () => {
    // @ts-expect-error: a number
    expect(() => bytes.encode(5)).toThrow(new TypeError('text: expected a string, got 5'))
    for (const id of [-1, 0.5, NaN]) expect(() => bytes.decode([id])).toThrow(RangeError)
  })
})
