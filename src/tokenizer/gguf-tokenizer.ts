/**
 * The tokenizer in a GGUF file as a tokenizer.json, and the other way round: llama.cpp's model 'gpt2' (byte-level BPE) and, read alone, 'llama'
 * (SentencePiece, see sentence-piece.ts).
 *
 * The file has tokens, merges and the *name* of a pre-tokenizer; what a name stands for is llama.cpp's `llm_tokenizer_bpe`. It has no place for a
 * normalizer: where the tokenizer that a name comes from composes characters (NFC), so does what is read here, as the model was trained with it.
 */
import { CheckpointError, describe, UnsupportedError } from '../errors.ts'
import { asFields, asIndex, asList, asString, isFields, type Fields } from './fields.ts'
import { CONTRACTIONS, GPT2, NEOX, PRE_TOKENIZERS, type PreTokenizer } from './gguf-pre-tokenizers.ts'
import type { SentencePieceJson } from './sentence-piece.ts'
import { templateJson, tokensAround } from './template.ts'

/** The file's metadata, as `createMetadataReader` of src/checkpoint gives it. */
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

/** Metadata to be written: some of GGUF's values. */
export type TokenizerValue =
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'uint32'; readonly value: number }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'array'; readonly itemType: 'string'; readonly value: readonly string[] }
  | { readonly type: 'array'; readonly itemType: 'int32'; readonly value: Int32Array }

