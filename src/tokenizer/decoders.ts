/**
 * From tokens back to text, one token at a time: the decoders of HuggingFace's tokenizers, each in constant time and memory per token.
 *
 * A decoder of a tokenizer.json maps a list of tokens to a list of texts, which are joined at the end. Here it becomes steps on
 * single tokens, then bytes put together (ByteLevel, ByteFallback), then stages on the joined text.
 * Where the JavaScript library and the Rust original differ, this follows the original, but for one thing: in a run of byte tokens
 * that is not valid UTF-8, the original makes U+FFFD of every byte of the run, even of the valid ones before; it cannot know before the
 * run ends, and text must not wait that long. Here, as in the library, just the invalid sequences are replaced.
 */
import { describe, UnsupportedError } from '../errors.ts'
import { asFields, asIndex, asList, asString, type Fields } from './fields.ts'
import { chain, cleanUp, createReplacer, createStripper, type TextStage } from './text-stages.ts'
import { bytesOfToken, createUtf8Stream } from './utf8.ts'

/** A token as the vocabulary has it. */
export interface VocabToken {
  readonly text: string
  /** From `added_tokens`: literal text, whatever the alphabet of the model. */
  readonly isAdded: boolean
  readonly isSpecial: boolean
}

/** Takes tokens, gives text that can no longer change. */
export interface TokenDecoder {
  push(token: VocabToken): string
  flush(): string
}

/** What becomes of one token, `isFirst` at the start of the text. */
type TokenStep = (token: string, isFirst: boolean) => string

interface Plan {
  readonly tokenSteps: TokenStep[]
  readonly textStages: (() => TextStage)[]
  hasByteFallback: boolean
  /** The tokens are joined: what follows sees the text as a whole. */
  isFused: boolean
}

/**
 * Reads the `decoder` of a tokenizer.json (null: tokens are joined by spaces) and returns a maker of decoders.
 * CheckpointError for a malformed one, UnsupportedError for one that cannot be streamed or that no language model here uses.
 */
export function compileDecoder(config: unknown, place: string): () => TokenDecoder {
  if (config === null || config === undefined) {
    return () => createPlanned({ tokenSteps: [(token, isFirst) => (isFirst ? token : ` ${token}`)], textStages: [], hasByteFallback: false, isFused: false })
  }
  const links = linksOf(asFields(config, place), place)
  if (isByteLevel(config)) return createByteLevel
  const plan: Plan = { tokenSteps: [], textStages: [], hasByteFallback: false, isFused: false }
  for (const [i, link] of links.entries()) addLink(plan, link, { place: `${place}[${i}]`, next: links[i + 1] })
  return () => createPlanned(plan)
}

/** Whether tokens stand for bytes by GPT-2's alphabet. */
export function isByteLevel(config: unknown): boolean {
  if (config === null || config === undefined) return false
  const links = linksOf(asFields(config, 'decoder'), 'decoder')
  return links.length === 1 && links[0].type === 'ByteLevel'
}

/** Nested sequences as one. */
function linksOf(config: Fields, place: string): Fields[] {
  if (config.type !== 'Sequence') return [config]
  return asList(config.decoders, `${place}.decoders`).flatMap((link, i) => linksOf(asFields(link, `${place}.decoders[${i}]`), place))
}

function createByteLevel(): TokenDecoder {
  const utf8 = createUtf8Stream()
  return {
    push: token => (token.isAdded ? utf8.flush() + token.text : utf8.push(bytesOfToken(token.text))),
    flush: () => utf8.flush()
  }
}

function createPlanned({ tokenSteps, textStages, hasByteFallback }: Plan): TokenDecoder {
  const utf8 = createUtf8Stream()
  const stages = chain(textStages.map(create => create()))
  let isFirst = true
  return {
    push(token) {
      const text = tokenSteps.reduce((text, step) => step(text, isFirst), token.text)
      isFirst = false
      if (!hasByteFallback) return stages.push(text)
      const byte = byteOf(text)
      return stages.push(byte === undefined ? utf8.flush() + text : utf8.push(Uint8Array.of(byte)))
    },
    flush() {
      isFirst = true
      return stages.push(utf8.flush()) + stages.flush()
    }
  }
}

/** The byte that a token like `<0x0A>` stands for. */
function byteOf(token: string): number | undefined {
  return /^<0x[0-9a-f]{2}>$/i.test(token) ? Number.parseInt(token.slice(3, 5), 16) : undefined
}

interface LinkContext { readonly place: string, readonly next: Fields | undefined }

function addLink(plan: Plan, link: Fields, { place, next }: LinkContext): void {
  const { type } = link
  if (type === 'Fuse') plan.isFused = true
  else if (type === 'Replace') addReplace(plan, link, place)
  else if (type === 'Strip') addStrip(plan, link, place)
  else if (type === 'Metaspace' && !plan.isFused) plan.tokenSteps.push(metaspaceStep(link, place))
  else if (type === 'WordPiece' && !plan.isFused) plan.tokenSteps.push(wordPieceStep(link, place))
  else if (type === 'ByteFallback' && !plan.isFused && (next === undefined || next.type === 'Fuse')) {
    // A run of bytes gives text piece by piece: true to the original only where the pieces are joined before anything else.
    plan.hasByteFallback = true
    plan.isFused = true
  } else {
    const expected = 'ByteLevel, Metaspace, WordPiece, or a sequence of Replace, ByteFallback, Fuse and Strip'
    throw new UnsupportedError({ place, expected, got: describe(type) })
  }
}

function addReplace(plan: Plan, link: Fields, place: string): void {
  const pattern = asFields(link.pattern, `${place}.pattern`)
  const content = asString(link.content ?? '', `${place}.content`)
  if (pattern.String === undefined) {
    throw new UnsupportedError({ place: `${place}.pattern`, expected: 'a string', got: 'a regular expression' })
  }
  const from = asString(pattern.String, `${place}.pattern.String`)
  // An empty pattern matches nothing in the original.
  if (from === '') return
  if (plan.isFused) plan.textStages.push(() => createReplacer(from, content))
  else plan.tokenSteps.push(token => token.replaceAll(from, () => content))
}

function addStrip(plan: Plan, link: Fields, place: string): void {
  const options = {
    content: asString(link.content, `${place}.content`), start: asIndex(link.start ?? 0, `${place}.start`), stop: asIndex(link.stop ?? 0, `${place}.stop`)
  }
  if (plan.isFused) plan.textStages.push(() => createStripper(options))
  else plan.tokenSteps.push(token => createStripper(options).push(token))
}

/** The first token loses all its replacement characters unless the pre-tokenizer never put one there: so in the original. */
function metaspaceStep(link: Fields, place: string): TokenStep {
  const replacement = asString(link.replacement ?? '▁', `${place}.replacement`)
  const isPrefixed = link.prepend_scheme === undefined ? link.add_prefix_space !== false : link.prepend_scheme !== 'never'
  return (token, isFirst) => token.replaceAll(replacement, isFirst && isPrefixed ? '' : ' ')
}

function wordPieceStep(link: Fields, place: string): TokenStep {
  const prefix = asString(link.prefix ?? '##', `${place}.prefix`)
  const clean = link.cleanup === false ? (text: string) => text : cleanUp
  return (token, isFirst) => {
    if (isFirst) return clean(token)
    return clean(token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`)
  }
}
