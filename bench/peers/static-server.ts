/** Files for a page that is cross-origin isolated, without which a browser has no shared memory and so no threads. */

import { createReadStream, statSync } from 'node:fs'
import { once } from 'node:events'
import { createServer } from 'node:http'

export interface StaticServer {
  readonly origin: string
  readonly close: () => Promise<void>
}

/** `files`: paths by address path; an address that ends in / stands for the folder. */
export async function startStaticServer(files: ReadonlyMap<string, string>): Promise<StaticServer> {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost')
    const path = pathname === '/' ? undefined : pathOf(files, pathname)
    response.setHeader('Cross-Origin-Opener-Policy', 'same-origin')
    response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp')
    response.setHeader('Cross-Origin-Resource-Policy', 'same-origin')
    response.setHeader('Content-Type', contentType(pathname))
    if (pathname === '/') {
      response.end('<!doctype html><meta charset="utf-8"><title>peers</title>')
    } else if (path === undefined) {
      response.writeHead(404).end()
    } else {
      response.setHeader('Content-Length', statSync(path).size)
      if (request.method === 'HEAD') response.end()
      else createReadStream(path).pipe(response)
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return {
    // Browsers take localhost for a secure context, and so the 127 addresses.
    origin: `http://127.0.0.1:${address.port}`,
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    }
  }
}

function pathOf(files: ReadonlyMap<string, string>, pathname: string): string | undefined {
  const own = files.get(pathname)
  if (own !== undefined) return own
  for (const [prefix, folder] of files) {
    if (prefix.endsWith('/') && pathname.startsWith(prefix) && !pathname.includes('..')) return folder + pathname.slice(prefix.length)
  }
  return undefined
}

function contentType(pathname: string): string {
  if (/\.m?js$/.test(pathname)) return 'text/javascript'
  return pathname.endsWith('.wasm') ? 'application/wasm' : pathname === '/' ? 'text/html' : 'application/octet-stream'
}