/** llama.cpp's token types. */
const NORMAL = 1
const UNKNOWN = 2
const CONTROL = 3
const USER_DEFINED = 4
const UNUSED = 5

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
  const seen = new Set<string>()
  for (const [id, content] of texts.entries()) {
    if (seen.has(content)) throw new CheckpointError({ place: `${fileName}, ${tokensKey}, ${id}`, expected: 'each token once', got: `${describe(content)} again` })
    seen.add(content)
    const type = types?.[id] ?? NORMAL
    const special = type === CONTROL || type === UNKNOWN
    if (special || type === USER_DEFINED) addedTokens.push({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: !special, special })
    else if (hasUnused || type !== UNUSED) vocab[content] = id
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

export interface WriteTokenizerOptions extends TokenizerFiles {
  /** Rows of the embedding: each is a token in a GGUF file, those beyond the tokenizer's unused ones. */
  readonly vocabSize: number
  /** By the model's config; where it says nothing, the tokenizer's own. The second of `eos` becomes the end of a turn. */
  readonly ids: { readonly bos?: number | null | undefined; readonly eos?: readonly number[] | undefined; readonly pad?: number | null | undefined }
  /** For messages: the tokenizer.json. */
  readonly place: string
}

/** The tokenizer.ggml keys of a GGUF file. Throws an UnsupportedError for a tokenizer that llama.cpp's 'gpt2' does not describe, a CheckpointError for damage. */
export function writeGgufTokenizer({ tokenizerJson, tokenizerConfig, vocabSize, ids, place }: WriteTokenizerOptions): ReadonlyMap<string, TokenizerValue> {
  const file = asFields(tokenizerJson, place)
  const model = asFields(file.model, `${place}: model`)
  const merges = asList(model.merges, `${place}: model.merges`).map((merge) => writeMerge(merge, place))
  const pre = nameOfPreTokenizer({ file, model, hasMerges: merges.length > 0, place })
  const { tokens, types } = writeTokens({ file, model, vocabSize, place })
  const named = (name: string): number | undefined => {
    const token = tokenizerConfig[`${name}_token`]
    const content = isFields(token) ? token.content : token
    const id = typeof content === 'string' ? tokens.indexOf(content) : -1
    return id < 0 ? undefined : id
  }
  const around = tokensAround(file.post_processor, `${place}: post_processor`)
  const idValues: (readonly [string, number | null | undefined])[] = [
    ['bos', around.first ?? ids.bos ?? named('bos')],
    ['eos', around.last ?? ids.eos?.[0] ?? named('eos')],
    ['eot', ids.eos?.[1]],
    ['unknown', named('unk')],
    ['padding', ids.pad ?? named('pad')]
  ]
  const values: (readonly [string, TokenizerValue])[] = [
    ['tokenizer.ggml.model', { type: 'string', value: 'gpt2' }],
    ['tokenizer.ggml.pre', { type: 'string', value: pre }],
    ['tokenizer.ggml.tokens', { type: 'array', itemType: 'string', value: tokens }],
    ['tokenizer.ggml.token_type', { type: 'array', itemType: 'int32', value: types }],
    ['tokenizer.ggml.merges', { type: 'array', itemType: 'string', value: merges }]
  ]
  for (const [name, id] of idValues) {
    if (id !== null && id !== undefined && id < vocabSize) values.push([`tokenizer.ggml.${name}_token_id`, { type: 'uint32', value: id }])
  }
  values.push(['tokenizer.ggml.add_bos_token', { type: 'bool', value: around.first !== undefined }])
  values.push(['tokenizer.ggml.add_eos_token', { type: 'bool', value: around.last !== undefined }])
  if (typeof tokenizerConfig.chat_template === 'string') values.push(['tokenizer.chat_template', { type: 'string', value: tokenizerConfig.chat_template }])
  return new Map(values)
}

function writeMerge(merge: unknown, place: string): string {
  const parts = typeof merge === 'string' ? merge.split(' ') : asList(merge, `${place}: model.merges`)
  const [left, right] = parts.map((part) => asString(part, `${place}: model.merges`))
  if (parts.length === 2 && !left.includes(' ') && !right.includes(' ')) return `${left} ${right}`
  throw new UnsupportedError({ place: `${place}: model.merges`, expected: 'pairs of tokens without spaces', got: describe(merge) })
}

function writeTokens({ file, model, vocabSize, place }: { file: Fields; model: Fields; vocabSize: number; place: string }) {
  const tokens: string[] = Array.from({ length: vocabSize }, (_, id) => `[PAD${id}]`)
  const types = new Int32Array(vocabSize).fill(UNUSED)
  const put = (id: number, text: string, type: number): void => {
    if (id >= vocabSize) throw new CheckpointError({ place: `${place}: ${describe(text)}`, expected: `an id below ${vocabSize}, the model's number of tokens`, got: `${id}` })
    tokens[id] = text
    types[id] = type
  }
  for (const [text, id] of Object.entries(asFields(model.vocab, `${place}: model.vocab`))) put(asIndex(id, `${place}: model.vocab[${describe(text)}]`), text, NORMAL)
  for (const [i, entry] of asList(file.added_tokens, `${place}: added_tokens`).entries()) {
    const token = asFields(entry, `${place}: added_tokens[${i}]`)
    const text = asString(token.content, `${place}: added_tokens[${i}].content`)
    put(asIndex(token.id, `${place}: added_tokens[${i}].id`), text, token.special === true ? CONTROL : USER_DEFINED)
  }
  return { tokens, types }
}

/** llama.cpp's name for how this file cuts texts. */
function nameOfPreTokenizer({ file, model, hasMerges, place }: { file: Fields; model: Fields; hasMerges: boolean; place: string }): string {
  if (model.type !== undefined && model.type !== 'BPE') throw new UnsupportedError({ place: `${place}: model.type`, expected: '"BPE"', got: describe(model.type) })
  const cut = asFields(file.pre_tokenizer, `${place}: pre_tokenizer`)
  const steps = cut.type === 'Sequence' ? asList(cut.pretokenizers, `${place}: pre_tokenizer.pretokenizers`).map((step) => asFields(step, `${place}: pre_tokenizer`)) : [cut]
  const last = steps.at(-1)
  const splits = steps.slice(0, -1).map((step) => (step.type === 'Digits' && step.individual_digits === true ? '\\p{N}' : splitOf(step)))
  const normalizer = isFields(file.normalizer) ? file.normalizer.type : (file.normalizer ?? null)
  if (last?.type === 'ByteLevel' && last.add_prefix_space === false && (normalizer === null || normalizer === 'NFC')) {
    for (const [name, pre] of PRE_TOKENIZERS) {
      const isSame = pre.usesGpt2Rule === (last.use_regex !== false) && pre.splits.join('\n') === splits.join('\n')
      // Without merges no cut makes a difference.
      if (!isSame && (hasMerges || pre !== (normalizer === null ? GPT2 : NEOX))) continue
      if (pre.isComposed === (normalizer === 'NFC') && pre.ignoresMerges === (model.ignore_merges === true)) return name
    }
  }
  throw new UnsupportedError({ place: `${place}: pre_tokenizer`, expected: 'one that llama.cpp has a name for', got: describe(JSON.stringify([normalizer, cut])) })
}

/** The expression of a step, in this file's spelling of contractions; '?' for a step that is none. */
function splitOf({ type, pattern, behavior, invert }: Fields): string {
  if (type !== 'Split' || behavior !== 'Isolated' || invert === true || !isFields(pattern) || typeof pattern.Regex !== 'string') return '?'
  return pattern.Regex.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", CONTRACTIONS)
}
