/**
 * The tokenizer in a GGUF file as a tokenizer.json: llama.cpp's model 'gpt2' (byte-level BPE) and 'llama' (SentencePiece, see sentence-piece.ts).
 *
 * The file has tokens, merges and the *name* of a pre-tokenizer; what a name stands for is llama.cpp's `llm_tokenizer_bpe`. It has no place for a
 * normalizer: where the tokenizer that a name comes from composes characters (NFC), so does what is read here, as the model was trained with it.
 */
import { CheckpointError, describe, UnsupportedError } from '../errors.ts'
import type { Fields } from './fields.ts'
import { PRE_TOKENIZERS, type PreTokenizer } from './gguf-pre-tokenizers.ts'
import type { SentencePieceJson } from './sentence-piece.ts'
import { templateJson } from './template.ts'

/** The file's metadata, as `withArrays` of src/checkpoint gives it. */
export interface TokenizerMetadata {
  /** For messages: the file's name. */
  readonly name: string
  has(key: string): boolean
  natural(key: string): number
  flag(key: string, fallback: boolean): boolean
  text(key: string): string
  texts(key: string): readonly string[]
  integers(key: string): readonly number[]
  floats(key: string): readonly number[]
}

/** llama.cpp's types of tokens. */
export const TOKEN_TYPES = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const

/** What `createTokenizer` takes. */
export interface TokenizerFiles {
  readonly tokenizerJson: Fields
  readonly tokenizerConfig: Fields
}

/**
 * The tokenizer of a GGUF file, or undefined where it has none. Throws an UnsupportedError that names a kind of tokenizer or a pre-tokenizer
 * which this package does not have, and a CheckpointError for damage.
 */
export function readGgufTokenizer(reader: TokenizerMetadata): TokenizerFiles | undefined {
  const modelKey = 'tokenizer.ggml.model'
  const model = reader.has(modelKey) ? reader.text(modelKey) : 'none'
  if (model === 'none' || model === 'no_vocab') return undefined
  if (model === 'gpt2') return bytePairFiles(reader)
  if (model === 'llama') return sentencePieceFiles(reader)
  throw new UnsupportedError({ place: `${reader.name}, ${modelKey}`, expected: '"gpt2" or "llama"', got: describe(model) })
}

function bytePairFiles(reader: TokenizerMetadata): TokenizerFiles {
  const preKey = 'tokenizer.ggml.pre'
  const preName = reader.has(preKey) ? reader.text(preKey) : 'default'
  const pre = PRE_TOKENIZERS.get(preName)
  if (pre === undefined) {
    throw new UnsupportedError({ place: `${reader.name}, ${preKey}`, expected: `one of ${[...PRE_TOKENIZERS.keys()].join(', ')}`, got: describe(preName) })
  }
  const { vocab, addedTokens, texts } = readTokens(reader, false)
  const merges = reader.texts('tokenizer.ggml.merges').map((merge) => readMerge(merge, reader.name))
  const { tokenizerConfig, post_processor } = readSpecials(reader, { addedTokens, texts, addsBos: pre.addsBos, defaults: {} })
  return {
    tokenizerJson: {
      version: '1.0',
      added_tokens: addedTokens,
      normalizer: pre.isComposed ? { type: 'NFC' } : null,
      pre_tokenizer: preTokenizerJson(pre, merges.length > 0),
      post_processor,
      decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
      model: { type: 'BPE', unk_token: null, fuse_unk: false, byte_fallback: false, ignore_merges: pre.ignoresMerges, vocab, merges }
    },
    tokenizerConfig
  }
}

/** What files of SentencePiece's kind leave unsaid, as llama.cpp has it. */
const LLAMA_IDS = { bos: 1, eos: 2, unknown: 0 }

function sentencePieceFiles(reader: TokenizerMetadata): TokenizerFiles {
  const { vocab, addedTokens, texts } = readTokens(reader, true)
  const scoresKey = 'tokenizer.ggml.scores'
  const scores = reader.has(scoresKey) ? reader.floats(scoresKey) : []
  if (scores.length > 0 && scores.length < texts.length) {
    throw new CheckpointError({ place: `${reader.name}, ${scoresKey}`, expected: `${texts.length} scores, one for each token`, got: `${scores.length}` })
  }
  const { tokenizerConfig, post_processor, ids } = readSpecials(reader, { addedTokens, texts, addsBos: true, defaults: LLAMA_IDS })
  const add_space_prefix = reader.flag('tokenizer.ggml.add_space_prefix', true)
  const steps = [{ type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }]
  const model: SentencePieceJson = { type: 'SentencePiece', vocab, scores, add_space_prefix, unk_token: ids.unk === undefined ? null : texts[ids.unk] }
  return {
    tokenizerJson: {
      version: '1.0', added_tokens: addedTokens, normalizer: null, pre_tokenizer: null, post_processor,
      decoder: { type: 'Sequence', decoders: add_space_prefix ? [...steps, { type: 'Strip', content: ' ', start: 1, stop: 0 }] : steps },
      model
    },
    tokenizerConfig
  }
}

