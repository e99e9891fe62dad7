/** The chat templates that a tokenizer's config holds, as transformers reads them, and the special tokens that they may name. */
import { type ChatTemplates, checkLength, DEFAULT_TEMPLATE } from './chat-template-choice.ts'
import { asFields, asList, asString, type Fields, isFields } from './fields.ts'

const SPECIAL_TOKENS = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token']

/** `chat_template` is a string, or a list of { name, template }; there may be none. CheckpointError for anything else. */
export function readChatTemplates(tokenizerConfig: Fields, place: string): ChatTemplates {
  const { chat_template: found } = tokenizerConfig
  const named = typeof found === 'string' ? [{ name: DEFAULT_TEMPLATE, template: found }] : asList(found, `${place}: chat_template`)
  const sources = new Map<string, string>()
  for (const [i, entry] of named.entries()) {
    const entryPlace = `${place}: chat_template[${i}]`
    const { name, template } = asFields(entry, entryPlace)
    sources.set(asString(name, `${entryPlace}.name`), checkLength(asString(template, `${entryPlace}.template`), `${place}: chat_template`))
  }
  return { sources, specialTokens: specialTokensOf(tokenizerConfig), place }
}

function specialTokensOf(tokenizerConfig: Fields): Record<string, string> {
  const named = SPECIAL_TOKENS.flatMap((name) => {
    const token = tokenizerConfig[name]
    const content = isFields(token) ? token.content : token
    return typeof content === 'string' ? [[name, content] as const] : []
  })
  return Object.fromEntries(named)
}
