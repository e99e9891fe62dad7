/** Text to token ids and back, for every kind of tokenizer. Encoding is HuggingFace's tokenizers.js, checked, with a table for byte vocabularies. */
import { Tokenizer as Library } from '@huggingface/tokenizers'
import { CheckpointError, describe, messageOf, UnsupportedError } from '../errors.ts'
import { byteEncoder } from './byte-encoder.ts'
import { createSentencePieceEncoder } from './sentence-piece.ts'
import { type Encode, readTokenizerParts, type Tokenizer, tokenizerOf, type TokenizerParts } from './tokenizer-parts.ts'

export type { EncodeOptions, SpecialTokens, Tokenizer } from './tokenizer-parts.ts'

/**
 * A tokenizer from the parsed tokenizer.json and, if there is one, tokenizer_config.json; `place` names the first in messages.
 * CheckpointError for malformed files, UnsupportedError for kinds this package does not have.
 */
export function createTokenizer(tokenizerJson: unknown, tokenizerConfig: unknown, place: string): Tokenizer {
  const parts = readTokenizerParts(tokenizerJson, tokenizerConfig, place)
  return tokenizerOf(parts, byteEncoder(parts) ?? anyEncoder(parts))
}

/** For what is no vocabulary of bytes. */
export function anyEncoder(parts: TokenizerParts): Encode {
  return parts.model.type === 'SentencePiece' ? createSentencePieceEncoder(parts.file, parts.place) : createLibraryEncoder(parts)
}

function createLibraryEncoder({ file, model, config, place }: TokenizerParts): Encode {
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
