/**
 * A tokenizer.json as the keys of a GGUF file: byte-level BPE as llama.cpp's 'gpt2', and vocabularies of SentencePiece's kind, with their bytes as
 * tokens, as its 'llama'.
 */
import { CheckpointError, describe, UnsupportedError } from '../errors.ts'
import { DEFAULT_TEMPLATE } from './chat-template-choice.ts'
import { readChatTemplates } from './chat-templates.ts'
import { asFields, asIndex, asList, asString, isFields, type Fields } from './fields.ts'
import { CONTRACTIONS, GPT2, NEOX, PRE_TOKENIZERS } from './gguf-pre-tokenizers.ts'
import { scoresOf } from './gguf-scores.ts'
import { TOKEN_TYPES, type TokenizerFiles } from './gguf-tokenizer.ts'
import { tokensAround } from './template.ts'

/** Metadata to be written: some of GGUF's values. */
export type TokenizerValue =
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'uint32'; readonly value: number }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'array'; readonly itemType: 'string'; readonly value: readonly string[] }
  | { readonly type: 'array'; readonly itemType: 'int32'; readonly value: Int32Array }
  | { readonly type: 'array'; readonly itemType: 'float32'; readonly value: Float32Array }

export interface WriteTokenizerOptions extends TokenizerFiles {
  /** Rows of the embedding: each is a token in a GGUF file, those beyond the tokenizer's unused ones. */
  readonly vocabSize: number
  /** By the model's config; where it says nothing, the tokenizer's own. The second that ends a text becomes the end of a turn. */
  readonly ids: { readonly bos?: number | null | undefined; readonly eos?: readonly number[] | undefined; readonly pad?: number | null | undefined }
  /** For messages: the tokenizer.json. */
  readonly place: string
}

/** The tokenizer.ggml keys of a GGUF file. Throws an UnsupportedError for a tokenizer that llama.cpp has no name for, a CheckpointError for damage. */
export function writeGgufTokenizer({ tokenizerJson, tokenizerConfig, vocabSize, ids, place }: WriteTokenizerOptions): ReadonlyMap<string, TokenizerValue> {
  const file = asFields(tokenizerJson, place)
  const model = asFields(file.model, `${place}: model`)
  const { tokens, types } = writeTokens({ file, model, vocabSize, place })
  const named = (name: string): number | undefined => {
    const token = tokenizerConfig[`${name}_token`]
    const content = isFields(token) ? token.content : token
    const id = typeof content === 'string' ? tokens.indexOf(content) : -1
    return id < 0 ? undefined : id
  }
  const around = tokensAround(file.post_processor, `${place}: post_processor`)
  // Several may end a text: the model's, and the tokenizer's own, which ends a turn where the model has another.
  const ends = [...new Set([...(ids.eos ?? []), named('eos')])].filter((id) => id !== undefined)
  const idValues: (readonly [string, number | null | undefined])[] = [
    ['bos', around.first ?? ids.bos ?? named('bos')],
    ['eos', around.last ?? ends[0]],
    ['eot', ends[1]],
    ['unknown', named('unk')],
    ['padding', ids.pad ?? named('pad')]
  ]
  const { kind, values: merging } = writeModel({ file, model, vocabSize, place })
  const values: (readonly [string, TokenizerValue])[] = [
    ...kind,
    ['tokenizer.ggml.tokens', { type: 'array', itemType: 'string', value: tokens }],
    ['tokenizer.ggml.token_type', { type: 'array', itemType: 'int32', value: types }],
    ...merging
  ]
  for (const [name, id] of idValues) {
    if (id !== null && id !== undefined && id < vocabSize) values.push([`tokenizer.ggml.${name}_token_id`, { type: 'uint32', value: id }])
  }
  values.push(['tokenizer.ggml.add_bos_token', { type: 'bool', value: around.first !== undefined }])
  values.push(['tokenizer.ggml.add_eos_token', { type: 'bool', value: around.last !== undefined }])
  return new Map([...values, ...writeTemplates(tokenizerConfig, place)])
}

