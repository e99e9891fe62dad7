/**
 * Bytes that go out into the world and come back: under a seal that tells what they are, how many, and whether any was changed. Little-endian.
 *
 *    0 ┌────────────────────────────┐
 *      │ magic, 8 ASCII characters  │  what it is
 *    8 ├────────────────────────────┤
 *      │ version, u32               │  of the body's layout
 *   12 ├────────────────────────────┤
 *      │ length of all, u64         │
 *   20 ├────────────────────────────┤
 *      │ body                       │
 *  −16 ├────────────────────────────┤
 *      │ checksum (hash.ts)         │  of all before it
 *      └────────────────────────────┘
 */

import { CheckpointError } from '../errors.ts'
import { HASH_BYTES, hashOf } from './hash.ts'

export interface SealKind {
  /** For messages: `a saved session`. */
  readonly what: string
  /** 8 ASCII characters. */
  readonly magic: string
  readonly version: number
}

const VERSION_AT = 8
const LENGTH_AT = 12
export const SEAL_BODY_AT = 20

/** Bytes with a body of `bodyBytes`, which `write` fills: it starts at a multiple of 4 in its buffer. */
export function seal({ magic, version }: SealKind, bodyBytes: number, write: (body: Uint8Array<ArrayBuffer>) => void): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SEAL_BODY_AT + bodyBytes + HASH_BYTES)
  const view = new DataView(bytes.buffer)
  bytes.set(Uint8Array.from(magic, (character) => character.charCodeAt(0)))
  view.setUint32(VERSION_AT, version, true)
  view.setBigUint64(LENGTH_AT, BigInt(bytes.length), true)
  write(bytes.subarray(SEAL_BODY_AT, SEAL_BODY_AT + bodyBytes))
  const end = bytes.length - HASH_BYTES
  bytes.set(hashOf(bytes.subarray(0, end)), end)
  return bytes
}

/**
 * The body, checked, at a multiple of 4 in its buffer: a view of `bytes`, or a copy where they lie otherwise or are shared memory. CheckpointError for
 * bytes of another kind, of a newer version, cut short, or changed.
 */
export function unseal({ what, magic, version }: SealKind, bytes: Uint8Array, place: string): Uint8Array {
  const own = bytes.byteOffset % 4 === 0 && bytes.buffer instanceof ArrayBuffer ? bytes : new Uint8Array(bytes)
  const view = new DataView(own.buffer, own.byteOffset, own.byteLength)
  const least = SEAL_BODY_AT + HASH_BYTES
  if (own.length < least) throw new CheckpointError({ place, expected: `${what} of at least ${least} bytes`, got: `${own.length} bytes` })
  if (String.fromCharCode(...own.subarray(0, VERSION_AT)) !== magic) throw new CheckpointError({ place, expected: `${what}, which begins with ${magic}`, got: 'other bytes' })
  const written = view.getUint32(VERSION_AT, true)
  if (written !== version) throw new CheckpointError({ place: `${place}: version`, expected: `${version}`, got: `${written}` })
  const length = view.getBigUint64(LENGTH_AT, true)
  if (length !== BigInt(own.length)) throw new CheckpointError({ place, expected: `${length} bytes`, got: `${own.length} bytes` })
  const end = own.length - HASH_BYTES
  const checksum = hashOf(own.subarray(0, end))
  if (!sameBytes(checksum, own.subarray(end))) throw new CheckpointError({ place: `${place}: checksum`, expected: 'that of the bytes', got: 'another one: they were changed' })
  return own.subarray(SEAL_BODY_AT, end)
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}
