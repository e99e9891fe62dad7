/** The matcher against a search in the whole text, for any text, any stop strings, cut anywhere. */
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createStopMatcher } from '../src/stop-strings.ts'

/** Pushes the pieces; what came out, the stop string met, and what the flush gave. */
function run(stops: string[], pieces: string[]) {
  const matcher = createStopMatcher(stops)
  const texts: string[] = []
  let stop: string | undefined
  for (const piece of pieces) {
    const result = matcher.push(piece)
    expect(result.stopped).toBe(result.stop !== undefined)
    texts.push(result.text)
    stop = result.stop
  }
  return { texts, stop, rest: matcher.flush() }
}

/** By the definition: the first end at which some stop string ends, and there the longest. */
function search(stops: string[], text: string): { text: string, stop: string | undefined } {
  for (let end = 1; end <= text.length; end++) {
    const met = stops.filter(stop => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length)[0]
    if (met !== undefined) return { text: text.slice(0, end - met.length), stop: met }
  }
  return { text, stop: undefined }
}

describe('createStopMatcher', () => {
  it('stops within a piece, and gives nothing after', () => {
    const matcher = createStopMatcher(['\n\n'])
    expect(matcher.push('one\n\ntwo')).toEqual({ text: 'one', stopped: true, stop: '\n\n' })
    expect(matcher.push('three')).toEqual({ text: '', stopped: true, stop: '\n\n' })
    expect(matcher.flush()).toBe('')
  })

  it('holds back just what may become a stop string', () => {
    expect(run(['</s>', 'stop'], ['a<', '/s', 'x</', 's', '>', 'b'])).toEqual({ texts: ['a', '', '</sx', '', '', ''], stop: '</s>', rest: '' })
    expect(run(['stop'], ['stst', 'o'])).toEqual({ texts: ['st', ''], stop: undefined, rest: 'sto' })
    expect(run(['aab'], ['aaaa', 'a', 'b'])).toEqual({ texts: ['aa', 'a', ''], stop: 'aab', rest: '' })
  })

  it('takes the match that is complete first, and of two that end together the longer', () => {
    expect(run(['abc', 'b'], ['xabc'])).toEqual({ texts: ['xa'], stop: 'b', rest: '' })
    expect(run(['bc', 'abc'], ['xabc'])).toEqual({ texts: ['x'], stop: 'abc', rest: '' })
    expect(run(['abcd', 'bc'], ['xab', 'ce'])).toEqual({ texts: ['x', 'a'], stop: 'bc', rest: '' })
  })

  it('agrees with a search in the whole text, wherever it is cut', () => {
    const piece = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '😀', '😁'), maxLength: 6 })
    const stop = fc.string({ unit: fc.constantFrom('a', 'b', '😀'), minLength: 1, maxLength: 4 })
    fc.assert(fc.property(fc.array(stop, { maxLength: 4 }), fc.array(piece, { maxLength: 8 }), (stops, pieces) => {
      const { texts, stop, rest } = run(stops, pieces)
      expect({ text: texts.join('') + rest, stop }).toEqual(search(stops, pieces.join('')))
      // Never more held back than the longest stop string that may still come.
      if (stop === undefined) expect(stops.some(stop => stop.length > rest.length && stop.startsWith(rest)) || rest === '').toBe(true)
    }), { numRuns: 2000 })
  })

  it('emits no half of a surrogate pair, even of text cut there', () => {
    expect(run(['😁'], ['a😀'.slice(0, 2), '😀'.slice(1) + 'b'])).toEqual({ texts: ['a', '😀b'], stop: undefined, rest: '' })
    expect(run([], ['a😀'.slice(0, 2), '😀'.slice(1)])).toEqual({ texts: ['a', '😀'], stop: undefined, rest: '' })
  })

  it('passes everything on when there is nothing to stop at', () => {
    expect(run([], ['a', '', 'b'])).toEqual({ texts: ['a', '', 'b'], stop: undefined, rest: '' })
  })

  it('is linear where a naive search is quadratic', () => {
    const matcher = createStopMatcher([`${'a'.repeat(20_000)}b`])
    const started = performance.now()
    for (let i = 0; i < 200_000; i++) matcher.push('a')
    expect(performance.now() - started).toBeLessThan(5000)
  })

  it('refuses what is no stop string', () => {
    expect(() => createStopMatcher(['a', ''])).toThrow(new RangeError('stop[1]: expected a string of one whole character or more, got ""'))
    expect(() => createStopMatcher(['\ud83d'])).toThrow(RangeError)
    // @ts-expect-error: a string
    expect(() => createStopMatcher('stop')).toThrow(TypeError)
    // @ts-expect-error: a number
    expect(() => createStopMatcher([1])).toThrow(TypeError)
  })
})
