/**
 * Scores for llama.cpp's model 'llama', for vocabularies of SentencePiece's kind: those of a file that has them, or from the merges of a
 * tokenizer.json. SentencePiece's merges were made from scores: all ways to a token stand together, the tokens by falling score. Where they do,
 * the order of the tokens gives scores that join the same; but for places where two ways to one token overlap, which merges order by
 * themselves and scores by place.
 */
import { describe, UnsupportedError } from '../errors.ts'
import { asFields, asIndex, asList, asString, type Fields, isFields } from './fields.ts'

export interface Scores {
  /** By id. */
  readonly scores: Float32Array
  readonly addSpacePrefix: boolean
}

interface ScoresOptions {
  readonly file: Fields
  readonly model: Fields
  readonly vocabSize: number
  readonly place: string
}

/** undefined for a vocabulary that is not of this kind; UnsupportedError for one whose merges or spaces scores cannot express. */
export function scoresOf({ file, model, vocabSize, place }: ScoresOptions): Scores | undefined {
  const scores = new Float32Array(vocabSize)
  if (model.type === 'SentencePiece') {
    scores.set(asList(model.scores, `${place}: model.scores`).map(Number).slice(0, vocabSize))
    return { scores, addSpacePrefix: model.add_space_prefix === true }
  }
  if (model.byte_fallback !== true) return undefined
  const vocab = new Map(Object.entries(asFields(model.vocab, `${place}: model.vocab`)))
  // Added tokens are found before anything is joined.
  for (const entry of asList(file.added_tokens, `${place}: added_tokens`)) vocab.delete(asString(asFields(entry, `${place}: added_tokens`).content, `${place}: added_tokens`))
  for (const [i, token] of productsOf({ vocab, merges: asList(model.merges, `${place}: model.merges`), place: `${place}: model.merges` }).entries()) {
    scores[asIndex(vocab.get(token), `${place}: model.vocab[${describe(token)}]`)] = -i
  }
  return { scores, addSpacePrefix: addsSpace(file, place) }
}

/** The tokens that merges make, each once, in order. */
function productsOf({ vocab, merges, place }: { readonly vocab: ReadonlyMap<string, unknown>; readonly merges: readonly unknown[]; readonly place: string }): string[] {
  const refuse = (token: string, got: string): never => {
    throw new UnsupportedError({ place, expected: `all ways to put ${describe(token)} together, one after another, as scores make them`, got })
  }
  const products: string[] = []
  const waysTo = new Map<string, number>()
  for (const merge of merges) {
    const [left, right] = (typeof merge === 'string' ? merge.split(' ') : asList(merge, place)).map((part) => asString(part, place))
    const token = left + right
    if (token !== products.at(-1)) {
      if (waysTo.has(token)) refuse(token, 'one that stands apart')
      products.push(token)
    }
    waysTo.set(token, (waysTo.get(token) ?? 0) + 1)
  }
  for (const token of vocab.keys()) {
    const characters = Array.from(token)
    let nWays = 0
    for (let i = 1, left = ''; i < characters.length; i++) {
      left += characters[i - 1]
      if (vocab.has(left) && vocab.has(token.slice(left.length))) nWays++
    }
    if (nWays !== (waysTo.get(token) ?? 0)) refuse(token, `${waysTo.get(token) ?? 0} of ${nWays}`)
  }
  return products
}

/** Whether a space comes before each stretch of text, which the normalizer says: there are no other ways in which llama.cpp puts one. */
function addsSpace({ normalizer, pre_tokenizer }: Fields, place: string): boolean {
  const steps = isFields(normalizer) && normalizer.type === 'Sequence' ? asList(normalizer.normalizers, `${place}: normalizer`) : [normalizer]
  const known = steps.map((step) => {
    if (!isFields(step)) return '?'
    if (step.type === 'Prepend') return step.prepend === '▁' ? 'prepend' : '?'
    return step.type === 'Replace' && isFields(step.pattern) && step.pattern.String === ' ' && step.content === '▁' ? 'replace' : '?'
  }).join(', ')
  const hasNone = pre_tokenizer === null || pre_tokenizer === undefined
  if (hasNone && known === 'prepend, replace') return true
  if (hasNone && known === 'replace') return false
  throw new UnsupportedError({
    place: `${place}: normalizer, pre_tokenizer`, expected: 'spaces replaced by "▁", one put before every stretch of text or none, as llama.cpp has it',
    got: describe(JSON.stringify([normalizer, pre_tokenizer]))
  })
}
