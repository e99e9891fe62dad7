/** That these tests run where they are meant to run, and that they can fail. */
import { expect, test } from 'vitest'

// On Node 20 vitest 5 shows no failing assertion at all: the pinned Node of the development dependencies must be the one that runs.
test('Node is the pinned one', () => {
  console.log(`Node ${process.version}`)
  expect(Number(/^v(\d+)\./.exec(process.version)?.[1])).toBeGreaterThanOrEqual(24)
})

test('an expectation that does not hold throws', async () => {
  expect(() => expect(1).toBe(2)).toThrow(/expected 1 to be 2/)
  expect(() => expect(Float32Array.of(1)).toEqual(Float32Array.of(2))).toThrow()
  await expect(expect(Promise.resolve(1)).rejects.toThrow()).rejects.toThrow()
})
