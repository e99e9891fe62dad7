/**
 * A session as bytes: what it has read and what that left, in the canonical layout, so that any runtime and any backend build goes on from it. The body
 * under the seal (seal.ts), little-endian:
 *
 *    0 ┌──────────────────────────────────────┐
 *      │ fingerprint of the model, 16 bytes   │  fingerprint.ts: its config, weights and number formats
 *   16 ├──────────────────────────────────────┤
 *      │ precision, u32                       │  0 f32, 1 f16, 2 q8
 *   20 │ vocabSize, u32                       │
 *   24 │ position, u32                        │  tokens read
 *   28 │ nPending, u32                        │  tokens of the text that are not read yet
 *   32 │ hasLogits, u32                       │  0 or 1
 *   36 ├──────────────────────────────────────┤
 *      │ pending ids, i32[nPending]           │
 *      ├──────────────────────────────────────┤
 *      │ ids seen, a bit each, u32[⌈vocab/32⌉]│  among the tokens read: for the repetition penalty
 *      ├──────────────────────────────────────┤
 *      │ last logits, f32[vocabSize]          │  where hasLogits: of the last token, which then is read
 *      ├──────────────────────────────────────┤
 *      │ state                                │  none at position 0; else stateSize elements, then of every attention layer
 *      └──────────────────────────────────────┘  keys (position, width) and values (position, width), in the precision
 *
 * A change of this layout is a new version. Checkpoints for `rewind` and tokens read are not in it.
 */

import { CheckpointError, describe, messageOf } from '../errors.ts'
import { HASH_BYTES, hexOf } from './hash.ts'
import { sameBytes, seal, SEAL_BODY_AT, type SealKind, unseal } from './seal.ts'
import { decodeState, encodedStateBytes, encodeState, STATE_PRECISIONS, type StatePrecision } from './state-codec.ts'

/** Of `session.save`. */
export interface SaveOptions {
  /** How the state is stored; default 'f32', which is exact. The README has what the others cost. */
  readonly precision?: StatePrecision | undefined
}

/** What a session is, without the model. */
export interface SavedSession {
  /** Tokens read. */
  readonly position: number
  readonly pending: Int32Array
  /** Ids among the tokens read, each once. */
  readonly seen: readonly number[]
  readonly lastLogits: Float32Array | null
  /** Canonical; null at position 0. */
  readonly state: Float32Array | null
}

/** What the bytes are bound to. */
export interface SavedModel {
  readonly fingerprint: Uint8Array
  readonly vocabSize: number
}

const KIND: SealKind = { what: 'a saved session', magic: 'MAMBASES', version: 1 }
const FIELDS = ['precision', 'vocabSize', 'position', 'nPending', 'hasLogits'] as const
const ARRAYS_AT = HASH_BYTES + 4 * FIELDS.length

type Fields = Readonly<Record<(typeof FIELDS)[number], number>>

/** Where the parts of a body are, in bytes. */
interface Layout {
  readonly seen: number
  readonly logits: number
  readonly state: number
  readonly end: number
}

function layoutOf({ vocabSize, nPending, hasLogits }: Fields, stateBytes: number): Layout {
  const seen = ARRAYS_AT + 4 * nPending
  const logits = seen + 4 * Math.ceil(vocabSize / 32)
  const state = logits + 4 * vocabSize * hasLogits
  return { seen, logits, state, end: state + stateBytes }
}

