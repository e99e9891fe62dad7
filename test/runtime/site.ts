/** A static web server for the browsers' pages, which send their report back to it. */

import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join, normalize } from 'node:path'

const TYPES: Readonly<Record<string, string>> = { '.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript', '.wasm': 'application/wasm', '.json': 'application/json' }
/** With them a page has shared memory. */
const ISOLATION = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' }

export interface Site {
  readonly address: string
  /** What a page posted to /report. */
  readonly report: Promise<string>
  close(): Promise<void>
}

/** Serves the files of `folder`. */
export async function serveSite(folder: string, { isIsolated }: { readonly isIsolated: boolean }): Promise<Site> {
  let onReport: (text: string) => void
  const report = new Promise<string>((resolve) => {
    onReport = resolve
  })
  const server = createServer((request, response) => {
    void (async () => {
      const { pathname } = new URL(request.url ?? '/', 'http://site')
      if (request.method === 'POST' && pathname === '/report') {
        onReport(await bodyText(request))
        response.end()
        return
      }
      const bytes = await readFile(join(folder, normalize(pathname))).catch(() => undefined)
      response.writeHead(bytes === undefined ? 404 : 200, {
        'content-type': TYPES[extname(pathname)] ?? 'application/octet-stream',
        'content-length': bytes?.byteLength ?? 0,
        // As a hub has it: what a download is known by.
        etag: `"${pathname}"`,
        ...(isIsolated ? ISOLATION : {})
      })
      response.end(bytes)
    })()
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  // Node gives a port for a server on TCP.
  const { port } = server.address() as AddressInfo
  return { address: `http://127.0.0.1:${port}`, report, close: () => closeServer(server) }
}

async function bodyText(request: IncomingMessage): Promise<string> {
  const chunks: Uint8Array[] = []
  for await (const chunk of request as AsyncIterable<Uint8Array>) chunks.push(chunk)
  return Buffer.concat(chunks).toString('utf8')
}

async function closeServer(server: Server): Promise<void> {
  server.closeAllConnections()
  await new Promise<void>((resolve) => {
    server.close(() => resolve())
  })
}
