/** The JSON parser: the same values as JSON.parse, and each of its own rules. */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { expectNaturals, expectObject, expectString, parseJson } from '../../src/checkpoint/json.ts'

describe('parseJson', () => {
  test('agrees with JSON.parse on whatever JSON.stringify writes', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(undefined, 1, '\t'), (value, space) => {
        const text = JSON.stringify(value, null, space)
        // Through JSON again: objects here have no prototype, and -0 is written as 0.
        expect(JSON.stringify(parseJson(text, 'x'))).toBe(JSON.stringify(JSON.parse(text)))
      }),
      { numRuns: 500 }
    )
  })

  test('accepts just what JSON.parse accepts, but for duplicate keys, depth and bare words', () => {
    const pieces = ['{', '}', '[', ']', ',', ':', '"a"', '"b"', '1', '-', '0', '.5', 'e3', 'true', 'null', ' ', '\n', '"\\u00e9"', '"\\x"', '\u0000', "'"]
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...pieces), { maxLength: 9 }), (parts) => {
        const text = parts.join('')
        const theirs = resultOf(() => JSON.parse(text) as unknown)
        const ours = resultOf(() => parseJson(text, 'x'))
        if (ours.includes('again')) return
        expect(ours.startsWith('CheckpointError')).toBe(theirs.startsWith('SyntaxError'))
        if (!theirs.startsWith('SyntaxError')) expect(ours).toBe(theirs)
      }),
      { numRuns: 3000 }
    )
  })

  test.each([
    ['1', 1],
    ['-0.5e-3', -0.5e-3],
    ['1000000000000000000000', 1e21],
    ['Infinity', Infinity],
    ['-Infinity', -Infinity],
    ['NaN', NaN],
    [' "a\\n\\u00e9\\/\\"\\\\\\ud83d\\ude00" ', 'a\né/"\\😀'],
    ['[]', []],
    ['[1,[2],"x"]', [1, [2], 'x']]
  ])('reads %s', (text, value) => {
    expect(parseJson(text, 'x')).toEqual(value)
  })

  test('reads the time limits that Python writes', () => {
    const config = expectObject(parseJson('{"time_step_limit": [0.0, Infinity], "b": {"c": -Infinity}}', 'config.json'), 'x')
    expect(config['time_step_limit']).toEqual([0, Infinity])
  })

  test('keeps __proto__ and constructor as ordinary keys', () => {
    const object = expectObject(parseJson('{"__proto__": {"polluted": 1}, "constructor": 2}', 'x'), 'x')
    expect(Object.keys(object)).toEqual(['__proto__', 'constructor'])
    expect(Object.getPrototypeOf(object)).toBeNull()
    expect('polluted' in object).toBe(false)
    expect('polluted' in {}).toBe(false)
    expect('toString' in object).toBe(false)
  })

  test.each([
    ['{"a": 1, "b": 2, "a": 3}', 'x, offset 17', '"a" again'],
    ['{"o": {"__proto__": 1, "__proto__": 2}}', 'x, offset 23', '"__proto__" again'],
    ['{"a": 1, "\\u0061": 3}', 'x, offset 9', '"a" again']
  ])('refuses the duplicate in %s', (text, place, got) => {
    expect(() => parseJson(text, 'x')).toThrow(expect.objectContaining({ name: 'CheckpointError', place, expected: 'each key once', got }))
  })

  test.each([
    ['', 0, 'a value', 'the end of the text'],
    ['{"a": }', 6, 'a value', '"}"'],
    ['{"a" 1}', 5, '":"', '"1}"'],
    ['{a: 1}', 1, 'a key in quotes', '"a: 1}"'],
    ['{"a": 1,}', 8, 'a key in quotes', '"}"'],
    ['[1 2]', 3, '"," or "]"', '"2]"'],
    ['{"a": 1', 7, '"," or "}"', 'the end of the text'],
    ['"abc', 4, 'the rest of a string', 'the end of the text'],
    ['"a\nb"', 2, 'the rest of a string', String.raw`"\nb\""`],
    [String.raw`"\u00g0"`, 1, 'an escape that JSON has', String.raw`"\\u00g0\""`],
    ['01', 1, 'the end of the text', '"1"'],
    ['[1.]', 2, '"," or "]"', '".]"'],
    ['+1', 0, 'a value', '"+1"'],
    ['nul', 0, 'a value', '"nul"'],
    ['{} x', 3, 'the end of the text', '"x"']
  ])('refuses %j at offset %i', (text, offset, expected, got) => {
    expect(() => parseJson(text, 'x')).toThrow(expect.objectContaining({ name: 'CheckpointError', place: `x, offset ${offset}`, expected, got }))
  })

  test('limits the depth, of arrays and objects, without exhausting the stack', () => {
    expect(() => parseJson(`${'['.repeat(64)}${']'.repeat(64)}`, 'x')).not.toThrow()
    expect(() => parseJson('['.repeat(1_000_000), 'x')).toThrow(/expected at most 64 levels/)
    expect(() => parseJson('{"a":'.repeat(1_000_000), 'x')).toThrow(/expected at most 64 levels/)
  })

  test('takes linear time', () => {
    for (const [index, large] of textsOfSize(40_000).entries()) {
      const small = textsOfSize(5000)[index]
      const [smallMs, largeMs] = [small, large].map((text) => Math.min(...[1, 2, 3].map(() => elapsedMs(text))))
      // Eight times the text; quadratic time would be 64 times. The 50 ms absorb a busy machine.
      expect(largeMs, `text ${index}`).toBeLessThan(24 * smallMs + 50)
    }
  })
})

describe('accessors', () => {
  test('name the place, what was expected and what came', () => {
    expect(() => expectObject([], 'x.a')).toThrow('x.a: expected an object, got []')
    expect(() => expectObject(undefined, 'x.a')).toThrow('x.a: expected an object, got undefined')
    expect(() => expectString(1, 'x.b')).toThrow('x.b: expected a string, got 1')
    for (const value of [[1, -1], [1.5], [2 ** 53], ['1'], [NaN], { 0: 1 }, undefined]) {
      expect(() => expectNaturals(value, 'x.c')).toThrow(/x\.c: expected an array of integers/)
    }
    expect(expectNaturals([0, 2 ** 53 - 1], 'x.c')).toEqual([0, 2 ** 53 - 1])
  })
})

function textsOfSize(n: number): string[] {
  return [
    JSON.stringify(Object.fromEntries(Array.from({ length: n }, (_, i) => [`layers.${i}.weight`, { dtype: 'F32', shape: [i, 1] }]))),
    `"${'\\n'.repeat(20 * n)}"`,
    `[${'1,'.repeat(20 * n)}1]`,
    `${' '.repeat(40 * n)}${'9'.repeat(20 * n)}`,
    `[${'"'.repeat(20 * n)}`
  ]
}

function resultOf(run: () => unknown): string {
  try {
    return `value ${JSON.stringify(run())}`
  } catch (error) {
    return error instanceof Error ? `${error.name} ${error.message}` : 'something else'
  }
}

function elapsedMs(text: string): number {
  const start = performance.now()
  resultOf(() => {
    parseJson(text, 'x')
    return null
  })
  return performance.now() - start
}
