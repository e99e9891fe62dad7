/** SentencePiece's vocabularies from GGUF files: against llama.cpp's algorithm written down plainly, and texts by hand. */
import * as fc from 'fast-check'
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { withArrays } from '../../src/checkpoint/gguf-arrays.ts'
import { createMetadataReader } from '../../src/checkpoint/gguf-metadata.ts'
import { readGgufHeader } from '../../src/checkpoint/gguf-reader.ts'
import type { GgufValue } from '../../src/checkpoint/gguf-types.ts'
import { ggufBytes } from '../../src/checkpoint/gguf-writer.ts'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import { readGgufTokenizer } from '../../src/tokenizer/gguf-tokenizer.ts'
import { writeGgufTokenizer } from '../../src/tokenizer/gguf-tokenizer-writer.ts'
import { createTokenizer, type Tokenizer } from '../../src/tokenizer/tokenizer.ts'
import { metaspace, sentencePiece, type TokenizerJson } from './small-tokenizers.ts'

interface Token { readonly text: string, readonly score: number, readonly type: number }
const [NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE] = [1, 2, 3, 4, 5, 6]
const SPECIALS: Token[] = [{ text: '<unk>', score: 0, type: UNKNOWN }, { text: '<s>', score: 0, type: CONTROL }, { text: '</s>', score: 0, type: CONTROL }]
const BYTES: Token[] = Array.from({ length: 256 }, (_, byte) => ({ text: `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, score: 0, type: BYTE }))

function metadataOf(tokens: readonly Token[], more: Record<string, GgufValue> = {}): Map<string, GgufValue> {
  const values: Record<string, GgufValue> = {
    model: { type: 'string', value: 'llama' },
    tokens: { type: 'array', itemType: 'string', value: tokens.map(({ text }) => text) },
    scores: { type: 'array', itemType: 'float32', value: Float32Array.from(tokens, ({ score }) => score) },
    token_type: { type: 'array', itemType: 'int32', value: Int32Array.from(tokens, ({ type }) => type) },
    ...more
  }
  return new Map(Object.entries(values).map(([key, value]) => [`tokenizer.ggml.${key}`, value]))
}

function read(metadata: ReadonlyMap<string, GgufValue>): Tokenizer {
  const files = readGgufTokenizer(withArrays(createMetadataReader({ name: 'm.gguf', metadata })))
  if (files === undefined) throw new Error('no tokenizer')
  return createTokenizer(files.tokenizerJson, files.tokenizerConfig, 'm.gguf')
}

/**
 * llama.cpp's `llm_tokenizer_spm`, in the plainest way: look at all neighbours, join the best, look again.
 * `text` is one stretch without special tokens; a space comes before it.
 */
function llamaIds(tokens: readonly Token[], text: string): number[] {
  const idOf = (piece: string): number => tokens.findIndex((token) => token.text === piece)
  const symbols = Array.from(` ${text}`.replaceAll(' ', '▁'))
  for (;;) {
    let best = -1
    for (let i = 0; i + 1 < symbols.length; i++) {
      const id = idOf(symbols[i] + symbols[i + 1])
      if (id >= 0 && (best < 0 || tokens[id].score > tokens[idOf(symbols[best] + symbols[best + 1])].score)) best = i
    }
    if (best < 0) break
    symbols.splice(best, 2, symbols[best] + symbols[best + 1])
  }
  return symbols.flatMap((symbol) => (idOf(symbol) >= 0 ? [idOf(symbol)] : Array.from(new TextEncoder().encode(symbol), (byte) => 3 + byte)))
}

describe('any vocabulary and any text', () => {
  // Few letters, so that tokens overlap in every way; scores of a few values, so that there are ties.
  const letter = fc.constantFrom('a', 'a', 'b', '▁', 'é', '😀')
  const piece = fc.array(letter, { minLength: 1, maxLength: 5 }).map((letters) => letters.join(''))
  const score = fc.oneof(fc.integer({ min: -4, max: 0 }), fc.float({ min: -20, max: 0, noNaN: true }))
  const word = fc.record({ text: piece, score, type: fc.constantFrom(NORMAL, NORMAL, NORMAL, UNUSED) })
  const words = fc.uniqueArray(word, { selector: ({ text }) => text, maxLength: 40 })
  const text = fc.array(fc.constantFrom('a', 'a', 'a', 'b', ' ', 'é', '😀', 'x', '\n'), { maxLength: 24 }).map((letters) => letters.join(''))

  test('is as llama.cpp has it', () => {
    fc.assert(fc.property(words, fc.array(text, { minLength: 1, maxLength: 5 }), (some, texts) => {
      const tokens = [...SPECIALS, ...BYTES, ...some]
      const tokenizer = read(metadataOf(tokens))
      for (const each of texts) {
        // The file's scores are float32.
        const expected = each === '' ? [] : llamaIds(tokens.map((token) => ({ ...token, score: Math.fround(token.score) })), each)
        expect([...tokenizer.encode(each)]).toEqual([1, ...expected])
        expect([...tokenizer.encode(each, { addSpecialTokens: false })]).toEqual(expected)
        // Without a token for it, the mark is spelled in bytes, and comes back as itself.
        if (some.some((token) => token.text === '▁')) expect(tokenizer.decode(tokenizer.encode(each), { skipSpecialTokens: true })).toBe(each)
      }
    }), { numRuns: 1000 })
  })

  test('and in pieces as whole', () => {
    fc.assert(fc.property(words, fc.array(fc.nat(3 + 256), { maxLength: 30 }), (some, ids) => {
      const tokenizer = read(metadataOf([...SPECIALS, ...BYTES, ...some]))
      const stream = tokenizer.decodeStream()
      expect(ids.map((id) => stream.push(id)).join('') + stream.flush()).toBe(tokenizer.decode(ids))
    }), { numRuns: 200 })
  })
})

/** Pieces of a text's own, the more frequent the higher. */
function vocabularyOf(text: string): Token[] {
  const counts = new Map<string, number>()
  for (const match of text.matchAll(/[ ]?[a-zA-Z]+/g)) {
    const word = match[0].replaceAll(' ', '▁')
    for (let start = 0; start < word.length; start++) {
      for (let end = start + 1; end <= Math.min(word.length, start + 6); end++) counts.set(word.slice(start, end), (counts.get(word.slice(start, end)) ?? 0) + 1)
    }
  }
  return [...counts].filter(([, count]) => count > 20).map(([piece, count]) => ({ text: piece, score: Math.fround(Math.log(count)) - 20, type: NORMAL }))
}

describe('a book', () => {
  const alice = readFileSync('test/fixtures/alice.txt', 'utf8')
  const tokens = [...SPECIALS, ...BYTES, ...vocabularyOf(alice.slice(0, 60_000))]
  const tokenizer = read(metadataOf(tokens))

  test('is as llama.cpp has it, line by line', () => {
    for (const line of alice.slice(2000, 4000).split('\n')) {
      if (line !== '') expect([...tokenizer.encode(line, { addSpecialTokens: false })]).toEqual(llamaIds(tokens, line))
    }
  })

  test('comes back from its ids, in time proportional to its length', () => {
    const timeOf = (text: string): number => {
      const startMs = performance.now()
      expect(tokenizer.decode(tokenizer.encode(text), { skipSpecialTokens: true }) === text).toBe(true)
      return performance.now() - startMs
    }
    timeOf(alice)
    expect(timeOf(alice) / timeOf(alice.slice(0, alice.length / 8))).toBeLessThan(32)
  })
})

describe('special tokens', () => {
  const tokens: Token[] = [
    ...SPECIALS, ...BYTES, { text: 'a', score: -1, type: NORMAL }, { text: '▁', score: -2, type: NORMAL }, { text: '▁a', score: -3, type: NORMAL },
    { text: '<x>', score: 0, type: USER_DEFINED }, { text: '<x><x>', score: 0, type: CONTROL }
  ]
  const [a, mark, markA, x, xx] = [259, 260, 261, 262, 263]

  test.each<[string, number[]]>([
    ['', [1]],
    ['a', [1, markA]],
    ['a</s>a', [1, markA, 2, markA]],
    ['a</s> a', [1, markA, 2, mark, markA]],
    ['aa<x>a', [1, markA, a, x, markA]],
    ['<x><x><x>', [1, xx, x]],
    ['<s>', [1, 1]],
    ['<unk>', [1, 0]],
    ['\n', [1, mark, 3 + 10]]
  ])('%j', (text, ids) => expect([...read(metadataOf(tokens)).encode(text)]).toEqual(ids))

  test('no space before, no first token, one at the end, where the file says so', () => {
    const bool = (value: boolean): GgufValue => ({ type: 'bool', value })
    const tokenizer = read(metadataOf(tokens, { add_space_prefix: bool(false), add_bos_token: bool(false), add_eos_token: bool(true) }))
    expect([...tokenizer.encode('a a<x>a')]).toEqual([a, markA, x, a, 2])
    expect(tokenizer.decode([markA])).toBe(' a')
    expect(read(metadataOf(tokens)).decode([markA])).toBe('a')
  })

  test('are those of llama.cpp where the file names none', () => {
    expect(read(metadataOf(tokens)).specialTokens).toEqual({ bos: 1, eos: 2, unk: 0, ids: [0, 1, 2, xx] })
  })

  test('what has neither a token nor bytes is unknown', () => {
    const few = tokens.filter(({ type }) => type !== BYTE)
    expect([...read(metadataOf(few)).encode('aéa')]).toEqual([1, 5, 0, 3])
  })
})

describe('writing', () => {
  const write = (tokenizerJson: TokenizerJson, vocabSize = 300): ReadonlyMap<string, GgufValue> =>
    writeGgufTokenizer({ tokenizerJson, tokenizerConfig: { bos_token: '<s>', unk_token: '<unk>' }, vocabSize, ids: {}, place: 't.json' })

  test('what was read is written as it was', () => {
    const tokens: Token[] = [...SPECIALS, ...BYTES, { text: 'aa', score: -1.5, type: NORMAL }, { text: '<x>', score: 0, type: USER_DEFINED }]
    const metadata = metadataOf(tokens, { add_space_prefix: { type: 'bool', value: false } })
    const files = readGgufTokenizer(withArrays(createMetadataReader({ name: 'm.gguf', metadata })))!
    const written = writeGgufTokenizer({ ...files, vocabSize: tokens.length, ids: {}, place: 'm.gguf' })
    for (const [key, value] of metadata) expect([key, written.get(key)]).toEqual([key, value])
    expect(['bos', 'eos', 'unknown'].map((name) => written.get(`tokenizer.ggml.${name}_token_id`)?.value)).toEqual([1, 2, 0])
    expect(written.get('tokenizer.ggml.add_bos_token')?.value).toBe(true)
  })

  /** HuggingFace's own ids of these texts: tokenizer.test.ts. */
  test.each<[string, number[]]>([
    ['hello world', [1, 282, 285, 286]],
    ['  hello', [1, 287, 282]],
    ['日本 hello', [1, 259, 233, 154, 168, 233, 159, 175, 282]],
    ['hello\nworld.', [1, 282, 13, 271, 284, 286, 272]],
    ['</s>hello', [1, 2, 282]]
  ])('merges of a tokenizer.json as scores give its ids: %j', (text, ids) => {
    const metadata = write(sentencePiece())
    expect([...read(metadata).encode(text)]).toEqual(ids)
    expect(metadata.get('tokenizer.ggml.model')?.value).toBe('llama')
    expect(read(metadata).decode(ids, { skipSpecialTokens: true })).toBe(text.replace('</s>', ''))
  })

  test.each<[string, () => TokenizerJson, string]>([
    ['a space before the first stretch alone', () => ({ ...metaspace('first'), decoder: sentencePiece().decoder }), 't.json: normalizer, pre_tokenizer: expected spaces replaced by "▁", one put before every stretch of text or none, as llama.cpp has it'],
    ['a token whose ways stand apart', () => withMerges([['a', 'a'], ['a', 'b'], ['aa', 'a'], ['b', 'b'], ['a', 'aa']]), 'all ways to put "aaa" together, one after another, as scores make them, got one that stands apart'],
    ['a way that is missing', () => withMerges([['a', 'a'], ['a', 'b'], ['b', 'b'], ['aa', 'a']]), 'all ways to put "aaa" together, one after another, as scores make them, got 1 of 2']
  ])('refuses %s', (_, json, message) => {
    expect(() => write(json())).toThrow(UnsupportedError)
    expect(() => write(json())).toThrow(message)
  })

  function withMerges(merges: string[][]): TokenizerJson {
    const vocab = Object.fromEntries(['<unk>', '<s>', '</s>', 'a', 'b', ...new Set(merges.map((pair) => pair.join('')))].map((token, id) => [token, id]))
    return { ...sentencePiece(), model: { type: 'BPE', unk_token: '<unk>', byte_fallback: true, merges, vocab } }
  }
})

describe('files', () => {
  test('through the bytes of one', async () => {
    const bytes = await ggufBytes({ metadata: metadataOf([...SPECIALS, ...BYTES]), tensors: [] })
    const { metadata } = await readGgufHeader(bytesSource(bytes, 'm.gguf'))
    expect([...read(metadata).encode('A')]).toEqual([1, 3 + 0xe2, 3 + 0x96, 3 + 0x81, 3 + 65])
  })

  test.each<[string, Record<string, GgufValue>, string]>([
    ['too few scores', { scores: { type: 'array', itemType: 'float32', value: Float32Array.of(1) } }, 'm.gguf, tokenizer.ggml.scores: expected 3 scores, one for each token, got 1'],
    ['scores that are none', { scores: { type: 'array', itemType: 'float32', value: Float32Array.of(1, NaN, 1) } }, 'm.gguf, tokenizer.ggml.scores: expected an array of finite floats, got an array of 3 float32'],
    ['scores that are integers', { scores: { type: 'array', itemType: 'int32', value: Int32Array.of(1, 2, 3) } }, 'm.gguf, tokenizer.ggml.scores: expected an array of floats, got an array of 3 int32']
  ])('%s', (_, change, message) => {
    expect(() => read(metadataOf(SPECIALS, change))).toThrow(CheckpointError)
    expect(() => read(metadataOf(SPECIALS, change))).toThrow(message)
  })
})
