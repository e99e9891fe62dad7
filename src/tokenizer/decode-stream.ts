/** Ids to text as they come: pieces of whole characters that together are the text of all ids. */
import { describe, messageOf } from '../errors.ts'
import type { TokenDecoder, VocabToken } from './decoders.ts'
import { createCleanUp } from './text-stages.ts'

export interface DecodeOptions {
  /** Leaves out the special tokens, as `<|endoftext|>`. Default false. */
  readonly skipSpecialTokens?: boolean | undefined
}

export interface DecodeStream {
  /** Takes the next id; the text that can no longer change, often all of the token's, possibly ''. RangeError for what can be no id. */
  push(id: number): string
  /** The end: what was held back. The stream is then as new. */
  flush(): string
}

export interface DecodeSetup {
  /** By id; ids without a token, as those a model's padded vocabulary ends in, have no text. */
  readonly vocab: readonly (VocabToken | undefined)[]
  readonly createDecoder: () => TokenDecoder
  readonly cleansUp: boolean
}

/**
 * A stream for one sequence. For any ids, the pieces and the flush joined are the decoded text; a piece never ends inside a character.
 * Constant time per token and constant memory. Valid text waits for at most three bytes (and for a few characters where spaces are cleaned up).
 */
export function createDecodeStream({ vocab, createDecoder, cleansUp }: DecodeSetup, { skipSpecialTokens = false }: DecodeOptions = {}): DecodeStream {
  const decoder = createDecoder()
  const cleaner = cleansUp ? createCleanUp() : undefined
  return {
    push(id) {
      if (!Number.isInteger(id) || id < 0) {
        throw new RangeError(messageOf({ place: 'token id', expected: 'an integer, 0 or more', got: describe(id) }))
      }
      const token = vocab[id]
      if (token === undefined || (skipSpecialTokens && token.isSpecial)) return ''
      const text = decoder.push(token)
      return cleaner === undefined ? text : cleaner.push(text)
    },
    flush() {
      const text = decoder.flush()
      return cleaner === undefined ? text : cleaner.push(text) + cleaner.flush()
    }
  }
}
