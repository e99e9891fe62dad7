/** Tokenizers small enough to write down: of SentencePiece's kind, with Metaspace, and of BERT's kind. */
import { readFileSync } from 'node:fs'

/** A tokenizer.json, as far as the tests reach into it. */
export interface TokenizerJson { [key: string]: unknown }

export function readJson(path: string): TokenizerJson {
  const value: TokenizerJson = JSON.parse(readFileSync(path, 'utf8'))
  return value
}

const BYTES = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)
const WORDS = ['▁', ...Array.from('abcdehlorstw.,!?\'é'), '▁h', 'el', 'lo', '▁hel', '▁hello', '▁w', 'or', '▁wor', 'ld', '▁▁']
const MERGES = [['▁', 'h'], ['e', 'l'], ['l', 'o'], ['▁h', 'el'], ['▁hel', 'lo'], ['▁', 'w'], ['o', 'r'], ['▁w', 'or'], ['l', 'd'], ['▁', '▁']]

/** As Llama 2 and Mistral have it: bytes for what is not in the vocabulary, one space stripped at the start. */
export function sentencePiece(): TokenizerJson {
  return {
    version: '1.0',
    added_tokens: ['<unk>', '<s>', '</s>'].map((content, id) => addedToken(content, id)),
    normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '▁' }, { type: 'Replace', pattern: { String: ' ' }, content: '▁' }] },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } }
    },
    decoder: {
      type: 'Sequence',
      decoders: [{ type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }, { type: 'Strip', content: ' ', start: 1, stop: 0 }]
    },
    model: {
      type: 'BPE', unk_token: '<unk>', fuse_unk: true, byte_fallback: true, merges: MERGES,
      vocab: Object.fromEntries(['<unk>', '<s>', '</s>', ...BYTES, ...WORDS].map((token, id) => [token, id]))
    }
  }
}

export function metaspace(prepend_scheme: 'first' | 'never' | 'always'): TokenizerJson {
  const part = { type: 'Metaspace', replacement: '▁', prepend_scheme, split: false }
  return { ...sentencePiece(), normalizer: null, post_processor: null, pre_tokenizer: part, decoder: part }
}

export function wordPiece(): TokenizerJson {
  return {
    version: '1.0', added_tokens: [addedToken('[UNK]', 0)], normalizer: { type: 'Lowercase' }, pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: null, decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    model: {
      type: 'WordPiece', unk_token: '[UNK]', continuing_subword_prefix: '##', max_input_chars_per_word: 100,
      vocab: { '[UNK]': 0, hello: 1, world: 2, '##s': 3, '.': 4, ',': 5, "'": 6, s: 7, do: 8, n: 9, "n't": 10, '!': 11 }
    }
  }
}

/** Ids 0 to 4 of `chatTokenizer`. */
export const CHAT_TOKENS = ['<unk>', '<s>', '</s>', '<|im_end|>', '<|im_start|>']
/** Ids from 5: a newline, ASCII, and letters up to 160 ids. */
export const CHAT_CHARACTERS = ['\n', ...Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)), ...Array.from({ length: 59 }, (_, i) => String.fromCharCode(0x3b1 + i))]

/** Every character is a token, of 160: text becomes ids and ids text without loss, so that a reply reads as it was generated. A text by itself begins with `<s>`. */
export function chatTokenizer(): TokenizerJson {
  const { post_processor } = sentencePiece()
  return {
    version: '1.0', added_tokens: CHAT_TOKENS.map((content, id) => addedToken(content, id)),
    normalizer: null, pre_tokenizer: null, post_processor, decoder: { type: 'Fuse' },
    model: { type: 'BPE', unk_token: '<unk>', fuse_unk: false, byte_fallback: false, merges: [], vocab: Object.fromEntries([...CHAT_TOKENS, ...CHAT_CHARACTERS].map((token, id) => [token, id])) }
  }
}

function addedToken(content: string, id: number) {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
}
