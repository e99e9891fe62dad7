/** The processors against the goldens of transformers, against a plain sort-everything twin, and the sampler's contract. */
import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createRandom } from '../src/random.ts'
import { createSampler, idOfBest, SAMPLER_DEFAULTS, validateSamplerOptions, type ResolvedSamplerOptions, type SamplerOptions } from '../src/sampler.ts'

const OFF = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }

/** Every option of the golden file's metadata. */
interface GoldenOptions { T?: number, k?: number, p?: number, mp?: number, rp?: number }

function readGoldens() {
  const bytes = readFileSync('test/fixtures/sampling/processors.safetensors')
  const headerBytes = Number(bytes.readBigUInt64LE(0))
  const header: Record<string, { data_offsets: [number, number] }> & { __metadata__: Record<string, string> } =
    JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes))
  const { __metadata__: metadata, ...table } = header
  const dataOf = (name: string) => {
    const [start, end] = table[name].data_offsets
    return bytes.buffer.slice(bytes.byteOffset + 8 + headerBytes + start, bytes.byteOffset + 8 + headerBytes + end)
  }
  return Object.entries(metadata).map(([i, json]) => {
    const golden: GoldenOptions = JSON.parse(json)
    const { T = 1, k = 0, p = 1, mp = 0, rp = 1 } = golden
    const options: SamplerOptions = { temperature: T, topK: k, topP: p, minP: mp, repetitionPenalty: rp, seed: 1 }
    return {
      name: json, options,
      logits: new Float32Array(dataOf(`${i}.logits`)), ids: new Int32Array(dataOf(`${i}.ids`)), probs: new Float32Array(dataOf(`${i}.probs`))
    }
  })
}

/** The same five processors as transformers writes them: sort everything. */
function plainProbabilities(options: ResolvedSamplerOptions, logits: Float32Array, earlier: Iterable<number>): number[] {
  const { temperature, topK, topP, minP, repetitionPenalty } = options
  let scores = Array.from(logits)
  for (const id of new Set(earlier)) scores[id] = scores[id] < 0 ? scores[id] * repetitionPenalty : scores[id] / repetitionPenalty
  scores = scores.map(score => score / temperature)
  const drop = (ids: Iterable<number>) => { for (const id of ids) scores[id] = -Infinity }
  const ascending = () => scores.map((_, id) => id).sort((a, b) => scores[a] - scores[b] || a - b)
  if (topK > 0) {
    const kth = [...scores].sort((a, b) => b - a)[Math.min(topK, scores.length) - 1]
    drop(scores.map((_, id) => id).filter(id => scores[id] < kth))
  }
  if (topP < 1) {
    const probabilities = softmax(scores)
    let mass = 0
    drop(ascending().slice(0, -1).filter(id => (mass += probabilities[id]) <= 1 - topP))
  }
  if (minP > 0) {
    const probabilities = softmax(scores)
    const threshold = minP * Math.max(...probabilities)
    drop(scores.map((_, id) => id).filter(id => probabilities[id] < threshold))
  }
  return softmax(scores)
}

function softmax(scores: number[]): number[] {
  const highest = Math.max(...scores)
  const weights = scores.map(score => Math.exp(score - highest))
  const total = weights.reduce((a, b) => a + b)
  return weights.map(weight => weight / total)
}

function normalLogits(vocabSize: number, seed: number, spread = 3): Float32Array {
  const random = createRandom(seed)
  return Float32Array.from({ length: vocabSize }, () => spread * (random.next() + random.next() + random.next() + random.next() - 2))
}

const largestDifference = (a: ArrayLike<number>, b: ArrayLike<number>) => Array.from(a).reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0)