interface ModelParts {
  readonly file: Fields
  readonly model: Fields
  readonly vocabSize: number
  readonly place: string
}

/** The keys that name the kind of model, and those that say what is joined to what. */
function writeModel({ file, model, vocabSize, place }: ModelParts) {
  const name = (key: string, value: string): readonly [string, TokenizerValue] => [`tokenizer.ggml.${key}`, { type: 'string', value }]
  const scores = scoresOf({ file, model, vocabSize, place })
  if (scores !== undefined) {
    const values: (readonly [string, TokenizerValue])[] = [
      ['tokenizer.ggml.scores', { type: 'array', itemType: 'float32', value: scores.scores }],
      ['tokenizer.ggml.add_space_prefix', { type: 'bool', value: scores.addSpacePrefix }]
    ]
    return { kind: [name('model', 'llama'), name('pre', 'default')], values }
  }
  const merges = asList(model.merges, `${place}: model.merges`).map((merge) => writeMerge(merge, place))
  const pre = nameOfPreTokenizer({ file, model, hasMerges: merges.length > 0, place })
  const values: (readonly [string, TokenizerValue])[] = [['tokenizer.ggml.merges', { type: 'array', itemType: 'string', value: merges }]]
  return { kind: [name('model', 'gpt2'), name('pre', pre)], values }
}

/** One template, or the default one and others under their names. */
function writeTemplates(tokenizerConfig: Fields, place: string): (readonly [string, TokenizerValue])[] {
  const key = 'tokenizer.chat_template'
  const { sources } = readChatTemplates(tokenizerConfig, place)
  const others = [...sources.keys()].filter((name) => name !== DEFAULT_TEMPLATE)
  const values = [...sources].map(([name, value]) => [name === DEFAULT_TEMPLATE ? key : `${key}.${name}`, { type: 'string', value }] as const)
  return others.length === 0 ? values : [...values, ['tokenizer.chat_templates', { type: 'array', itemType: 'string', value: others }]]
}

function writeMerge(merge: unknown, place: string): string {
  const parts = typeof merge === 'string' ? merge.split(' ') : asList(merge, `${place}: model.merges`)
  const [left, right] = parts.map((part) => asString(part, `${place}: model.merges`))
  if (parts.length === 2 && !left.includes(' ') && !right.includes(' ')) return `${left} ${right}`
  throw new UnsupportedError({ place: `${place}: model.merges`, expected: 'pairs of tokens without spaces', got: describe(merge) })
}

function writeTokens({ file, model, vocabSize, place }: { file: Fields; model: Fields; vocabSize: number; place: string }) {
  const tokens: string[] = Array.from({ length: vocabSize }, (_, id) => `[PAD${id}]`)
  const types = new Int32Array(vocabSize).fill(TOKEN_TYPES.unused)
  const put = (id: number, text: string, type: number): void => {
    if (id >= vocabSize) throw new CheckpointError({ place: `${place}: ${describe(text)}`, expected: `an id below ${vocabSize}, the model's number of tokens`, got: `${id}` })
    tokens[id] = text
    types[id] = type
  }
  const hasBytes = model.type === 'SentencePiece' || model.byte_fallback === true
  for (const [text, id] of Object.entries(asFields(model.vocab, `${place}: model.vocab`))) {
    const type = hasBytes && /^<0x[0-9A-F]{2}>$/.test(text) ? TOKEN_TYPES.byte : TOKEN_TYPES.normal
    put(asIndex(id, `${place}: model.vocab[${describe(text)}]`), text, type)
  }
  for (const [i, entry] of asList(file.added_tokens, `${place}: added_tokens`).entries()) {
    const token = asFields(entry, `${place}: added_tokens[${i}]`)
    const text = asString(token.content, `${place}: added_tokens[${i}].content`)
    const special = hasBytes && text === model.unk_token ? TOKEN_TYPES.unknown : TOKEN_TYPES.control
    put(asIndex(token.id, `${place}: added_tokens[${i}].id`), text, token.special === true ? special : TOKEN_TYPES.userDefined)
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
