/**
 * Text to token ids and back. Encoding is HuggingFace's tokenizers.js, checked and with a table for byte vocabularies; decoding is ours
 * (decoders.ts), since it must stream, and what is joined and what is streamed must be the same text.
 */
import { Tokenizer as Library } from '@huggingface/tokenizers'
import { CheckpointError, describe, messageOf, UnsupportedError } from '../errors.ts'
import { createDecodeStream, type DecodeOptions, type DecodeStream } from './decode-stream.ts'
import { compileDecoder, isByteLevel, type VocabToken } from './decoders.ts'
import { asFields, asIndex, asList, asString, isFields, isIndex, type Fields } from './fields.ts'
import { createSentencePieceEncoder } from './sentence-piece.ts'
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

/**
 * A tokenizer from the parsed tokenizer.json and, if there is one, tokenizer_config.json; `place` names the first in messages.
 * CheckpointError for malformed files, UnsupportedError for kinds this package does not have.
 */
export function createTokenizer(tokenizerJson: unknown, tokenizerConfig: unknown, place: string): Tokenizer {
  const file = asFields(tokenizerJson, place)
  const config = tokenizerConfig === undefined ? {} : asFields(tokenizerConfig, 'tokenizer_config.json')
  const model = modelOf(file, place)
  const vocab = readVocab(model, file, place)
  const setup = { vocab, createDecoder: compileDecoder(file.decoder, `${place}: decoder`), cleansUp: cleansUp(model, config) }
  const idOfByte = byteTable(file, model, vocab)
  const encode = createEncode({ file, model, config, place }, idOfByte)

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
    for (const [text, id] of Object.entries(asFields(model.vocab, vocabPlace))) {
      // The place is put into words for an error alone: there are tens of thousands.
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
  const idOf = new Map(vocab.map((token, id) => [token?.text, id]))
  const named = (['bos', 'eos', 'pad', 'unk'] as const).flatMap(name => {
    const token = config[`${name}_token`]
    const content = isFields(token) ? token.content : token
    const id = typeof content === 'string' ? idOf.get(content) : undefined
    return id === undefined ? [] : [[name, id] as const]
  })
  return { ...Object.fromEntries(named), ids: vocab.flatMap((token, id) => (token?.isSpecial === true ? [id] : [])) }
}

type Encode = (text: string, addSpecialTokens: boolean) => Int32Array

interface EncoderParts { readonly file: Fields, readonly model: Fields, readonly config: Fields, readonly place: string }

function createEncode(parts: EncoderParts, idOfByte: Int32Array | undefined): Encode {
  if (idOfByte !== undefined) return (text) => encodeBytes(text, idOfByte)
  return parts.model.type === 'SentencePiece' ? createSentencePieceEncoder(parts.file, parts.place) : createEncoder(parts)
}

function createEncoder({ file, model, config, place }: EncoderParts): Encode {
  const { normalizer = null, pre_tokenizer = null, post_processor = null, decoder = null, added_tokens } = file
  const library = buildLibrary(place, () => new Library(
    { ...file, normalizer, pre_tokenizer, post_processor, decoder, added_tokens: added_tokens ?? [], model },
    // A word-level model's unknown token is read from the config alone.
    { unk_token: model.unk_token, ...config }
  ))
  return (text, addSpecialTokens) => {
    const { ids, tokens } = library.encode(text, { add_special_tokens: addSpecialTokens })
    return Int32Array.from(ids, (id: number | undefined, i) => {
      if (id === undefined) throw new RangeError(messageOf({ place: 'text', expected: 'only tokens of the vocabulary', got: describe(tokens[i]) }))
      return id
    })
  }
}

/** The library's own errors are plain ones: for a kind it does not know, or from somewhere inside for a file it cannot read. */
function buildLibrary(place: string, build: () => Library): Library {
  try {
    return build()
  } catch (error) {
    const got = error instanceof Error ? error.message : String(error)
    const parts = { place, expected: 'a tokenizer in the format of HuggingFace\'s tokenizers', got }
    throw got.startsWith('Unknown ') ? new UnsupportedError(parts, { cause: error }) : new CheckpointError(parts, { cause: error })
  }
}

/**
 * For a vocabulary of the 256 bytes and nothing else, the id of each byte: encoding is then a look-up (25 to 50 ms instead of 160 for 143 KB).
 * undefined for any other tokenizer.
 */
function byteTable(file: Fields, model: Fields, vocab: readonly (VocabToken | undefined)[]): Int32Array | undefined {
  const { pre_tokenizer: split, post_processor: post } = file
  const isPlain = model.type === 'BPE' && asList(model.merges, 'merges').length === 0 && !file.normalizer && (!post || (isFields(post) && post.type === 'ByteLevel')) &&
    isFields(split) && split.type === 'ByteLevel' && split.use_regex === false && split.add_prefix_space === false
  if (!isPlain || vocab.length !== 256) return undefined
  const idOfByte = new Int32Array(256).fill(-1)
  for (const [id, token] of vocab.entries()) {
    if (token === undefined || token.isAdded || token.text.length !== 1) return undefined
    const bytes = bytesOfToken(token.text)
    if (bytes.length === 1) idOfByte[bytes[0]] = id
  }
  return idOfByte.includes(-1) ? undefined : idOfByte
}

function encodeBytes(text: string, idOfByte: Int32Array): Int32Array {
  return Int32Array.from(new TextEncoder().encode(text), byte => idOfByte[byte])
}
