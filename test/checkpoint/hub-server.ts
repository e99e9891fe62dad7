/**
 * A hub for tests: small files come from the hub itself, large ones by a redirect, which tells tag and length, to a store on another
 * origin. The store refuses HEAD and has ETags of its own, as stores do.
 */
import { serve, startServer, type Served, type TestServer } from './http-server.ts'

export interface HubFileOnServer extends Served {
  readonly etag: string
  /** Whether it is kept in the store. */
  readonly isLarge?: boolean
}

export interface TestHub {
  readonly host: string
  readonly hub: TestServer
  readonly store: TestServer
  /** By path, e.g. `owner/name/resolve/main/config.json`; to be changed between requests. */
  readonly files: Map<string, HubFileOnServer>
  /** Answers of the hub that come before any other, one request each. */
  readonly failures: { status: number; headers?: Record<string, string> }[]
  /** Runs when a request has come, before it is answered. */
  onRequest: (method: string, isStore: boolean) => void
  close(): Promise<void>
}

export async function startHub(): Promise<TestHub> {
  const files = new Map<string, HubFileOnServer>()
  const failures: TestHub['failures'] = []
  const store = await startServer((request, response) => {
    testHub.onRequest(request.method ?? '', true)
    const file = files.get(decodeURI((request.url ?? '').slice(1)))
    if (request.method === 'HEAD') response.writeHead(403).end()
    else if (file === undefined) response.writeHead(404).end()
    else serve(request, response, { ...file, etag: storeTag(file.etag) })
  })
  const hub = await startServer((request, response) => {
    testHub.onRequest(request.method ?? '', false)
    const path = decodeURI((request.url ?? '').slice(1))
    const file = files.get(path)
    const failure = failures.shift()
    if (failure !== undefined) response.writeHead(failure.status, failure.headers).end()
    else if (file === undefined) response.writeHead(404, { 'x-error-code': 'EntryNotFound' }).end('Entry not found')
    else if (file.isLarge) {
      const location = `http://localhost:${store.port}${request.url}`
      response.writeHead(302, { location, 'x-linked-etag': file.etag, 'x-linked-size': file.headers?.['x-linked-size'] ?? file.bytes.length }).end()
    } else serve(request, response, file)
  })
  const testHub: TestHub = {
    host: `http://127.0.0.1:${hub.port}`,
    hub,
    store,
    files,
    failures,
    onRequest: () => {},
    async close() {
      await Promise.all([hub.close(), store.close()])
    }
  }
  return testHub
}

export function storeTag(etag: string): string {
  return `"store-${etag.replaceAll('"', '')}"`
}
