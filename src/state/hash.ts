/**
 * A 128-bit hash of bytes that come in pieces: for fingerprints, checksums and digests, against accidents and mix-ups. Not for secrets:
 * who wants two texts of one hash can make them.
 *
 * Integer operations alone, so the same in every runtime. Four words of state; a block is 16 bytes, four little-endian words w:
 *
 *   a = rotl(a ^ w0, 13) · P0 + b     b = rotl(b ^ w1, 15) · P1 + c     c = rotl(c ^ w2, 17) · P2 + d     d = rotl(d ^ w3, 19) · P3 + a
 *
 * Each line can be undone when its word is known, so the block maps states one to one, and two inputs that differ in one block never agree. The last
 * block is filled with zeros; the length in bytes goes into the end, where every bit of the state reaches every bit of the hash.
 * 3.5 GB/s on one core (Node 24), where a checkpoint loads at 0.4 GB/s: `npm run bench -- state`.
 */

export interface Hasher {
  /** Takes the next bytes, of any length. */
  update(bytes: Uint8Array): Hasher
  /** The hash of all bytes so far, 16 bytes. More may follow. */
  digest(): Uint8Array
}

export const HASH_BYTES = 16

const BLOCK_BYTES = 16
/** Odd: a product with it can be undone. The constants of XXH32. */
const P0 = 0x9e3779b1
const P1 = 0x85ebca77
const P2 = 0xc2b2ae3d
const P3 = 0x27d4eb2f

export function createHasher(): Hasher {
  const state = Int32Array.of(P0 + P1, P1, P2, P3)
  const rest = new Uint8Array(BLOCK_BYTES)
  const restWords = new Int32Array(rest.buffer)
  let nRest = 0
  let nBytes = 0
  const hasher: Hasher = {
    update(bytes) {
      nBytes += bytes.length
      let from = 0
      if (nRest > 0) {
        from = Math.min(bytes.length, BLOCK_BYTES - nRest)
        rest.set(bytes.subarray(0, from), nRest)
        nRest += from
        if (nRest < BLOCK_BYTES) return hasher
        mixBlocks(state, restWords)
      }
      const wholeBytes = (bytes.length - from) & ~(BLOCK_BYTES - 1)
      mixBlocks(state, wordsOf(bytes.subarray(from, from + wholeBytes)))
      rest.set(bytes.subarray(from + wholeBytes))
      nRest = bytes.length - from - wholeBytes
      return hasher
    },
    digest() {
      const end = state.slice()
      if (nRest > 0) {
        const last = new Uint8Array(BLOCK_BYTES)
        last.set(rest.subarray(0, nRest))
        mixBlocks(end, new Int32Array(last.buffer))
      }
      return finish(end, nBytes)
    }
  }
  return hasher
}

/** The hash of one array of bytes. */
export function hashOf(bytes: Uint8Array): Uint8Array {
  return createHasher().update(bytes).digest()
}

export function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** Typed arrays need an aligned start. */
function wordsOf(bytes: Uint8Array): Int32Array {
  const { buffer, byteOffset, byteLength } = byteOf(bytes)
  return new Int32Array(buffer, byteOffset, byteLength / 4)
}

function byteOf(bytes: Uint8Array): Uint8Array {
  return bytes.byteOffset % 4 === 0 ? bytes : bytes.slice()
}

function mixBlocks(state: Int32Array, words: Int32Array): void {
  let [a, b, c, d] = state
  for (let i = 0; i < words.length; i += 4) {
    a ^= words[i]
    a = (Math.imul((a << 13) | (a >>> 19), P0) + b) | 0
    b ^= words[i + 1]
    b = (Math.imul((b << 15) | (b >>> 17), P1) + c) | 0
    c ^= words[i + 2]
    c = (Math.imul((c << 17) | (c >>> 15), P2) + d) | 0
    d ^= words[i + 3]
    d = (Math.imul((d << 19) | (d >>> 13), P3) + a) | 0
  }
  state[0] = a
  state[1] = b
  state[2] = c
  state[3] = d
}

/** The length, then sums of all words and murmur3's `fmix32` of each, twice. One to one as well. */
function finish(state: Int32Array, nBytes: number): Uint8Array {
  state[0] ^= nBytes | 0
  state[1] ^= Math.floor(nBytes / 2 ** 32)
  for (let round = 0; round < 2; round++) {
    state[0] += state[1] + state[2] + state[3]
    for (let i = 1; i < 4; i++) state[i] += state[0]
    for (let i = 0; i < 4; i++) state[i] = avalanche(state[i])
  }
  return new Uint8Array(state.buffer)
}

function avalanche(word: number): number {
  let mixed = Math.imul(word ^ (word >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return mixed ^ (mixed >>> 16)
}
