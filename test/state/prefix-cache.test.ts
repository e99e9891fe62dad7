/** The radix tree against a list of texts that is searched from end to end. */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createPrefixCache, type PrefixCacheMetrics } from '../../src/state/prefix-cache.ts'

interface Entry {
  readonly ids: readonly number[]
  readonly value: number
  readonly bytes: number
  age: number
  usedAt: number
}

const isPrefix = (a: readonly number[], b: readonly number[]): boolean => a.length <= b.length && a.every((id, i) => id === b[i])

/** The same policy in its plainest form: every question looks at every entry. */
class NaiveCache {
  entries: Entry[] = []
  letGo: number[] = []
  age = 0
  nUses = 0
  counts = { hits: 0, misses: 0, tokensSaved: 0, evictions: 0 }
  readonly maxBytes: number

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes
  }

  /** Every token that leads to an entry is there once. */
  bytes(): number {
    const prefixes = new Set(this.entries.flatMap(({ ids }) => ids.map((_, i) => ids.slice(0, i + 1).join())))
    return 4 * prefixes.size + this.entries.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  above(entry: Entry): number {
    return Math.max(0, ...this.entries.filter((other) => other !== entry && isPrefix(other.ids, entry.ids)).map(({ ids }) => ids.length))
  }

  use(entry: Entry): void {
    entry.age = this.age
    entry.usedAt = this.nUses++
  }

  find(ids: readonly number[]) {
    const [found] = this.entries.filter((entry) => isPrefix(entry.ids, ids)).sort((a, b) => b.ids.length - a.ids.length)
    const common = this.entries.map((entry) => {
      const index = entry.ids.findIndex((id, i) => id !== ids[i])
      return index < 0 ? entry.ids.length : index
    })
    if (found === undefined) this.counts.misses++
    else {
      this.counts.hits++
      this.counts.tokensSaved += found.ids.length
      this.use(found)
    }
    return { value: found?.value ?? null, length: found?.ids.length ?? 0, sharedLength: Math.max(0, ...common) }
  }

  insert(ids: readonly number[], value: number, bytes: number): boolean {
    const known = this.entries.find((entry) => entry.ids.join() === ids.join())
    if (known) this.use(known)
    if (known || ids.length === 0 || bytes + 4 * ids.length > this.maxBytes) {
      this.letGo.push(value)
      return false
    }
    const entry: Entry = { ids, value, bytes, age: 0, usedAt: 0 }
    this.use(entry)
    this.entries.push(entry)
    while (this.bytes() > this.maxBytes) {
      const priority = (other: Entry): number => other.age + (other.ids.length - this.above(other)) / other.bytes
      const [least] = this.entries.filter((other) => other !== entry).sort((a, b) => priority(a) - priority(b) || a.usedAt - b.usedAt)
      this.age = Math.max(this.age, priority(least))
      this.counts.evictions++
      this.letGo.push(least.value)
      this.entries = this.entries.filter((other) => other !== least)
    }
    return true
  }

  metrics(): PrefixCacheMetrics {
    return { ...this.counts, bytes: this.bytes(), maxBytes: this.maxBytes, entries: this.entries.length }
  }
}

/** Few ids, so that texts share beginnings. */
const text = fc.array(fc.nat(2), { maxLength: 9 })
const step = fc.oneof(
  fc.record({ kind: fc.constant('find' as const), ids: text }),
  fc.record({ kind: fc.constant('insert' as const), ids: text, bytes: fc.constantFrom(40, 40, 40, 90, 300, 5000) })
)

describe('the prefix cache', () => {
  test('is the naive one, only faster', () => {
    fc.assert(fc.property(fc.integer({ min: 60, max: 1200 }), fc.array(step, { maxLength: 120 }), (maxBytes, steps) => {
      const letGo: number[] = []
      const cache = createPrefixCache<number>({ maxBytes, letGo: (value) => letGo.push(value) })
      const naive = new NaiveCache(maxBytes)
      for (const [i, change] of steps.entries()) {
        const ids = Int32Array.from(change.ids)
        if (change.kind === 'find') expect(cache.find(ids)).toEqual(naive.find(change.ids))
        else expect(cache.insert(ids, i, change.bytes)).toBe(naive.insert(change.ids, i, change.bytes))
        expect(letGo).toEqual(naive.letGo)
        expect(cache.metrics).toEqual(naive.metrics())
        expect(cache.metrics.bytes).toBeLessThanOrEqual(maxBytes)
      }
      const kept = naive.entries.map(({ value }) => value)
      letGo.length = 0
      cache.clear()
      expect(letGo.sort((a, b) => a - b)).toEqual(kept.sort((a, b) => a - b))
      expect(cache.metrics).toMatchObject({ bytes: 0, entries: 0 })
    }), { numRuns: 400, seed: 3 })
  })

  test('says where a text parts from the known ones', () => {
    const cache = createPrefixCache<string>({ maxBytes: 1e6, letGo: () => {} })
    cache.insert(Int32Array.of(1, 2, 3, 4, 5), 'five', 10)
    expect(cache.find(Int32Array.of(1, 2, 3, 9))).toEqual({ value: null, length: 0, sharedLength: 3 })
    cache.insert(Int32Array.of(1, 2, 3), 'three', 10)
    expect(cache.find(Int32Array.of(1, 2, 3, 9))).toEqual({ value: 'three', length: 3, sharedLength: 3 })
    expect(cache.find(Int32Array.of(1, 2, 3, 4, 5, 6))).toEqual({ value: 'five', length: 5, sharedLength: 5 })
  })

  test('a long prefix outlives many short texts that nobody asks for again', () => {
    const cache = createPrefixCache<string>({ maxBytes: 4000, letGo: () => {} })
    const long = Int32Array.from({ length: 200 }, (_, i) => i)
    cache.insert(long, 'long', 1000)
    for (let i = 0; i < 30; i++) {
      cache.insert(Int32Array.of(1000 + i, 1, 2, 3), 'short', 1000)
      expect(cache.find(long).value, `after ${i + 1}`).toBe('long')
    }
    expect(cache.metrics.evictions).toBeGreaterThan(25)
  })

  test('and goes in the end, when nobody asks for it', () => {
    const cache = createPrefixCache<string>({ maxBytes: 4000, letGo: () => {} })
    const long = Int32Array.from({ length: 40 }, (_, i) => i)
    cache.insert(long, 'long', 1000)
    for (let i = 0; i < 200; i++) cache.insert(Int32Array.of(1000 + i, 1, 2, 3), 'short', 1000)
    expect(cache.find(long).value).toBe(null)
  })

  test('keeps no reference to the ids', () => {
    const cache = createPrefixCache<string>({ maxBytes: 1e6, letGo: () => {} })
    const ids = Int32Array.of(1, 2, 3)
    cache.insert(ids, 'a', 10)
    ids.fill(9)
    expect(cache.find(Int32Array.of(1, 2, 3)).value).toBe('a')
  })
})