describe('probabilities', () => {
  it.each(readGoldens())('agrees with transformers to 1e-6: $name', ({ options, logits, ids, probs }) => {
    const sampler = createSampler(options, logits.length)
    sampler.observe(ids)
    expect(largestDifference(sampler.probabilities(logits), probs)).toBeLessThan(1e-6)
    expect(Array.from(sampler.probabilities(logits), p => p > 0)).toEqual(Array.from(probs, p => p > 0))
  })

  it('agrees with sorting everything, for any options', () => {
    const arbitrary = fc.record({
      logits: fc.array(fc.oneof(fc.integer({ min: -1280, max: 1280 }).map(i => i / 64), fc.constantFrom(-Infinity, 0, 1, 2)), { minLength: 1, maxLength: 60 }),
      temperature: fc.constantFrom(0.1, 0.7, 1, 2.5), topK: fc.nat(70), topP: fc.constantFrom(0, 0.137, 0.5003, 0.9001, 0.99, 1),
      minP: fc.constantFrom(0, 0.051, 0.3, 1), repetitionPenalty: fc.constantFrom(0.5, 1, 1.3), earlier: fc.array(fc.nat(59))
    })
    fc.assert(fc.property(arbitrary, ({ logits, earlier, ...options }) => {
      fc.pre(logits.some(logit => logit > -Infinity))
      const ids = earlier.filter(id => id < logits.length)
      const sampler = createSampler({ ...options, seed: 0 }, logits.length)
      sampler.observe(ids)
      const plain = plainProbabilities({ ...options, seed: 0 }, Float32Array.from(logits), ids)
      expect(largestDifference(sampler.probabilities(Float32Array.from(logits)), plain)).toBeLessThan(1e-6)
    }), { numRuns: 2000 })
  })

  it('agrees with sorting everything on a large vocabulary', () => {
    const logits = normalLogits(20_000, 5)
    for (const options of [{ topP: 0.5 }, { topP: 0.97 }, { topK: 7000 }, { topK: 50, topP: 0.9 }, { minP: 0.2 }]) {
      const all = validateSamplerOptions({ ...OFF, ...options, seed: 0 })
      expect(largestDifference(createSampler(all, logits.length).probabilities(logits), plainProbabilities(all, logits, []))).toBeLessThan(1e-7)
    }
  })

  it('keeps ties of the k-th, and of equally likely tokens at the edge of the nucleus the higher ids', () => {
    const logits = Float32Array.of(1, 3, 2, 2, 2, 0)
    const kept = (options: SamplerOptions) => [...createSampler({ ...OFF, seed: 0, ...options }, 6).probabilities(logits)].map(p => (p > 0 ? 1 : 0))
    expect(kept({ topK: 2 })).toEqual([0, 1, 1, 1, 1, 0])
    expect(kept({ topP: 0.5 })).toEqual([0, 1, 0, 0, 1, 0])
    expect(kept({ topP: 0 })).toEqual([0, 1, 0, 0, 0, 0])
    expect(kept({ topP: 0, minP: 1 })).toEqual([0, 1, 0, 0, 0, 0])
    expect(kept({ topK: 100 })).toEqual([1, 1, 1, 1, 1, 1])
    // Half of the mass exactly is enough.
    expect([...createSampler({ ...OFF, topP: 0.5, seed: 0 }, 4).probabilities(new Float32Array(4))]).toEqual([0, 0, 0.5, 0.5])
  })

  it('leaves tokens at -Infinity without probability, and survives extreme logits and temperatures', () => {
    const logits = Float32Array.of(-Infinity, 3e38, -3e38, -Infinity)
    for (const temperature of [1e-300, 1, 1e300]) {
      const sampler = createSampler({ ...OFF, temperature, topK: 3, topP: 0.9, minP: 0.01, seed: 0, repetitionPenalty: 1e6 }, 4)
      sampler.observe([1, 2])
      const probabilities = sampler.probabilities(logits)
      expect(probabilities[0] + probabilities[3]).toBe(0)
      expect(probabilities[1] + probabilities[2]).toBeCloseTo(1, 6)
    }
  })
})

