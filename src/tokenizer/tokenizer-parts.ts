/**
 * What every tokenizer is made of, whatever encodes: the parsed files, checked, and decoding, which is ours (decoders.ts), since it must stream, and what
 * is joined and what is streamed must be the same text.
 */
import { CheckpointError, describe, messageOf, UnsupportedError } from '../errors.ts'
import { createDecodeStream, type DecodeOptions, type DecodeStream } from './decode-stream.ts'
import { compileDecoder, isByteLevel, type TokenDecoder, type VocabToken } from './decoders.ts'
import { asFields, asIndex, asList, asString, isFields, isIndex, type Fields } from './fields.ts'
import { bytesOfToken } from './utf8.ts'

export interface EncodeOptions {
  /** Adds what the tokenizer's template puts around a text, as a token for its beginning. Default true. */
  readonly addSpecialTokens?: boolean | undefined
}

/** The tokens that tokenizer_config.json names, where it does and they exist. */
export interface SpecialTokens {
  readonly bos?: number
  readonly eos?: number
  readonly pad?: number
  readonly unk?: number
  /** All ids that are left out by `skipSpecialTokens`, ascending. */
  readonly ids: readonly number[]
}

export interface Tokenizer {
  /** The highest id plus one. The model's vocabulary may be larger, padded to a round number. */
  readonly vocabSize: number
  readonly specialTokens: SpecialTokens
  /** The ids of a text, (nTokens). TypeError for anything but a string; RangeError for text the vocabulary cannot express. */
  encode(text: string, options?: EncodeOptions): Int32Array
  /** The text of ids. Bytes that are no UTF-8 become U+FFFD; ids without a token have no text. RangeError for what can be no id. */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string
  /** The same piece by piece. */
  decodeStream(options?: DecodeOptions): DecodeStream
  /** Bytes that ids stand for in UTF-8: exact for byte-level tokens, which may be parts of characters; else those of their text. */
  byteLength(ids: ArrayLike<number>): number
}

/** The files, parsed and checked; `place` names the tokenizer.json in messages. */
export interface TokenizerParts {
  readonly file: Fields
  readonly model: Fields
  readonly config: Fields
  readonly place: string
  /** By id; ids without a token are holes. */
  readonly vocab: readonly (VocabToken | undefined)[]
  readonly createDecoder: () => TokenDecoder
}

export type Encode = (text: string, addSpecialTokens: boolean) => Int32Array

/** From the parsed tokenizer.json and, if there is one, tokenizer_config.json. CheckpointError for malformed files, UnsupportedError for a decoder that this package does not have. */
export function readTokenizerParts(tokenizerJson: unknown, tokenizerConfig: unknown, place: string): TokenizerParts {
  const file = asFields(tokenizerJson, place)
  const config = tokenizerConfig === undefined ? {} : asFields(tokenizerConfig, 'tokenizer_config.json')
  const model = modelOf(file, place)
  return { file, model, config, place, vocab: readVocab(model, file, place), createDecoder: compileDecoder(file.decoder, `${place}: decoder`) }
}

export function tokenizerOf({ file, model, config, vocab, createDecoder }: TokenizerParts, encode: Encode): Tokenizer {
  const setup = { vocab, createDecoder, cleansUp: cleansUp(model, config) }
  return {
    vocabSize: vocab.length,
    specialTokens: specialTokensOf(vocab, config),
    encode(text, { addSpecialTokens = true } = {}) {
      if (typeof text !== 'string') throw new TypeError(messageOf({ place: 'text', expected: 'a string', got: describe(text) }))
      return encode(text, addSpecialTokens)
    },
    decode(ids, options) {
      const stream = createDecodeStream(setup, options)
      return Array.from(ids, id => stream.push(id)).join('') + stream.flush()
    },
    decodeStream: options => createDecodeStream(setup, options),
    byteLength(ids) {
      if (!isByteLevel(file.decoder)) return new TextEncoder().encode(this.decode(ids)).length
      return Array.from(ids).reduce((sum, id) => sum + bytesOfVocabToken(vocab[id]), 0)
    }
  }
}

/** Of a byte-level vocabulary; ids without a token stand for none. */
function bytesOfVocabToken(token: VocabToken | undefined): number {
  if (token === undefined) return 0
  return token.isAdded ? new TextEncoder().encode(token.text).length : bytesOfToken(token.text).length
}

/** The model's part, with the type that old files leave out: the library takes those for something else. */
function modelOf(file: Fields, place: string): Fields {
  const model = asFields(file.model, `${place}: model`)
  if (model.end_of_word_suffix) {
    throw new UnsupportedError({ place: `${place}: model.end_of_word_suffix`, expected: 'none', got: describe(model.end_of_word_suffix) })
  }
  const type = model.type ?? (Array.isArray(model.vocab) ? 'Unigram' : model.merges === undefined ? 'WordPiece' : 'BPE')
  return { ...model, type, ...(type === 'BPE' ? { merges: asList(model.merges, `${place}: model.merges`) } : {}) }
}

function readVocab(model: Fields, file: Fields, place: string): (VocabToken | undefined)[] {
  const vocab: (VocabToken | undefined)[] = []
  const vocabPlace = `${place}: model.vocab`
  if (Array.isArray(model.vocab)) {
    for (const [id, entry] of model.vocab.entries()) {
      vocab[id] = { text: asString(asList(entry, `${vocabPlace}[${id}]`)[0], `${vocabPlace}[${id}][0]`), isAdded: false, isSpecial: false }
    }
  } else {
    const ids = asFields(model.vocab, vocabPlace)
    // There are tens of thousands: no entries are made of them, and the place is put into words for an error alone.
    for (const text of Object.keys(ids)) {
      const id = ids[text]
      vocab[isIndex(id) ? id : asIndex(id, `${vocabPlace}[${describe(text)}]`)] = { text, isAdded: false, isSpecial: false }
    }
  }
  for (const [i, entry] of asList(file.added_tokens, `${place}: added_tokens`).entries()) {
    const token = asFields(entry, `${place}: added_tokens[${i}]`)
    const id = asIndex(token.id, `${place}: added_tokens[${i}].id`)
    vocab[id] = { text: asString(token.content, `${place}: added_tokens[${i}].content`), isAdded: true, isSpecial: token.special === true }
  }
  if (vocab.length === 0) throw new CheckpointError({ place: vocabPlace, expected: 'tokens', got: 'none' })
  return vocab
}

/** transformers, since 5.7: no cleaning up unless the file asks for it, and never after BPE, whose spaces are the text's own. */
function cleansUp(model: Fields, config: Fields): boolean {
  return config.clean_up_tokenization_spaces === true && model.type !== 'BPE'
}

function specialTokensOf(vocab: readonly (VocabToken | undefined)[], config: Fields): SpecialTokens {
  const named = (['bos', 'eos', 'pad', 'unk'] as const).flatMap(name => {
    const token = config[`${name}_token`]
    const content = isFields(token) ? token.content : token
    const id = typeof content === 'string' ? vocab.findLastIndex((other) => other?.text === content) : -1
    return id < 0 ? [] : [[name, id] as const]
  })
  return { ...Object.fromEntries(named), ids: vocab.flatMap((token, id) => (token?.isSpecial === true ? [id] : [])) }
}
