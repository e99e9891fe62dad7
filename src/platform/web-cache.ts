/** Downloads kept in a browser's Cache API: one cache, an entry for each key. */

import { blobSource } from '../checkpoint/byte-source.ts'
import { type FileCache, NoRoomError, type PartialFile } from '../checkpoint/file-cache.ts'

/** The Cache API wants addresses; nothing is ever asked of this one. */
const ORIGIN = 'https://mamba-wasm.invalid/'

/** Of an entry: a body's own length is known only when it was read. */
const LENGTH_HEADER = 'x-byte-length'

/**
 * The cache of this name; undefined where there is no Cache API, e.g. on a page that is not secure.
 * An entry appears when its file is complete. A download that ends early leaves nothing: it starts over.
 */
export function cacheStorageFiles(name = 'mamba-wasm'): FileCache | undefined {
  if (typeof caches === 'undefined') return undefined
  const match = async (key: string): Promise<Response | undefined> => (await caches.open(name)).match(ORIGIN + key)
  const put = async (key: string, body: string | ReadableStream<Uint8Array>, byteLength: number): Promise<void> => {
    try {
      await (await caches.open(name)).put(ORIGIN + key, new Response(body, { headers: { [LENGTH_HEADER]: `${byteLength}` } }))
    } catch (error) {
      if (error instanceof Error && error.name === 'QuotaExceededError') throw new NoRoomError('no room in what the browser lends this page (QuotaExceededError)', { cause: error })
      throw error
    }
  }
  return {
    name: `the cache ${name}`,
    readRecord: async (key) => (await match(key))?.text(),
    writeRecord: (key, text) => put(key, text, new TextEncoder().encode(text).byteLength),
    async openFile(key) {
      const blob = await (await match(key))?.blob()
      return blob && blobSource(blob, key)
    },
    async openPart(key, { byteLength }) {
      await checkRoom(byteLength)
      return streamedPart((stream) => put(key, stream, byteLength))
    },
    async removeOthers(key) {
      const cache = await caches.open(name)
      const folder = ORIGIN + key.slice(0, key.lastIndexOf('/') + 1)
      const kept = [ORIGIN + key, `${folder}record.json`]
      for (const { url } of await cache.keys()) if (url.startsWith(folder) && !kept.includes(url)) await cache.delete(url)
    },
    async list() {
      // Asking for its entries would make it.
      if (!(await caches.has(name))) return []
      const cache = await caches.open(name)
      const keys = (await cache.keys()).filter(({ url }) => url.startsWith(ORIGIN))
      return Promise.all(keys.map(async (request) => {
        const response = await cache.match(request)
        const told = response?.headers.get(LENGTH_HEADER) ?? null
        return { key: request.url.slice(ORIGIN.length), byteLength: told === null ? ((await response?.blob())?.size ?? 0) : Number(told) }
      }))
    },
    async remove(key) {
      await (await caches.open(name)).delete(ORIGIN + key)
    }
  }
}

/** What is known not to fit need not be downloaded first. */
async function checkRoom(byteLength: number): Promise<void> {
  const { quota = Infinity, usage = 0 } = (await globalThis.navigator?.storage?.estimate()) ?? {}
  if (usage + byteLength > quota) throw new NoRoomError(`no room in what the browser lends this page (${quota - usage} of ${quota} bytes left, ${byteLength} needed)`)
}

/** Bytes go to `store` as they come, each piece behind the one before: no file is ever whole in memory. */
function streamedPart(store: (stream: ReadableStream<Uint8Array>) => Promise<void>): PartialFile {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>()
  const writer = writable.getWriter()
  const stored = store(readable)
  // Reported where it is awaited.
  stored.catch((error) => writer.abort(error))
  /** Where the store gave up, the stream says no more than that: the reason is the store's. */
  const orReason = async (writing: Promise<void>): Promise<void> => {
    try {
      await writing
    } catch (error) {
      await stored
      throw error
    }
  }
  return {
    byteLength: 0,
    write: (bytes) => orReason(writer.write(bytes)),
    async finish() {
      await orReason(writer.close())
      await stored
    },
    async abandon() {
      await writer.abort().catch(() => {})
      await stored.catch(() => {})
    }
  }
}
