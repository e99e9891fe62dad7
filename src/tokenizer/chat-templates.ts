/** The chat templates that a tokenizer's config holds, as transformers reads them, and the special tokens that they may name. */
import { CheckpointError, describe, UnsupportedError } from '../errors.ts'
import { asFields, asList, asString, type Fields, isFields } from './fields.ts'

export interface ChatTemplates {
  /** Jinja sources by name. A config with a single one calls it `default`. */
  readonly sources: ReadonlyMap<string, string>
  /** `bos_token`, `eos_token` and the like: variables of every template. */
  readonly specialTokens: Readonly<Record<string, string>>
  /** For messages: the tokenizer_config.json, or the GGUF file. */
  readonly place: string
}

/** Real templates have up to 20 KB. */
const MAX_TEMPLATE_LENGTH = 1_000_000

/** The name of a template that stands alone. */
export const DEFAULT_TEMPLATE = 'default'

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

/**
 * The template that `asked` names, or `asked` itself where it names none, as in transformers' `apply_chat_template`; without it the default one.
 * UnsupportedError where there is none.
 */
export function chooseChatTemplate({ sources, place }: ChatTemplates, asked: string | undefined): { readonly source: string; readonly place: string } {
  const source = sources.get(asked ?? DEFAULT_TEMPLATE)
  if (source !== undefined) return { source, place: `${place}: chat template` }
  if (asked !== undefined) return { source: checkLength(asked, 'chatTemplate'), place: 'chatTemplate' }
  const got = sources.size > 0 ? `only templates by other names: ${describe([...sources.keys()])}` : 'none'
  throw new UnsupportedError({ place, expected: 'a chat template (chat_template.jinja, tokenizer_config.json, GGUF metadata), or the option chatTemplate', got })
}

function checkLength(source: string, place: string): string {
  if (source.length <= MAX_TEMPLATE_LENGTH) return source
  throw new CheckpointError({ place, expected: `at most ${MAX_TEMPLATE_LENGTH} characters`, got: `${source.length}` })
}
