/** A web server for tests: it writes down what is asked, and serves bytes by RFC 9110's rules for ranges, or breaks them as told. */
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'

export interface Asked {
  readonly method: string
  readonly path: string
  readonly headers: IncomingHttpHeaders
}

export interface TestServer {
  readonly port: number
  readonly asked: Asked[]
  close(): Promise<void>
}

export interface Served {
  readonly bytes: Uint8Array
  readonly etag?: string | undefined
  readonly lastModified?: string | undefined
  /** Whether ranges are honoured. Default: true. */
  readonly ranges?: boolean | undefined
  /** The connection is cut after so many bytes of the body. */
  readonly cutAfter?: number | undefined
  /** Sent instead of the true ones. */
  readonly headers?: Readonly<Record<string, string>> | undefined
}

export async function startServer(handle: (request: IncomingMessage, response: ServerResponse) => void): Promise<TestServer> {
  const asked: Asked[] = []
  const server = createServer((request, response) => {
    asked.push({ method: request.method ?? '', path: request.url ?? '', headers: request.headers })
    handle(request, response)
  })
  // Under `localhost` too, which is another origin.
  await new Promise<void>((resolve) => server.listen(0, resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return {
    port: address.port,
    asked,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
  }
}

export function serve(request: IncomingMessage, response: ServerResponse, served: Served): void {
  const { bytes, etag, lastModified, ranges = true, cutAfter, headers = {} } = served
  const condition = request.headers['if-range']
  const isCurrent = condition === undefined || condition === etag || condition === lastModified
  const range = ranges && isCurrent && request.method === 'GET' ? rangeOf(request.headers.range, bytes.length) : undefined
  if (range === 'none') {
    response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end()
    return
  }
  const body = range === undefined ? bytes : bytes.subarray(range.start, range.end)
  response.writeHead(range === undefined ? 200 : 206, {
    'content-length': body.length,
    ...(etag !== undefined && { etag }),
    ...(lastModified !== undefined && { 'last-modified': lastModified }),
    ...(range !== undefined && { 'content-range': `bytes ${range.start}-${range.end - 1}/${bytes.length}` }),
    ...headers
  })
  if (request.method === 'HEAD') response.end()
  else if (cutAfter === undefined) response.end(body)
  else response.write(body.subarray(0, cutAfter), () => setTimeout(() => response.destroy(), 50))
}

function rangeOf(header: string | undefined, byteLength: number): { start: number; end: number } | 'none' | undefined {
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(header ?? '') ?? []
  if (first === undefined) return undefined
  const start = Number(first)
  if (start >= byteLength) return 'none'
  return { start, end: last === '' ? byteLength : Math.min(Number(last) + 1, byteLength) }
}
