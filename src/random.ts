/**
 * The seeded random numbers of the sampler: the same sequence for a seed in every runtime, and a state that can be saved.
 *
 * xoshiro128** 1.1 (Blackman & Vigna, "Scrambled Linear Pseudorandom Number Generators", 2021), seeded, as its authors advise,
 * with SplitMix64: of the outputs for the seed the first gives words 0 and 1 (low half first), the second words 2 and 3.
 * Not for secrets.
 */
import { describe, messageOf } from './errors.ts'

/** Four unsigned 32-bit words, not all zero: all there is to save of a generator. */
export type RandomState = readonly [number, number, number, number]

export interface Random {
  /** The next number, uniform over the multiples of 2^-53 in [0, 1). Takes two words of 32 bits. */
  next(): number
  /** A copy of the state: a generator restored to it goes on with the same numbers. */
  state(): RandomState
  /** Goes on from a saved state. RangeError or TypeError when it is none. */
  restore(state: RandomState): void
}

/**
 * A generator for the seed, an integer from 0 to 2^53 − 1.
 * RangeError or TypeError for anything else.
 */
export function createRandom(seed: number): Random {
  const words = seededWords(seed)
  return {
    next: () => nextNumber(words),
    state: () => stateOf(words),
    restore: (state) => restoreWords(words, state)
  }
}

/** The state of a generator for the seed. Throws as `createRandom`. */
export function seededWords(seed: number): Uint32Array {
  validateSeed(seed)
  const words = new Uint32Array(4)
  fillFromSeed(words, seed)
  return words
}

/** The next number of a generator in this state, which goes on. */
export function nextNumber(words: Uint32Array): number {
  const high = nextWord(words) >>> 5
  return (high * 0x4000000 + (nextWord(words) >>> 6)) / 0x20000000000000
}

function nextWord(words: Uint32Array): number {
  const s1 = words[1]
  const scrambled = Math.imul(rotateLeft(Math.imul(s1, 5), 7), 9) >>> 0
  words[2] ^= words[0]
  words[3] ^= s1
  words[1] ^= words[2]
  words[0] ^= words[3]
  words[2] ^= s1 << 9
  words[3] = rotateLeft(words[3], 11)
  return scrambled
}

/** A seed from the host's source of randomness, for when the caller gave none. */
export function randomSeed(): number {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2))
  return (high >>> 11) * 0x100000000 + low
}

/** Throws unless it is an integer from 0 to 2^53 − 1. */
export function validateSeed(seed: unknown): asserts seed is number {
  const parts = { place: 'seed', expected: 'an integer from 0 to 2^53 - 1', got: describe(seed) }
  if (typeof seed !== 'number') throw new TypeError(messageOf(parts))
  if (!Number.isSafeInteger(seed) || seed < 0) throw new RangeError(messageOf(parts))
}

export function stateOf([a, b, c, d]: Uint32Array): RandomState {
  return [a, b, c, d]
}

export function restoreWords(words: Uint32Array, state: RandomState): void {
  validateState(state)
  words.set(state)
}

function validateState(state: RandomState): void {
  const parts = { place: 'random state', expected: 'four unsigned 32-bit integers, not all zero', got: describe(state) }
  if (!Array.isArray(state)) throw new TypeError(messageOf(parts))
  const isState = state.length === 4 && state.every(word => word === word >>> 0) && state.some(word => word !== 0)
  if (!isState) throw new RangeError(messageOf(parts))
}

function rotateLeft(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits))
}

/** SplitMix64 (Steele, Lea & Flood, 2014). BigInt is slow, but this is twice per seed. */
function fillFromSeed(words: Uint32Array, seed: number): void {
  let counter = BigInt(seed)
  for (let i = 0; i < 4; i += 2) {
    counter = BigInt.asUintN(64, counter + 0x9e3779b97f4a7c15n)
    let mixed = BigInt.asUintN(64, (counter ^ (counter >> 30n)) * 0xbf58476d1ce4e5b9n)
    mixed = BigInt.asUintN(64, (mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn)
    mixed ^= mixed >> 31n
    words[i] = Number(mixed & 0xffffffffn)
    words[i + 1] = Number(mixed >> 32n)
  }
}
