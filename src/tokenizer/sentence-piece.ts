/**
 * SentencePiece's vocabularies as llama.cpp encodes with them (`llm_tokenizer_spm`): of all neighbours that together are a token, those with the
 * highest score are joined, the leftmost first among equals, until none are left; what then is no token becomes its bytes' tokens.
 *
 * Not byte pair encoding by ranks: every way to put a token together has the token's own score, and of overlapping ways the leftmost wins,
 * where ranked pairs would have an order of their own.
 */
import { CheckpointError, describe, messageOf } from '../errors.ts'
import { asFields, asIndex, asList, asString, type Fields } from './fields.ts'
import { tokensAround } from './template.ts'

/** The mark that stands for a space in tokens. */
const SPACE = '▁'

/** A `model` of this package's own in a tokenizer.json: HuggingFace's tokenizers have none that goes by scores. */
export interface SentencePieceJson {
  readonly type: 'SentencePiece'
  readonly vocab: Readonly<Record<string, number>>
  /** By id. */
  readonly scores: readonly number[]
  /** A space is put before a text, and after each special token in it. */
  readonly add_space_prefix: boolean
  readonly unk_token: string | null
}

/** From a tokenizer.json with such a model. CheckpointError for a malformed one; the encoder throws a RangeError for text that has no tokens. */
export function createSentencePieceEncoder(file: Fields, place: string): (text: string, addSpecialTokens: boolean) => Int32Array {
  const model = asFields(file.model, `${place}: model`)
  const idOf = new Map(Object.entries(asFields(model.vocab, `${place}: model.vocab`)).map(([token, id]) => [token, asIndex(id, `${place}: model.vocab`)]))
  const specials = asList(file.added_tokens, `${place}: added_tokens`).map((entry) => {
    const { content, id } = asFields(entry, `${place}: added_tokens`)
    return { text: asString(content, `${place}: added_tokens`), id: asIndex(id, `${place}: added_tokens`) }
  })
  for (const { text, id } of specials) idOf.set(text, id)
  const scores = asList(model.scores, `${place}: model.scores`).map((score) => {
    if (typeof score === 'number' && Number.isFinite(score)) return score
    throw new CheckpointError({ place: `${place}: model.scores`, expected: 'finite numbers', got: describe(score) })
  })
  // The longest ones are looked for first.
  specials.sort((a, b) => b.text.length - a.text.length)
  const merge = createMerger({ idOf, scoreOf: (id) => scores[id] ?? 0, unknownId: typeof model.unk_token === 'string' ? idOf.get(model.unk_token) : undefined })
  const { first, last } = tokensAround(file.post_processor, `${place}: post_processor`)
  const prefix = model.add_space_prefix === true ? ' ' : ''

  return (text, addSpecialTokens) => {
    const ids: number[] = []
    if (addSpecialTokens && first !== undefined) ids.push(first)
    let isAfterSpecial = true
    for (const part of partsOf(text, specials)) {
      if (typeof part === 'number') ids.push(part)
      else merge(((isAfterSpecial ? prefix : '') + part).replaceAll(' ', SPACE), ids)
      isAfterSpecial = typeof part === 'number'
    }
    if (addSpecialTokens && last !== undefined) ids.push(last)
    return Int32Array.from(ids)
  }
}

/** Texts between special tokens, and the ids of these; no empty texts. */
function partsOf(text: string, specials: readonly { readonly text: string; readonly id: number }[]): (string | number)[] {
  let parts: (string | number)[] = [text]
  for (const { text: special, id } of specials) {
    if (special === '' || !text.includes(special)) continue
    parts = parts.flatMap((part) => (typeof part === 'number' ? [part] : part.split(special).flatMap((piece, i) => (i === 0 ? [piece] : [id, piece]))))
  }
  return parts.filter((part) => part !== '')
}

interface MergerOptions {
  readonly idOf: ReadonlyMap<string, number>
  readonly scoreOf: (id: number) => number
  /** For characters without a token in a vocabulary without bytes. */
  readonly unknownId: number | undefined
}

/** Two neighbours that together are a token. */
interface Pair {
  readonly left: number
  readonly right: number
  /** UTF-16 units of the two: tells whether they are still what they were. */
  readonly length: number
  readonly score: number
}

/** Encodes a text that has its marks for spaces; ids are appended to `ids`. Time n log n, n characters. */
function createMerger({ idOf, scoreOf, unknownId }: MergerOptions): (text: string, ids: number[]) => void {
  const byteIds = Array.from({ length: 256 }, (_, byte) => idOf.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`))
  const encoder = new TextEncoder()

  const putBytes = (character: string, ids: number[]): void => {
    const found = Array.from(encoder.encode(character), (byte) => byteIds[byte])
    const known = found.every((id) => id !== undefined) ? found : unknownId === undefined ? undefined : [unknownId]
    if (known === undefined) throw new RangeError(messageOf({ place: 'text', expected: 'only tokens of the vocabulary', got: describe(character) }))
    for (const id of known) ids.push(id)
  }

  return (text, ids) => {
    const characters = Array.from(text)
    const n = characters.length
    /** Symbol i is text[starts[i], ends[i]): empty once it was joined to the one before. */
    const starts = new Int32Array(n)
    const ends = new Int32Array(n)
    const previous = Int32Array.from(characters, (_, i) => i - 1)
    const next = Int32Array.from(characters, (_, i) => i + 1)
    for (let i = 0, at = 0; i < n; i++) {
      starts[i] = at
      at += characters[i].length
      ends[i] = at
    }
    const pairs: Pair[] = []
    const tryPair = (left: number, right: number): void => {
      if (left < 0 || right >= n) return
      const id = idOf.get(text.slice(starts[left], ends[right]))
      if (id !== undefined) pushPair(pairs, { left, right, length: ends[right] - starts[left], score: scoreOf(id) })
    }
    for (let i = 1; i < n; i++) tryPair(i - 1, i)
    for (let pair = popPair(pairs); pair !== undefined; pair = popPair(pairs)) {
      const { left, right, length } = pair
      const isGone = starts[left] === ends[left] || starts[right] === ends[right]
      if (isGone || ends[right] - starts[left] !== length) continue
      ends[left] = ends[right]
      starts[right] = ends[right]
      next[left] = next[right]
      if (next[right] < n) previous[next[right]] = left
      tryPair(previous[left], left)
      tryPair(left, next[left])
    }
    for (let i = 0; i < n; i = next[i]) {
      const symbol = text.slice(starts[i], ends[i])
      const id = idOf.get(symbol)
      if (id === undefined) putBytes(symbol, ids)
      else ids.push(id)
    }
  }
}

/** The higher score first, then the leftmost. */
function isBefore(a: Pair, b: Pair): boolean {
  return a.score > b.score || (a.score === b.score && a.left < b.left)
}

/** `heap` is a binary heap: no pair comes before its parent. */
function pushPair(heap: Pair[], pair: Pair): void {
  let at = heap.length
  for (let parent = (at - 1) >> 1; at > 0 && isBefore(pair, heap[parent]); parent = (at - 1) >> 1) {
    heap[at] = heap[parent]
    at = parent
  }
  heap[at] = pair
}

function popPair(heap: Pair[]): Pair | undefined {
  const top = heap[0]
  const last = heap.pop()
  if (last === undefined || heap.length === 0) return top
  let at = 0
  for (;;) {
    let child = 2 * at + 1
    if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++
    if (child >= heap.length || !isBefore(heap[child], last)) break
    heap[at] = heap[child]
    at = child
  }
  heap[at] = last
  return top
}
