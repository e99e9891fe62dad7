/** What a turn holds: seats and rows, for any queue. */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Demand, shareRows, takeSeats } from '../src/seats.ts'
import { joinParts } from '../src/turn.ts'

interface Guest {
  readonly id: number
  seatedMs: number | null
}

const guests = fc.array(fc.option(fc.integer({ min: 0, max: 1000 }))).map((all) => all.map((seatedMs, id): Guest => ({ id, seatedMs })))

describe('seats', () => {
  const rules = { nSlots: 3, tenancyMs: 100, nowMs: 1000 }
  const ids = (all: readonly Guest[]): number[] => all.map(({ id }) => id)

  test('who has one keeps it, those free go to the others as they came', () => {
    const { chosen, displaced } = takeSeats([{ id: 0, seatedMs: null }, { id: 1, seatedMs: 950 }, { id: 2, seatedMs: null }, { id: 3, seatedMs: null }], rules)
    expect(ids(chosen)).toEqual([1, 0, 2])
    expect(displaced).toEqual([])
  })

  test('given up after the tenancy, the longest first, one for each that waits', () => {
    const queue = [{ id: 0, seatedMs: 890 }, { id: 1, seatedMs: 910 }, { id: 2, seatedMs: 880 }, { id: 3, seatedMs: null }]
    const { chosen, displaced } = takeSeats(queue, rules)
    expect([ids(chosen), ids(displaced)]).toEqual([[0, 1, 3], [2]])
  })

  test('kept for longer where nobody waits', () => {
    const queue = [{ id: 0, seatedMs: 0 }, { id: 1, seatedMs: 0 }]
    expect(takeSeats(queue, rules)).toEqual({ chosen: queue, displaced: [] })
  })

  test('any queue: all seats taken that can be, nobody twice, nobody displaced for nothing', () => {
    fc.assert(fc.property(guests, fc.integer({ min: 1, max: 6 }), (queue, nSlots) => {
      // No more are seated than there are slots.
      let nSeated = 0
      for (const guest of queue) if (guest.seatedMs !== null && ++nSeated > nSlots) guest.seatedMs = null
      const { chosen, displaced } = takeSeats(queue, { ...rules, nSlots })
      expect(chosen.length).toBe(Math.min(nSlots, queue.length))
      expect(new Set([...chosen, ...displaced]).size).toBe(chosen.length + displaced.length)
      expect(displaced.every(({ seatedMs }) => seatedMs !== null && seatedMs <= 900)).toBe(true)
      expect(displaced.length === 0 || queue.length > nSlots).toBe(true)
      // Whoever is seated and not displaced is chosen.
      for (const guest of queue) if (guest.seatedMs !== null && !displaced.includes(guest)) expect(chosen).toContain(guest)
    }))
  })
})

describe('rows', () => {
  const last = (...counts: number[]): Demand[] => counts.map((nLeft) => ({ nLeft, isAll: false }))

  test('steps have theirs, short prompts all of theirs, long ones the rest', () => {
    expect(shareRows(last(1000, 1, 1, 10, 500), { maxRows: 64, maxLogits: 64 })).toEqual([26, 1, 1, 10, 26])
    expect(shareRows(last(5000), { maxRows: 256, maxLogits: 8 })).toEqual([256])
  })

  test('logits of all tokens share their buffer', () => {
    expect(shareRows([{ nLeft: 100, isAll: true }, { nLeft: 100, isAll: false }], { maxRows: 64, maxLogits: 20 })).toEqual([10, 54])
  })

  test('any demands: all rows used, each has one, nobody has more while another that wants as much has less', () => {
    const demands = fc.array(fc.record({ nLeft: fc.integer({ min: 1, max: 400 }), isAll: fc.boolean() }), { minLength: 1, maxLength: 40 })
    fc.assert(fc.property(demands, fc.integer({ min: 40, max: 300 }), fc.integer({ min: 40, max: 300 }), (all, maxRows, maxLogits) => {
      const rows = shareRows(all, { maxRows, maxLogits })
      const wants = all.map(({ nLeft, isAll }) => (isAll ? Math.min(nLeft, Math.floor(maxLogits / all.length)) : nLeft))
      expect(rows.reduce((a, b) => a + b)).toBe(Math.min(maxRows, wants.reduce((a, b) => a + b)))
      expect(all.reduce((sum, { isAll }, i) => sum + (isAll ? rows[i] : 1), 0)).toBeLessThanOrEqual(maxLogits + all.length)
      for (const [i, count] of rows.entries()) {
        expect(count >= 1 && count <= wants[i]).toBe(true)
        if (count < wants[i]) expect(Math.max(...rows)).toBeLessThanOrEqual(count + 1)
      }
    }))
  })
})

test('parts stand one after the other in the batch, and their logits in the same order', () => {
  const part = (slot: number, logits: 'none' | 'last' | 'all', ...ids: number[]) => ({ slot, position: 10 * slot, tokens: Int32Array.from(ids), logits })
  expect(joinParts([part(2, 'all', 7, 8), part(0, 'none', 9), part(1, 'last', 4, 5, 6)])).toEqual({
    batch: {
      tokens: Int32Array.of(7, 8, 9, 4, 5, 6),
      segments: [
        { slot: 2, position: 20, firstRow: 0, nRows: 2, logits: 'all' },
        { slot: 0, position: 0, firstRow: 2, nRows: 1, logits: 'none' },
        { slot: 1, position: 10, firstRow: 3, nRows: 3, logits: 'last' }
      ]
    },
    nLogits: [2, 0, 1],
    nAllLogits: 3
  })
})