/** RangeError for a precision that is none, and for a state beyond its range. */
export function encodeSession(session: SavedSession, { fingerprint, vocabSize }: SavedModel, { precision = 'f32' }: SaveOptions = {}): Uint8Array<ArrayBuffer> {
  const index = STATE_PRECISIONS.indexOf(precision)
  if (index < 0) throw new RangeError(messageOf({ place: 'precision', expected: `one of ${STATE_PRECISIONS.map(describe).join(', ')}`, got: describe(precision) }))
  const { position, pending, seen, lastLogits, state } = session
  const fields: Fields = { precision: index, vocabSize, position, nPending: pending.length, hasLogits: lastLogits === null ? 0 : 1 }
  const layout = layoutOf(fields, state === null ? 0 : encodedStateBytes(state.length, precision))
  return seal(KIND, layout.end, (body) => {
    const view = new DataView(body.buffer, body.byteOffset)
    body.set(fingerprint)
    FIELDS.forEach((name, i) => view.setUint32(HASH_BYTES + 4 * i, fields[name], true))
    new Int32Array(body.buffer, body.byteOffset + ARRAYS_AT, pending.length).set(pending)
    for (const id of seen) body[layout.seen + (id >> 3)] |= 1 << (id & 7)
    if (lastLogits !== null) new Float32Array(body.buffer, body.byteOffset + layout.logits, vocabSize).set(lastLogits)
    if (state !== null) encodeState(state, precision, body.subarray(layout.state))
  })
}

/** The session's own part of its bytes, without the seal and the model's fingerprint. */
export function sessionPart(bytes: Uint8Array): Uint8Array {
  return bytes.subarray(SEAL_BODY_AT + HASH_BYTES, -HASH_BYTES)
}

/**
 * The session, checked whole before anything is made of it. `elementsAt`: elements of a state after so many tokens.
 * CheckpointError for bytes that are no saved session, of another version or another model, cut short or changed.
 */
export function decodeSession(bytes: Uint8Array, { fingerprint, vocabSize }: SavedModel, elementsAt: (position: number) => number): SavedSession {
  const place = 'saved session'
  if (!(bytes instanceof Uint8Array)) throw new TypeError(messageOf({ place, expected: 'a Uint8Array', got: describe(bytes) }))
  const body = unseal(KIND, bytes, place)
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength)
  if (body.length < ARRAYS_AT) throw new CheckpointError({ place, expected: `a body of at least ${ARRAYS_AT} bytes`, got: `${body.length}` })
  const model = body.subarray(0, HASH_BYTES)
  if (!sameBytes(model, fingerprint)) throw new CheckpointError({ place: `${place}: model`, expected: `fingerprint ${hexOf(fingerprint)}`, got: hexOf(model) })
  const field = (name: (typeof FIELDS)[number], expected: string, holds: (value: number) => boolean): number => {
    const value = view.getUint32(HASH_BYTES + 4 * FIELDS.indexOf(name), true)
    if (!holds(value)) throw new CheckpointError({ place: `${place}: ${name}`, expected, got: `${value}` })
    return value
  }
  const fields: Fields = {
    precision: field('precision', `a number below ${STATE_PRECISIONS.length}`, (value) => value < STATE_PRECISIONS.length),
    vocabSize: field('vocabSize', `${vocabSize}`, (value) => value === vocabSize),
    position: field('position', 'a number below 2^31', (value) => value < 2 ** 31),
    nPending: field('nPending', 'a number below 2^31', (value) => value < 2 ** 31),
    hasLogits: field('hasLogits', '0 or 1', (value) => value < 2)
  }
  const { position, nPending } = fields
  const precision = STATE_PRECISIONS[fields.precision]
  const nElements = position === 0 ? 0 : elementsAt(position)
  const layout = layoutOf(fields, encodedStateBytes(nElements, precision))
  if (layout.end !== body.length) throw new CheckpointError({ place, expected: `a body of ${layout.end} bytes`, got: `${body.length}` })
  const pending = new Int32Array(body.buffer, body.byteOffset + ARRAYS_AT, nPending).slice()
  const wrong = pending.findIndex((id) => id < 0 || id >= vocabSize)
  if (wrong >= 0) throw new CheckpointError({ place: `${place}: pending[${wrong}]`, expected: `an integer from 0 to ${vocabSize - 1}`, got: `${pending[wrong]}` })
  const seen: number[] = []
  for (let id = 0; id < vocabSize; id++) if ((body[layout.seen + (id >> 3)] >> (id & 7)) & 1) seen.push(id)
  return {
    position,
    pending,
    seen,
    lastLogits: fields.hasLogits === 0 ? null : new Float32Array(body.buffer, body.byteOffset + layout.logits, vocabSize).slice(),
    state: position === 0 ? null : decodeState(body.subarray(layout.state), nElements, { precision, place })
  }
}
