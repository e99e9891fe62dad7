/** The pool: holders are counted, memory comes back, and not without end. */
import { describe, expect, test } from 'vitest'
import { createSnapshotPool } from '../../src/state/snapshot.ts'

describe('the pool', () => {
  test('gives memory again when the last holder lets go, and not before', () => {
    const pool = createSnapshotPool(() => 10)
    const first = pool.take(3)
    expect([first.position, first.state.length]).toEqual([3, 10])
    pool.hold(first)
    pool.release(first)
    const second = pool.take(4)
    expect(second.state).not.toBe(first.state)
    pool.release(first)
    expect(pool.usage()).toEqual({ nHeld: 1, freeBytes: 40 })
    const third = pool.take(5)
    expect(third.state).toBe(first.state)
    expect(pool.usage()).toEqual({ nHeld: 2, freeBytes: 0 })
  })

  test('knows one hold too few', () => {
    const pool = createSnapshotPool(() => 10)
    const snapshot = pool.take(1)
    pool.release(snapshot)
    expect(() => pool.release(snapshot)).toThrow(TypeError)
    expect(() => pool.hold(snapshot)).toThrow(TypeError)
  })

  test('where states grow with the text, only the same size fits', () => {
    const pool = createSnapshotPool((position) => 10 + position)
    const snapshot = pool.take(1)
    pool.release(snapshot)
    expect(pool.take(2).state.length).toBe(12)
    expect(pool.take(1).state).toBe(snapshot.state)
  })

  test('keeps 32 MiB at most, or one', () => {
    const pool = createSnapshotPool((position) => position * 2 ** 20)
    const many = Array.from({ length: 20 }, () => pool.take(1))
    for (const snapshot of many) pool.release(snapshot)
    expect(pool.usage()).toEqual({ nHeld: 0, freeBytes: 2 ** 25 })
    pool.release(pool.take(16))
    expect(pool.usage()).toEqual({ nHeld: 0, freeBytes: 2 ** 26 })
  })
})
