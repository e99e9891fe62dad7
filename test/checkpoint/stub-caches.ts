/** A Cache API in memory, as far as it is used; with a limit, one whose quota is so many bytes an entry. */

export function stubCaches(limitBytes = Infinity): CacheStorage {
  const stores = new Map<string, Map<string, Response>>()
  const storeOf = (name: string): Map<string, Response> => {
    const store = stores.get(name) ?? new Map<string, Response>()
    stores.set(name, store)
    return store
  }
  const urlOf = (request: RequestInfo | URL): string => (request instanceof Request ? request.url : String(request))
  const cacheOf = (store: Map<string, Response>): Partial<Cache> => ({
    match: async (request) => store.get(urlOf(request))?.clone(),
    async put(request, response) {
      const chunks: Uint8Array<ArrayBuffer>[] = []
      let byteLength = 0
      for await (const chunk of response.body ?? []) {
        byteLength += chunk.byteLength
        if (byteLength > limitBytes) throw new DOMException('Quota exceeded.', 'QuotaExceededError')
        chunks.push(chunk)
      }
      store.set(urlOf(request), new Response(new Blob(chunks), { headers: response.headers }))
    },
    delete: async (request) => store.delete(urlOf(request)),
    keys: async () => [...store.keys()].map((url) => new Request(url))
  })
  const caches: Partial<CacheStorage> = {
    open: async (name) => cacheOf(storeOf(name)) as Cache,
    has: async (name) => stores.has(name)
  }
  return caches as CacheStorage
}
