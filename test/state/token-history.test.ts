/** The history against plain arrays: random changes, forks among them. */
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { TokenHistory } from '../../src/state/token-history.ts'

type Step =
  | { readonly kind: 'push'; readonly ids: readonly number[] }
  | { readonly kind: 'truncate' | 'forget'; readonly position: number }
  | { readonly kind: 'fork' }

const step: fc.Arbitrary<Step & { readonly which: number }> = fc.oneof(
  fc.record({ kind: fc.constant('push' as const), ids: fc.array(fc.nat(999), { maxLength: 30 }), which: fc.nat(9) }),
  fc.record({ kind: fc.constantFrom('truncate' as const, 'forget' as const), position: fc.nat(150), which: fc.nat(9) }),
  fc.record({ kind: fc.constant('fork' as const), which: fc.nat(9) })
)

interface Plain {
  start: number
  ids: number[]
}

function apply(change: Step, history: TokenHistory, plain: Plain): void {
  if (change.kind === 'push') {
    history.push(Int32Array.from(change.ids))
    plain.ids.push(...change.ids)
  } else if (change.kind === 'truncate') {
    history.truncate(change.position)
    plain.ids = plain.ids.slice(0, Math.max(0, change.position - plain.start))
  } else if (change.kind === 'forget') {
    history.forget(change.position)
    const count = Math.max(0, Math.min(plain.ids.length, change.position - plain.start))
    plain.ids = plain.ids.slice(count)
    plain.start += count
  }
}

test('any changes of any forks', () => {
  fc.assert(fc.property(fc.nat(50), fc.array(step, { maxLength: 60 }), (start, steps) => {
    const pairs: { readonly history: TokenHistory; readonly plain: Plain }[] = [{ history: new TokenHistory(start), plain: { start, ids: [] } }]
    for (const { which, ...change } of steps) {
      const { history, plain } = pairs[which % pairs.length]
      if (change.kind === 'fork') pairs.push({ history: history.fork(), plain: { start: plain.start, ids: [...plain.ids] } })
      else apply(change, history, plain)
      for (const pair of pairs) {
        expect([pair.history.start, pair.history.end]).toEqual([pair.plain.start, pair.plain.start + pair.plain.ids.length])
        expect(pair.history.slice(pair.history.start, pair.history.end)).toEqual(Int32Array.from(pair.plain.ids))
      }
    }
  }), { numRuns: 200, seed: 2 })
})

test('a part of it', () => {
  const history = new TokenHistory(10)
  history.push(Int32Array.of(1, 2, 3, 4, 5))
  history.forget(11)
  expect(history.slice(12, 14)).toEqual(Int32Array.of(3, 4))
})

test('a text of a million tokens, one by one, half of them forgotten on the way', () => {
  const history = new TokenHistory()
  const startMs = performance.now()
  for (let i = 0; i < 1_000_000; i++) {
    history.push(Int32Array.of(i))
    if (i % 2 === 1) history.forget((i + 1) / 2)
  }
  expect(history.slice(999_990, 999_993)).toEqual(Int32Array.of(999_990, 999_991, 999_992))
  // Linear: copying the text at every push would take minutes.
  expect(performance.now() - startMs).toBeLessThan(10_000)
})
