/** Drafts by prompt lookup, against a search through the whole text. */
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { createPromptLookup } from '../src/prompt-lookup.ts'

/** What followed the last place before the end where the last `minMatch` tokens stood; the text is taken to go on as it does from there. */
function search(text: readonly number[], minMatch: number, count: number): number[] {
  if (text.length < minMatch) return []
  const wanted = text.slice(text.length - minMatch).join()
  for (let end = text.length - 1; end >= minMatch; end--) {
    if (text.slice(end - minMatch, end).join() !== wanted) continue
    const going = [...text]
    while (going.length < text.length + count) going.push(going[end + going.length - text.length])
    return going.slice(text.length)
  }
  return []
}

test('of any text', () => {
  const texts = fc.array(fc.nat(2), { maxLength: 40 })
  fc.assert(fc.property(texts, texts, fc.integer({ min: 1, max: 4 }), fc.nat(9), (known, pushed, minMatch, count) => {
    const lookup = createPromptLookup(known, minMatch)
    expect(lookup.draft(count)).toEqual(search(known, minMatch, count))
    for (const id of pushed) lookup.push(id)
    expect(lookup.draft(count)).toEqual(search([...known, ...pushed], minMatch, count))
  }))
})

test('of ids whose digits run into each other', () => {
  const lookup = createPromptLookup([1, 23, 7, 12, 3], 2)
  expect(lookup.draft(1)).toEqual([])
  lookup.push(1)
  lookup.push(23)
  expect(lookup.draft(3)).toEqual([7, 12, 3])
})
