/** Downloads kept in a browser's Cache API: one cache, an entry for each key. */

import { blobSource } from '../checkpoint/byte-source.ts'
import type { FileCache, PartialFile } from '../checkpoint/file-cache.ts'

/** The Cache API wants addresses; nothing is ever asked of this one. */
const ORIGIN = 'https://mamba-wasm.invalid/'

/**
 * The cache of this name; undefined where there is no Cache API, e.g. on a page that is not secure.
 * An entry appears when its file is complete. A download that ends early leaves nothing: it starts over.
 */
export function cacheStorageFiles(name = 'mamba-wasm'): FileCache | undefined {
  if (typeof caches === 'undefined') return undefined
  const match = async (key: string): Promise<Response | undefined> => (await caches.open(name)).match(ORIGIN + key)
  const put = async (key: string, body: string | ReadableStream<Uint8Array>): Promise<void> => (await caches.open(name)).put(ORIGIN + key, new Response(body))
  return {
    name: `the cache ${name}`,
    readRecord: async (key) => (await match(key))?.text(),
    writeRecord: put,
    async openFile(key) {
      const blob = await (await match(key))?.blob()
      return blob && blobSource(blob, key)
    },
    openPart: async (key) => streamedPart((stream) => put(key, stream)),
    async removeOthers(key) {
      const cache = await caches.open(name)
      const folder = ORIGIN + key.slice(0, key.lastIndexOf('/') + 1)
      const kept = [ORIGIN + key, `${folder}record.json`]
      for (const { url } of await cache.keys()) if (url.startsWith(folder) && !kept.includes(url)) await cache.delete(url)
    }
  }
}

/** Bytes go to `store` as they come, each piece behind the one before: no file is ever whole in memory. */
function streamedPart(store: (stream: ReadableStream<Uint8Array>) => Promise<void>): PartialFile {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>()
  const writer = writable.getWriter()
  const stored = store(readable)
  // Reported where it is awaited.
  stored.catch((error) => writer.abort(error))
  return {
    byteLength: 0,
    write: (bytes) => writer.write(bytes),
    async finish() {
      await writer.close()
      await stored
    },
    async abandon() {
      await writer.abort()
      await stored.catch(() => {})
    }
  }
}
