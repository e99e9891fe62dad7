/** The hash against its definition, written again with integers of any size. */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createHasher, hashOf, hexOf } from '../../src/state/hash.ts'
import { createNumbers } from '../support/numbers.ts'

const MASK = 0xffffffffn
const PRIMES = [0x9e3779b1n, 0x85ebca77n, 0xc2b2ae3dn, 0x27d4eb2fn]
const word = (value: bigint): bigint => value & MASK
const rotate = (value: bigint, bits: bigint): bigint => word((value << bits) | (value >> (32n - bits)))

function avalanche(value: bigint): bigint {
  let mixed = word((value ^ (value >> 16n)) * 0x85ebca6bn)
  mixed = word((mixed ^ (mixed >> 13n)) * 0xc2b2ae35n)
  return mixed ^ (mixed >> 16n)
}

function definition(bytes: Uint8Array): string {
  let [a, b, c, d, s] = [...PRIMES, 0n]
  const mix = (w: readonly bigint[]): void => {
    const [e, f, g, h] = [a, b, c, d].map((value, i) => word((value ^ w[i]) * PRIMES[i]))
    ;[a, b, c, d] = [rotate(f, 13n), rotate(g, 21n), rotate(h, 29n), word(rotate(e, 5n) + rotate(f, 13n))]
    s = word(rotate(s, 7n) + (b ^ c ^ d))
  }
  for (let block = 0; block < bytes.length; block += 16) {
    mix([0, 4, 8, 12].map((at) => [3, 2, 1, 0].reduce((sum, i) => (sum << 8n) | BigInt(bytes[block + at + i] ?? 0), 0n)))
  }
  mix([s, word(BigInt(bytes.length)), BigInt(bytes.length) >> 32n, 0n])
  for (let round = 0; round < 2; round++) {
    a = word(a + b + c + d)
    ;[a, b, c, d] = [a, word(b + a), word(c + a), word(d + a)].map(avalanche)
  }
  return [a, b, c, d].map((value) => [0n, 8n, 16n, 24n].map((shift) => ((value >> shift) & 255n).toString(16).padStart(2, '0')).join('')).join('')
}

const numbers = createNumbers(7)
const randomBytes = (length: number): Uint8Array => Uint8Array.from({ length }, () => numbers.integer(0, 255))

describe('hash', () => {
  test('is what its definition says, at every length up to some blocks', () => {
    for (let length = 0; length < 70; length++) {
      const bytes = randomBytes(length)
      expect(hexOf(hashOf(bytes)), `${length} bytes`).toBe(definition(bytes))
    }
    const long = randomBytes(100_003)
    expect(hexOf(hashOf(long))).toBe(definition(long))
  })

  test('does not depend on the pieces, nor on where they lie', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), fc.array(fc.nat(40), { maxLength: 12 }), fc.nat(3), (bytes, lengths, shift) => {
      const hasher = createHasher()
      const moved = new Uint8Array(bytes.length + shift).subarray(shift)
      moved.set(bytes)
      let first = 0
      for (const length of lengths) {
        hasher.update(moved.subarray(first, first + length))
        first = Math.min(bytes.length, first + length)
      }
      hasher.update(moved.subarray(first))
      expect(hexOf(hasher.digest())).toBe(definition(bytes))
    }), { numRuns: 300, seed: 1 })
  })

  test('digest leaves the hasher as it is', () => {
    const bytes = randomBytes(55)
    const hasher = createHasher().update(bytes.subarray(0, 21))
    expect(hexOf(hasher.digest())).toBe(definition(bytes.subarray(0, 21)))
    expect(hexOf(hasher.update(bytes.subarray(21)).digest())).toBe(definition(bytes))
  })

  test('differs for every change of one, two and three bits of a short text, and for zeros more', () => {
    const bytes = randomBytes(48)
    const flipped = (...bits: readonly number[]): string => {
      const changed = bytes.slice()
      for (const bit of bits) changed[bit >> 3] ^= 1 << (bit & 7)
      return hexOf(hashOf(changed))
    }
    const nearby = new Set([flipped()])
    for (let bit = 0; bit < 384; bit++) nearby.add(flipped(bit))
    for (let more = 1; more < 40; more++) nearby.add(hexOf(hashOf(Uint8Array.of(...bytes, ...new Uint8Array(more)))))
    expect(nearby.size).toBe(1 + 384 + 39)
    // Two bits against one: three bits apart.
    for (let bit = 0; bit < 384; bit++) for (let second = bit + 1; second < 384; second++) expect(nearby.has(flipped(bit, second)), `${bit}, ${second}`).toBe(false)
  })

  test('a flipped bit changes about half of the bits', () => {
    const bytes = randomBytes(64)
    const before = hashOf(bytes)
    let changedBits = 0
    for (let bit = 0; bit < 512; bit++) {
      const changed = bytes.slice()
      changed[bit >> 3] ^= 1 << (bit & 7)
      hashOf(changed).forEach((byte, i) => (changedBits += [...(byte ^ before[i]).toString(2)].filter((digit) => digit === '1').length))
    }
    // 65536 fair coins: six standard deviations are 768.
    expect(Math.abs(changedBits - 32_768)).toBeLessThan(768)
  })
})
