/**
 * Where saved sessions live between processes: any storage of `unstorage` (memory, files, Redis, Cloudflare KV and others by its drivers), or what has
 * its four methods. The package does not depend on it: the user passes an instance.
 *
 * An item, under the seal of seal.ts:
 *
 *    0 ┌──────────────────────────┐
 *      │ revision, f64            │  1, 2, … of the key, as long as it lives
 *    8 │ expires, f64             │  ms since 1970, Infinity for never
 *   16 │ keyBytes, u32            │
 *   20 ├──────────────────────────┤
 *      │ the key, UTF-8           │  storages without letter case, or with a mistake in them, give no other key's session
 *      ├──────────────────────────┤
 *      │ the saved session        │  state/saved-session.ts, sealed by itself
 *      └──────────────────────────┘
 */

import { CheckpointError, ConflictError, describe, messageOf } from './errors.ts'
import { createLock, type Lock } from './lock.ts'
import type { Mamba } from './mamba.ts'
import type { Session, SessionOptions } from './session.ts'
import type { SaveOptions } from './state/saved-session.ts'
import { seal, type SealKind, unseal } from './state/seal.ts'

/** What a store needs of a storage: of `unstorage`'s `Storage`, or of your own. Values are bytes; null is none. */
export interface StateStorage {
  /** The bytes of a key, as a Uint8Array or an ArrayBuffer; null or undefined where there are none. */
  getItemRaw(key: string): Promise<unknown>
  /** Puts them in place of what is there. `ttl` in seconds: after that the storage may drop them. */
  setItemRaw(key: string, value: Uint8Array, options?: { readonly ttl?: number }): Promise<unknown>
  /** No error where there are none. */
  removeItem(key: string): Promise<unknown>
  /** Those that begin with `base`. */
  getKeys(base?: string): Promise<readonly string[]>
}

/** Of a store. */
export interface StateStoreOptions {
  /** Before every key, so that others may use the storage too: letters, digits, `-` and `_`. Default `mamba`. */
  readonly prefix?: string | undefined
  /** Sessions live so long after their last save; by default for ever. Told to the storage too, in whole seconds, which then may free the memory. */
  readonly ttlSeconds?: number | undefined
}

/** Of one `save`. */
export interface StoreOptions extends SaveOptions {
  /** As the store's. */
  readonly ttlSeconds?: number | undefined
  /**
   * The revision that is to be replaced, as `load` or `save` told it; 0 for a key that is not to be there. ConflictError where it is another one.
   * Writers of this store take turns; between processes there is a moment between looking and writing, since no storage interface has a way to do both
   * at once: the guard finds who goes on from an old state, not two who write in the same millisecond.
   */
  readonly ifRevision?: number | undefined
}

/** What `load` found. */
export interface StoredSession {
  readonly session: Session
  /** Counts the saves of this key. */
  readonly revision: number
}

interface Item {
  readonly revision: number
  readonly expires: number
  readonly session: Uint8Array
}

const KIND: SealKind = { what: 'a stored session', magic: 'MAMBASTO', version: 1 }
const REVISION_AT = 0
const EXPIRES_AT = 8
const KEY_BYTES_AT = 16
const KEY_AT = 20
/** File names have 255 bytes. */
const MAX_NAME = 200

/** Saved sessions under keys in a storage, each with its revision. A key may have any characters, 1 to 200 bytes of them; else it is a RangeError. */
export class StateStore {
  readonly #storage: StateStorage
  readonly #prefix: string
  readonly #ttlSeconds: number | undefined
  /** One for each key with calls under way. */
  readonly #locks = new Map<string, { readonly lock: Lock; nUsers: number }>()

  /** TypeError for what is no storage, RangeError for a prefix or a time out of range. */
  constructor(storage: StateStorage, { prefix = 'mamba', ttlSeconds }: StateStoreOptions = {}) {
    for (const method of ['getItemRaw', 'setItemRaw', 'removeItem', 'getKeys'] as const) {
      if (typeof storage?.[method] !== 'function') throw new TypeError(messageOf({ place: 'storage', expected: `a storage with ${method}`, got: describe(storage) }))
    }
    if (!/^[\w-]{1,100}$/.test(prefix)) throw new RangeError(messageOf({ place: 'prefix', expected: 'letters, digits, - and _', got: describe(prefix) }))
    checkTtl(ttlSeconds)
    this.#storage = storage
    this.#prefix = prefix
    this.#ttlSeconds = ttlSeconds
  }