describe('sample', () => {
  it('is greedy at temperature 0: the lowest id of a tie, after the penalty', () => {
    const logits = Float32Array.of(1, 5, 5, -1)
    const sampler = createSampler({ temperature: 0, repetitionPenalty: 2, seed: 0 }, 4)
    expect(sampler.sample(logits)).toBe(1)
    sampler.observe(1)
    expect(sampler.sample(logits)).toBe(2)
    expect([...sampler.probabilities(logits)]).toEqual([0, 0, 1, 0])
    expect([...logits]).toEqual([1, 5, 5, -1])
  })

  it('draws each token as often as its probability says', () => {
    const logits = normalLogits(12, 3, 2)
    const sampler = createSampler({ ...OFF, topP: 0.9, seed: 11 }, 12)
    const expected = sampler.probabilities(logits)
    const counts = new Float64Array(12)
    for (let i = 0; i < 40_000; i++) counts[sampler.sample(logits)]++
    expect(largestDifference(counts.map(count => count / 40_000), expected)).toBeLessThan(0.01)
    expect(Array.from(counts, count => count > 0)).toEqual(Array.from(expected, p => p > 0))
  })

  it('repeats itself for a seed, and goes on from a saved state', () => {
    const logits = normalLogits(300, 9)
    const take = (sampler: { sample(logits: Float32Array): number }, count: number) => Array.from({ length: count }, () => sampler.sample(logits))
    const first = createSampler({ seed: 5 }, 300)
    const start = take(first, 10)
    const saved = first.state()
    const rest = take(first, 10)
    expect(take(createSampler({ seed: 5 }, 300), 20)).toEqual([...start, ...rest])
    // Pinned: a change here changes every user's seeded text.
    expect(start).toEqual([226, 199, 195, 242, 191, 252, 195, 41, 226, 265])
    const other = createSampler({ seed: 6 }, 300)
    other.restore(saved)
    expect(take(other, 10)).toEqual(rest)
    expect(take(createSampler({ seed: 6 }, 300), 10)).not.toEqual(start)
  })

  it('draws a seed when none is given, and says which', () => {
    const sampler = createSampler({}, 300)
    const logits = normalLogits(300, 9)
    const again = createSampler({ seed: sampler.seed }, 300)
    expect(Array.from({ length: 20 }, () => sampler.sample(logits))).toEqual(Array.from({ length: 20 }, () => again.sample(logits)))
  })

  it('knows the log probability of its choice', () => {
    const logits = normalLogits(50, 2)
    const sampler = createSampler({ ...OFF, topK: 10, seed: 1 }, 50)
    expect(sampler.logProbability()).toBeNaN()
    const id = sampler.sample(logits)
    const expected = Math.log(sampler.probabilities(logits)[id])
    expect(sampler.logProbability()).toBeCloseTo(expected, 6)

    const greedy = createSampler({ temperature: 0, seed: 1 }, 50)
    const best = greedy.sample(logits)
    const full = createSampler({ ...OFF, seed: 1 }, 50).probabilities(logits)
    greedy.probabilities(normalLogits(50, 4))
    expect(greedy.logProbability()).toBeCloseTo(Math.log(full[best]), 6)
  })

  it('refuses logits that are no distribution, and says where', () => {
    const sampler = createSampler({ seed: 0 }, 3)
    expect(() => sampler.sample(Float32Array.of(0, NaN, 0))).toThrow(new RangeError('logits[1]: expected a finite number or -Infinity, got NaN'))
    expect(() => sampler.sample(Float32Array.of(0, 0, Infinity))).toThrow(new RangeError('logits[2]: expected a finite number or -Infinity, got Infinity'))
    expect(() => sampler.sample(new Float32Array(3).fill(-Infinity))).toThrow(RangeError)
    expect(() => sampler.sample(new Float32Array(4))).toThrow(new RangeError('logits: expected (3), got (4)'))
    // @ts-expect-error: a plain array
    expect(() => sampler.sample([0, 0, 0])).toThrow(TypeError)
    expect(() => createSampler({ temperature: 0 }, 3).sample(Float32Array.of(NaN, 0, 0))).toThrow(RangeError)
    expect(idOfBest({ id: 2, logit: -3 })).toBe(2)
    expect(() => idOfBest({ id: 1, logit: NaN })).toThrow(new RangeError('logits[1]: expected a finite number or -Infinity, got NaN'))
    expect(() => idOfBest({ id: 0, logit: -Infinity })).toThrow(new RangeError('logits: expected one above -Infinity at least, got none'))
  })

  it.each([[3], [-1], [0.5], [NaN]])('refuses to observe the id %d', id => {
    expect(() => createSampler({ seed: 0 }, 3).observe([0, id])).toThrow(RangeError)
  })
})

describe('validateSamplerOptions', () => {
  it('fills in the defaults, for undefined too', () => {
    expect(validateSamplerOptions()).toEqual({ ...SAMPLER_DEFAULTS, seed: undefined })
    expect(validateSamplerOptions({ temperature: undefined, topP: 0.5 })).toEqual({ temperature: 0.8, topK: 0, topP: 0.5, minP: 0, repetitionPenalty: 1, seed: undefined })
  })

  it.each([
    ['temperature', -0.1], ['temperature', Infinity], ['temperature', NaN], ['topK', -1], ['topK', 1.5], ['topK', NaN], ['topP', -0.1], ['topP', 1.1],
    ['topP', NaN], ['minP', -1], ['minP', 2], ['minP', NaN], ['repetitionPenalty', 0], ['repetitionPenalty', -1], ['repetitionPenalty', NaN], ['seed', -1], ['seed', 0.5]
  ])('refuses %s %d, by name', (name, value) => {
    expect(() => validateSamplerOptions({ [name]: value })).toThrow(RangeError)
    expect(() => validateSamplerOptions({ [name]: value })).toThrow(new RegExp(`^${name}: expected .*, got ${value}$`))
  })

  it.each(['temperature', 'topK', 'topP', 'minP', 'repetitionPenalty', 'seed'])('refuses a %s that is no number', name => {
    for (const value of ['1', null, true, {}, 1n]) expect(() => validateSamplerOptions({ [name]: value })).toThrow(TypeError)
  })

  it('refuses options that are no object', () => {
    // @ts-expect-error: none of them is an object
    for (const options of [null, 'greedy', 1]) expect(() => validateSamplerOptions(options)).toThrow(TypeError)
  })
})
