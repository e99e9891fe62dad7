/** Between text and ids for models with a tokenizer and for those without one. */

import { describe, messageOf, UnsupportedError } from './errors.ts'
import type { DecodeStream } from './tokenizer/decode-stream.ts'
import type { Tokenizer } from './tokenizer/tokenizer.ts'

/** A prompt: text, or token ids. */
export type Prompt = string | ArrayLike<number>

export interface TextModel {
  readonly tokenizer: Tokenizer | null
  /** A prompt as it is now, checked: text needs a tokenizer (UnsupportedError), ids must be integers below vocabSize (RangeError). */
  check(prompt: Prompt): string | Int32Array
  /** Ids of a prompt, checked. `isStart`: special tokens that open a text are added. */
  toIds(prompt: Prompt, isStart: boolean): Int32Array
  /** Text of ids (UnsupportedError without a tokenizer). */
  toText(ids: ArrayLike<number>): string
  /** Pieces of text from ids; without a tokenizer there are none. */
  decodeStream(): DecodeStream
}

export function createTextModel(tokenizer: Tokenizer | null, vocabSize: number, place: string): TextModel {
  const needTokenizer = (): Tokenizer => {
    if (tokenizer !== null) return tokenizer
    throw new UnsupportedError({ place, expected: 'a tokenizer.json for calls with text', got: 'a model without one, which takes token ids' })
  }
  return {
    tokenizer,
    check(prompt) {
      if (typeof prompt !== 'string') return checkIds(prompt, vocabSize)
      needTokenizer()
      return prompt
    },
    toIds(prompt, isStart) {
      if (typeof prompt === 'string') return checkIds(needTokenizer().encode(prompt, { addSpecialTokens: isStart }), vocabSize)
      return checkIds(prompt, vocabSize)
    },
    toText: (ids) => needTokenizer().decode(checkIds(ids, vocabSize)),
    decodeStream: () => tokenizer?.decodeStream() ?? { push: () => '', flush: () => '' }
  }
}

/** Ids as an Int32Array of the library's own. */
function checkIds(ids: ArrayLike<number>, vocabSize: number): Int32Array {
  const isArrayLike = typeof ids === 'object' && ids !== null && Number.isInteger(ids.length) && ids.length >= 0
  if (!isArrayLike) throw new TypeError(messageOf({ place: 'prompt', expected: 'a string or token ids', got: describe(ids) }))
  for (let i = 0; i < ids.length; i++) {
    if (!Number.isInteger(ids[i]) || ids[i] < 0 || ids[i] >= vocabSize) {
      throw new RangeError(messageOf({ place: `ids[${i}]`, expected: `an integer from 0 to ${vocabSize - 1}`, got: describe(ids[i]) }))
    }
  }
  return Int32Array.from(ids)
}
