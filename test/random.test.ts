/** The generator against the published vectors of its two algorithms, and what a caller may rely on. */
import { describe, expect, it } from 'vitest'
import { createRandom, randomSeed } from '../src/random.ts'

/** Two words of 32 bits from each number: the top 27 and the top 26 bits survive. */
function wordsOf(random: { next(): number }, count: number): number[] {
  return Array.from({ length: count / 2 }, () => {
    const bits = random.next() * 2 ** 53
    return [Math.floor(bits / 2 ** 26), bits % 2 ** 26]
  }).flat()
}

const topBits = (words: number[]) => words.map((word, i) => (i % 2 === 0 ? word >>> 5 : word >>> 6))

describe('createRandom', () => {
  it('follows xoshiro128** from state (1, 2, 3, 4), as the authors\' C code prints it', () => {
    const random = createRandom(0)
    random.restore([1, 2, 3, 4])
    const published = [11520, 0, 5927040, 70819200, 2031721883, 1637235492, 1287239034, 3734860849, 3729100597, 4258142804]
    expect(wordsOf(random, 10)).toEqual(topBits(published))
  })

  it('is seeded by SplitMix64: the published outputs for seed 0', () => {
    // 0xe220a8397b1dcdaf and 0x6e789e6aa1b965f4, low halves first.
    expect(createRandom(0).state()).toEqual([0x7b1dcdaf, 0xe220a839, 0xa1b965f4, 0x6e789e6a])
  })

  it('is seeded by all 53 bits', () => {
    const states = [0, 1, 2 ** 32, 2 ** 52, Number.MAX_SAFE_INTEGER].map(seed => createRandom(seed).state().join())
    expect(new Set(states).size).toBe(states.length)
  })

  it('stays in [0, 1) with an even spread', () => {
    const random = createRandom(7)
    const counts = Array.from({ length: 16 }, () => 0)
    for (let i = 0; i < 160_000; i++) {
      const x = random.next()
      expect(x >= 0 && x < 1).toBe(true)
      counts[Math.floor(x * 16)]++
    }
    // Chi-square with 15 degrees of freedom: above 37.7 in one run of a thousand; the seed is fixed.
    expect(counts.reduce((total, count) => total + (count - 10_000) ** 2 / 10_000, 0)).toBeLessThan(37.7)
  })

  it('goes on from a saved state, and a saved state does not move', () => {
    const random = createRandom(42)
    random.next()
    const saved = random.state()
    const expected = [random.next(), random.next(), random.next()]
    const other = createRandom(1)
    other.restore(saved)
    expect([other.next(), other.next(), other.next()]).toEqual(expected)
    expect(saved).not.toEqual(random.state())
  })

  it.each([[-1], [1.5], [NaN], [Infinity], [2 ** 53]])('refuses the seed %d', seed => {
    expect(() => createRandom(seed)).toThrow(RangeError)
  })

  it('refuses a seed or a state of another type', () => {
    // @ts-expect-error: a string
    expect(() => createRandom('1')).toThrow(new TypeError('seed: expected an integer from 0 to 2^53 - 1, got "1"'))
    // @ts-expect-error: an object
    expect(() => createRandom(0).restore({})).toThrow(TypeError)
  })

  it.each([[[0, 0, 0, 0]], [[1, 2, 3]], [[1, 2, 3, -4]], [[1, 2, 3, 2 ** 32]], [[1, 2, 3, 0.5]]])('refuses the state %j', state => {
    // @ts-expect-error: not known to have four elements
    expect(() => createRandom(0).restore(state)).toThrow(RangeError)
  })
})

describe('randomSeed', () => {
  it('gives seeds that createRandom takes, and not the same one', () => {
    const seeds = Array.from({ length: 20 }, randomSeed)
    for (const seed of seeds) expect(() => createRandom(seed)).not.toThrow()
    expect(new Set(seeds).size).toBe(20)
  })
})
