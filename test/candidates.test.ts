/** Weights against the exact exponential, selections against sorting everything. */
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createCandidates, createKthLargest, createNucleus, gather, highestOf, stepsAt, sumOfWeights, weigh } from '../src/candidates.ts'
import { createRandom } from '../src/random.ts'

const anyScores = fc.array(fc.oneof(fc.integer({ min: -640, max: 640 }).map((i) => i / 32), fc.constantFrom(-Infinity, 0, 1)), { minLength: 1, maxLength: 70 }).map((values) => Float64Array.from(values))

function normalScores(count: number, seed: number, spread: number): Float64Array {
  const random = createRandom(seed)
  return Float64Array.from({ length: count }, () => spread * (random.next() + random.next() + random.next() + random.next() - 2))
}

describe('weights', () => {
  it('are exp of the distance by the temperature, to 3e-14 of it at temperatures of 1 and less up to 88, farther to 2e-13', () => {
    const random = createRandom(4)
    for (const [range, bound] of [[88, 3e-14], [700, 2e-13]]) {
      const scores = Float64Array.from({ length: 20_000 }, () => -range * random.next())
      const weights = new Float64Array(scores.length)
      weigh(scores, scores.length, { highest: 0, steps: stepsAt(1) }, weights)
      const errors = scores.map((score, i) => Math.abs(weights[i] / Math.exp(score) - 1))
      expect(highestOf(errors)).toBeLessThan(bound)
      expect(highestOf(errors)).toBeGreaterThan(0)
    }
  })

  it('are 1 at the highest and 0 at -Infinity, at any temperature', () => {
    const weights = new Float64Array(3)
    for (const temperature of [5e-324, 1e-300, 1, 1e300]) {
      weigh(Float64Array.of(-3, 5, -Infinity), 3, { highest: 5, steps: stepsAt(temperature) }, weights)
      expect(weights[1]).toBe(1)
      expect(weights[2]).toBe(0)
      expect(weights[0]).toBeCloseTo(Math.exp(-8 / temperature), 12)
    }
  })

  it('sum up to the sum, for odd counts and even ones', () => {
    for (const count of [1, 2, 7, 1000]) {
      const scores = normalScores(1000, 3, 4)
      const expected = scores.subarray(0, count).reduce((total, score) => total + Math.exp((score - 8) / 0.7), 0)
      expect(sumOfWeights(scores, count, { highest: 8, steps: stepsAt(0.7) }) / expected).toBeCloseTo(1, 12)
    }
  })
})

describe('selections', () => {
  it('find the highest, whatever the length, and no number', () => {
    fc.assert(fc.property(anyScores, (scores) => { expect(highestOf(scores)).toBe(Math.max(...scores)) }))
    for (let i = 0; i < 6; i++) expect(highestOf(Float64Array.from({ length: 6 }, (_, j) => (i === j ? NaN : j)))).toBeNaN()
  })

  it('find the k-th largest', () => {
    fc.assert(fc.property(anyScores, fc.nat(69), (scores, index) => {
      const k = Math.min(index + 1, scores.length)
      expect(createKthLargest(k)(scores)).toBe([...scores].sort((a, b) => b - a)[k - 1])
    }))
  })

  it('gather what is at least a score, by ascending id', () => {
    fc.assert(fc.property(anyScores, fc.constantFrom(-Infinity, -3, 0, 1, 7.5, 100), (scores, lowest) => {
      const candidates = createCandidates(scores.length)
      gather(candidates, scores, lowest)
      const expected = [...scores.keys()].filter((id) => scores[id] >= lowest)
      expect([...candidates.ids.subarray(0, candidates.count)]).toEqual(expected)
      expect([...candidates.scores.subarray(0, candidates.count)]).toEqual(expected.map((id) => scores[id]))
    }))
  })

  it('find the same nucleus whatever came before: peaked, flat, peaked again', () => {
    const size = 5001
    const nucleus = createNucleus(0.9)
    const idsOf = (select: ReturnType<typeof createNucleus>, scores: Float64Array): number[] => {
      const candidates = createCandidates(size)
      select.gather(candidates, scores, { highest: highestOf(scores), steps: stepsAt(1) })
      return [...candidates.ids.subarray(0, candidates.count)]
    }
    const counts = [40, 0.01, 3, 40, 8, 0.5].map((spread, seed) => {
      const scores = normalScores(size, seed, spread)
      const ids = idsOf(nucleus, scores)
      expect(ids).toEqual(idsOf(createNucleus(0.9), scores))
      // The fewest of the likeliest that reach 0.9.
      const weights = scores.map((score) => Math.exp(score))
      const total = weights.reduce((a, b) => a + b)
      const mass = ids.reduce((sum, id) => sum + weights[id], 0)
      const least = Math.min(...ids.map((id) => weights[id]))
      expect(mass).toBeGreaterThanOrEqual(0.9 * total * (1 - 1e-12))
      expect(mass - least).toBeLessThan(0.9 * total)
      expect(weights.filter((weight) => weight > least)).toHaveLength(ids.length - 1)
      return ids.length
    })
    expect(counts[1]).toBeGreaterThan(4000)
    expect(counts[3]).toBeLessThan(20)
  })

  it('keep everything where rounding leaves less than topP', () => {
    const scores = normalScores(3000, 8, 30)
    const candidates = createCandidates(3000)
    createNucleus(1 - 2 ** -53).gather(candidates, scores, { highest: highestOf(scores), steps: stepsAt(1) })
    expect(candidates.count).toBeGreaterThan(1000)
  })
})
