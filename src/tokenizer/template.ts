/** What a tokenizer puts around a text: the `post_processor` of a tokenizer.json, as far as it is a token before and one after. */
import { describe, UnsupportedError } from '../errors.ts'
import { asFields, asIndex, asList, asString, type Fields } from './fields.ts'

/** A template for byte-level or other tokens that puts `first` and `last`, where given, around a text. */
export function templateJson({ first, last, texts }: { first: number | undefined; last: number | undefined; texts: readonly string[] }): Fields {
  if (first === undefined && last === undefined) return { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true }
  const token = (id: number | undefined) => (id === undefined ? [] : [{ SpecialToken: { id: texts[id], type_id: 0 } }])
  const part = (id: 'A' | 'B', type_id: number) => [...token(first), { Sequence: { id, type_id } }, ...token(last)]
  const ids = [first, last].filter((id) => id !== undefined)
  return {
    type: 'TemplateProcessing',
    single: part('A', 0),
    pair: [...part('A', 0), ...part('B', 1)],
    special_tokens: Object.fromEntries(ids.map((id) => [texts[id], { id: texts[id], ids: [id], tokens: [texts[id]] }]))
  }
}

/** The ids of the tokens that the template puts before and after a text. */
export function tokensAround(processor: unknown, place: string): { readonly first?: number | undefined; readonly last?: number | undefined } {
  if (processor === null || processor === undefined) return {}
  const fields = asFields(processor, place)
  if (fields.type === 'ByteLevel') return {}
  if (fields.type === 'Sequence') {
    const parts = asList(fields.processors, place).map((part) => tokensAround(part, place))
    return { first: parts.find(({ first }) => first !== undefined)?.first, last: parts.find(({ last }) => last !== undefined)?.last }
  }
  const single = asList(fields.single, `${place}.single`).map((part) => asFields(part, `${place}.single`))
  const at = single.findIndex(({ Sequence }) => Sequence !== undefined)
  if (fields.type !== 'TemplateProcessing' || at < 0 || at > 1 || single.length > at + 2) {
    throw new UnsupportedError({ place, expected: 'at most one token before a text and one after it', got: describe(JSON.stringify(fields.single ?? fields.type)) })
  }
  const idOf = (part: Fields | undefined): number | undefined => {
    if (part === undefined) return undefined
    const name = asString(asFields(part.SpecialToken, place).id, place)
    const token = asFields(asFields(fields.special_tokens, place)[name], `${place}.special_tokens`)
    return asIndex(asList(token.ids, `${place}.special_tokens`)[0], `${place}.special_tokens`)
  }
  return { first: at === 1 ? idOf(single[0]) : undefined, last: idOf(single[at + 1]) }
}