interface SpecialsOptions {
  readonly addedTokens: readonly { readonly id: number }[]
  readonly texts: readonly string[]
  /** Where the file does not say. */
  readonly addsBos: boolean
  readonly defaults: Readonly<Record<string, number>>
}

/** Special tokens, what stands around a text, and the chat templates. */
function readSpecials(reader: TokenizerMetadata, { addedTokens, texts, addsBos, defaults }: SpecialsOptions) {
  const special = (name: string): number | undefined => readSpecialId(reader, name, { nTokens: texts.length, fallback: defaults[name] })
  const ids = { bos: special('bos'), eos: special('eos'), pad: special('padding'), unk: special('unknown') }
  const added = new Set(addedTokens.map(({ id }) => id))
  const named = Object.entries(ids).flatMap(([name, id]) => (id !== undefined && added.has(id) ? [[`${name}_token`, texts[id]] as const] : []))
  const first = reader.flag('tokenizer.ggml.add_bos_token', addsBos) ? ids.bos : undefined
  const last = reader.flag('tokenizer.ggml.add_eos_token', false) ? ids.eos : undefined
  return {
    ids,
    post_processor: templateJson({ first, last, texts }),
    tokenizerConfig: { ...Object.fromEntries(named), ...readTemplates(reader), clean_up_tokenization_spaces: false }
  }
}

/** llama.cpp keeps templates beside the default one under keys of their own. */
function readTemplates(reader: TokenizerMetadata): Fields {
  const key = 'tokenizer.chat_template'
  const names = reader.has('tokenizer.chat_templates') ? reader.texts('tokenizer.chat_templates') : []
  const others = names.filter((name) => reader.has(`${key}.${name}`)).map((name) => ({ name, template: reader.text(`${key}.${name}`) }))
  if (!reader.has(key)) return others.length === 0 ? {} : { chat_template: others }
  const template = reader.text(key)
  return { chat_template: others.length === 0 ? template : [{ name: 'default', template }, ...others] }
}

/** `hasUnused`: tokens of the type that is for none count, as llama.cpp's SentencePiece has it. */
function readTokens(reader: TokenizerMetadata, hasUnused: boolean) {
  const { name: fileName } = reader
  const tokensKey = 'tokenizer.ggml.tokens'
  const typesKey = 'tokenizer.ggml.token_type'
  const texts = reader.texts(tokensKey)
  const types = reader.has(typesKey) ? reader.integers(typesKey) : undefined
  if (types !== undefined && types.length < texts.length) {
    throw new CheckpointError({ place: `${fileName}, ${typesKey}`, expected: `${texts.length} types, one for each token`, got: `${types.length}` })
  }
  const vocab: Record<string, number> = Object.create(null)
  const addedTokens = []
  /** Those that are not in `vocab`. */
  const others = new Set<string>()
  for (const [id, content] of texts.entries()) {
    if (content in vocab || others.has(content)) throw new CheckpointError({ place: `${fileName}, ${tokensKey}, ${id}`, expected: 'each token once', got: `${describe(content)} again` })
    const type = types?.[id] ?? TOKEN_TYPES.normal
    const special = type === TOKEN_TYPES.control || type === TOKEN_TYPES.unknown
    const isAdded = special || type === TOKEN_TYPES.userDefined
    if (isAdded) addedTokens.push({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: !special, special })
    if (!isAdded && (hasUnused || type !== TOKEN_TYPES.unused)) vocab[content] = id
    else others.add(content)
  }
  return { vocab, addedTokens, texts }
}

/** The first space that is not the first character parts the two. */
function readMerge(merge: string, fileName: string): readonly [string, string] {
  const at = merge.indexOf(' ', 1)
  if (at > 0) return [merge.slice(0, at), merge.slice(at + 1)]
  throw new CheckpointError({ place: `${fileName}, tokenizer.ggml.merges`, expected: 'two tokens with a space between them', got: describe(merge) })
}

function readSpecialId(
  reader: TokenizerMetadata, name: string, { nTokens, fallback }: { readonly nTokens: number; readonly fallback: number | undefined }
): number | undefined {
  const key = `tokenizer.ggml.${name}_token_id`
  if (!reader.has(key)) return fallback !== undefined && fallback < nTokens ? fallback : undefined
  const id = reader.natural(key)
  if (id < nTokens) return id
  throw new CheckpointError({ place: `${reader.name}, ${key}`, expected: `an id below ${nTokens}`, got: `${id}` })
}

function preTokenizerJson({ splits, usesGpt2Rule, ignoresMerges }: PreTokenizer, hasMerges: boolean): Fields {
  // Without merges it makes no difference where a text is cut, and a vocabulary of bytes is then seen to be one.
  if (!hasMerges && !ignoresMerges) return { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false }
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: usesGpt2Rule }
  if (splits.length === 0) return byteLevel
  const steps = splits.map((Regex) => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false }))
  return { type: 'Sequence', pretokenizers: [...steps, byteLevel] }
}
