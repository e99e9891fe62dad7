/** Which of a checkpoint's chat templates a conversation uses. */
import { CheckpointError, describe, UnsupportedError } from '../errors.ts'

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

/** CheckpointError for a template that is too long. */
export function checkLength(source: string, place: string): string {
  if (source.length <= MAX_TEMPLATE_LENGTH) return source
  throw new CheckpointError({ place, expected: `at most ${MAX_TEMPLATE_LENGTH} characters`, got: `${source.length}` })
}
