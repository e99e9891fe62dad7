/**
 * Random prompts, the same ones for every engine. wllama takes text alone: prompts are of words that are one token each, so that text
 * and ids are the same (the engines tell how many tokens they have read, and that is checked).
 */

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { createTokenizer } from '../../src/tokenizer/tokenizer.ts'
import { createNumbers } from '../numbers.ts'
import type { Prompt } from './engine.ts'

const TOKENIZER_PATH = fileURLToPath(new URL('../../test/fixtures/gpt-neox-tokenizer.json', import.meta.url))

/** Gives prompts of a length; the same sequence of them for a seed. */
export function createPrompts(seed: number): (nTokens: number) => Prompt {
  const json = JSON.parse(readFileSync(TOKENIZER_PATH, 'utf8')) as { readonly model: { readonly vocab: Readonly<Record<string, number>> } }
  const tokenizer = createTokenizer(json, {}, TOKENIZER_PATH)
  const words = Object.entries(json.model.vocab).flatMap(([token, id]): (readonly [string, number])[] => {
    if (!/^Ġ[a-z]{2,}$/.test(token)) return []
    const text = token.replace('Ġ', ' ')
    return tokenizer.encode(text).length === 1 ? [[text, id]] : []
  })
  const numbers = createNumbers(seed)
  return (nTokens) => {
    const chosen = Array.from({ length: nTokens }, () => words[numbers.below(words.length)])
    return { ids: chosen.map(([, id]) => id), text: chosen.map(([text]) => text).join('') }
  }
}