  /** Saves a session under a key, in place of what is there, and tells its revision. The session goes on; later tokens are not stored. */
  async save(key: string, session: Session, { ttlSeconds = this.#ttlSeconds, ifRevision, ...options }: StoreOptions = {}): Promise<number> {
    checkTtl(ttlSeconds)
    const name = this.#nameOf(key)
    const bytes = await session.save(options)
    return this.#locked(name, async () => {
      const before = await this.#read(key, name)
      const known = before?.revision ?? 0
      if (ifRevision !== undefined && ifRevision !== known) {
        throw new ConflictError({ place: `stored session ${describe(key)}`, expected: `revision ${ifRevision}`, got: known === 0 ? 'none' : `revision ${known}` })
      }
      const item: Item = { revision: known + 1, expires: ttlSeconds === undefined ? Infinity : Date.now() + 1000 * ttlSeconds, session: bytes }
      await this.#storage.setItemRaw(name, encodeItem(key, item), ttlSeconds === undefined ? {} : { ttl: Math.ceil(ttlSeconds) })
      return item.revision
    })
  }

  /**
   * The session stored under a key, restored in `mamba`; null where there is none, or no longer. CheckpointError for bytes that were damaged or belong to
   * another model.
   */
  async load(key: string, mamba: Mamba, options: SessionOptions = {}): Promise<StoredSession | null> {
    const item = await this.#read(key, this.#nameOf(key))
    return item && { session: await mamba.restore(item.session, options), revision: item.revision }
  }

  /** Whether there was one. */
  async delete(key: string): Promise<boolean> {
    const name = this.#nameOf(key)
    return this.#locked(name, async () => {
      const isThere = (await this.#storage.getItemRaw(name)) != null
      await this.#storage.removeItem(name)
      return isThere
    })
  }

  /** The keys there are, in no order. Those whose time is over may be among them until they are asked for or the storage frees them. */
  async keys(): Promise<string[]> {
    const base = `${this.#prefix}:`
    const names = await this.#storage.getKeys(base)
    return names.flatMap((name) => (name.startsWith(base) ? [keyOf(name.slice(base.length))] : []))
  }

  /** null for an item that is not there or whose time is over. */
  async #read(key: string, name: string): Promise<Item | null> {
    const value = await this.#storage.getItemRaw(name)
    // Drivers differ in how they say so.
    if (value === null || value === undefined) return null
    const place = `stored session ${describe(key)}`
    const item = decodeItem(bytesOf(value, place), key, place)
    return item.expires <= Date.now() ? null : item
  }

  async #locked<T>(name: string, task: () => Promise<T>): Promise<T> {
    const entry = this.#locks.get(name) ?? { lock: createLock(), nUsers: 0 }
    this.#locks.set(name, entry)
    entry.nUsers++
    try {
      return await entry.lock.run(task)
    } finally {
      entry.nUsers--
      if (entry.nUsers === 0) this.#locks.delete(name)
    }
  }

  #nameOf(key: string): string {
    return `${this.#prefix}:${encodeKey(key)}`
  }
}

/** Letters, digits, - and _ as they are, every other UTF-8 byte as `=` and two digits: storages have their own ideas about `:`, `/`, `.`, `%` and `?`. */
function encodeKey(key: string): string {
  if (typeof key !== 'string') throw new TypeError(messageOf({ place: 'key', expected: 'a string', got: describe(key) }))
  const name = Array.from(new TextEncoder().encode(key), (byte) => {
    const character = String.fromCharCode(byte)
    return /[\w-]/.test(character) ? character : `=${byte.toString(16).padStart(2, '0')}`
  }).join('')
  if (name.length >= 1 && name.length <= MAX_NAME && keyOf(name) === key) return name
  throw new RangeError(messageOf({ place: 'key', expected: `1 to ${MAX_NAME} characters, where all but letters, digits, - and _ count three times for each byte`, got: describe(key) }))
}

function keyOf(name: string): string {
  const bytes = Array.from(name.matchAll(/=([0-9a-f]{2})|([^])/g), ([, hex, character]) => (hex === undefined ? character.charCodeAt(0) : Number.parseInt(hex, 16)))
  return new TextDecoder().decode(Uint8Array.from(bytes))
}

function encodeItem(key: string, { revision, expires, session }: Item): Uint8Array<ArrayBuffer> {
  const keyBytes = new TextEncoder().encode(key)
  return seal(KIND, KEY_AT + keyBytes.length + session.length, (body) => {
    const view = new DataView(body.buffer, body.byteOffset)
    view.setFloat64(REVISION_AT, revision, true)
    view.setFloat64(EXPIRES_AT, expires, true)
    view.setUint32(KEY_BYTES_AT, keyBytes.length, true)
    body.set(keyBytes, KEY_AT)
    body.set(session, KEY_AT + keyBytes.length)
  })
}

function decodeItem(bytes: Uint8Array, key: string, place: string): Item {
  const body = unseal(KIND, bytes, place)
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength)
  const end = body.length < KEY_AT ? Infinity : KEY_AT + view.getUint32(KEY_BYTES_AT, true)
  if (end > body.length) throw new CheckpointError({ place, expected: 'a key within it', got: `${body.length} bytes` })
  const storedKey = new TextDecoder().decode(body.subarray(KEY_AT, end))
  if (storedKey !== key) throw new CheckpointError({ place, expected: 'this key in it', got: describe(storedKey) })
  return { revision: view.getFloat64(REVISION_AT, true), expires: view.getFloat64(EXPIRES_AT, true), session: body.subarray(end) }
}

function bytesOf(value: unknown, place: string): Uint8Array {
  if (value instanceof Uint8Array) return value
  if (value instanceof ArrayBuffer) return new Uint8Array(value)
  throw new CheckpointError({ place, expected: 'bytes', got: describe(value) })
}

function checkTtl(ttlSeconds: number | undefined): void {
  if (ttlSeconds === undefined || (Number.isFinite(ttlSeconds) && ttlSeconds > 0)) return
  throw new RangeError(messageOf({ place: 'ttlSeconds', expected: 'a number above 0', got: describe(ttlSeconds) }))
}
