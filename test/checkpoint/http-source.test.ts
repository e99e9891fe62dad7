/** Files on a web server, by a server on this machine: ranges, revisions, failures, redirects and the token. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { urlFiles } from '../../src/checkpoint/file-set.ts'
import { httpSource } from '../../src/checkpoint/http-source.ts'
import { openCheckpoint } from '../../src/checkpoint/open-checkpoint.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { folderFiles } from '../../src/platform/node-files.ts'
import { modelFolder } from './helpers.ts'
import { serve, startServer, type Served, type TestServer } from './http-server.ts'

const BYTES = Uint8Array.from({ length: 200_000 }, (_, i) => (i * 7919) >> 3)
const QUICK = { retries: 2, retryDelayMs: 1 }

const servers: TestServer[] = []
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()))
})

async function start(...handler: Parameters<typeof startServer>): Promise<TestServer> {
  const server = await startServer(...handler)
  servers.push(server)
  return server
}

/** A server of one file, which may change from one request to the next. */
async function startFile(served: () => Served) {
  const server = await start((request, response) => serve(request, response, served()))
  return { server, url: `http://127.0.0.1:${server.port}/model.safetensors` }
}

describe('httpSource', () => {
  test('reads ranges, each under the ETag of the first answer', async () => {
    const { server, url } = await startFile(() => ({ bytes: BYTES, etag: '"1"' }))
    const source = await httpSource(`${url}?secret=1#x`)
    expect(source).toMatchObject({ name: url, byteLength: 200_000 })
    for (const [from, to] of [[0, 10], [65_000, 65_536], [65_000, 65_537], [100_000, 100_000], [199_999, 200_000], [0, 200_000]]) {
      expect(Buffer.from(await source.read(from, to)).equals(BYTES.subarray(from, to)), `${from} to ${to}`).toBe(true)
    }
    expect(server.asked.map(({ method, path, headers }) => [method, path, headers.range, headers['if-range']])).toEqual([
      ['GET', '/model.safetensors?secret=1', 'bytes=0-65535', undefined],
      ['GET', '/model.safetensors?secret=1', 'bytes=65000-65536', '"1"'],
      ['GET', '/model.safetensors?secret=1', 'bytes=199999-199999', '"1"'],
      ['GET', '/model.safetensors?secret=1', 'bytes=0-199999', '"1"']
    ])
    await expect(source.read(0, 200_001)).rejects.toMatchObject({ name: 'CheckpointError', expected: 'at least 200001 bytes' })
  })

  test('opens a checkpoint by its address', async () => {
    const server = await start((request, response) => {
      const name = (request.url ?? '').replace('/models/tiny/', '')
      try {
        serve(request, response, { bytes: readFileSync(join(modelFolder('mamba_sharded'), name)), etag: `"${name}"` })
      } catch {
        response.writeHead(404).end('no such file')
      }
    })
    const remote = await openCheckpoint(urlFiles(`http://127.0.0.1:${server.port}/models/tiny`))
    const local = await openCheckpoint(folderFiles(modelFolder('mamba_sharded')))
    expect(remote.tensors.size).toBe(32)
    for (const [name, entry] of local.tensors) {
      expect(await readWholeTensor(remote.tensors.get(name)!), name).toEqual(await readWholeTensor(entry))
    }
    expect(await remote.files.open('tokenizer.json')).toBeUndefined()
    await local.close()
  })

  test.each([
    ['answers 200, as If-Range asks', { etag: '"2"' }],
    ['answers 206 with another ETag', { etag: '"2"', headers: { etag: '"2"' } }],
    ['has another date', { etag: undefined, lastModified: 'Tue, 02 Jan 2024 00:00:00 GMT' }],
    ['has another length', { etag: '"1"', bytes: BYTES.subarray(1) }]
  ])('refuses a file that changed: the server %s', async (how, change: Partial<Served>) => {
    const first: Served = { bytes: BYTES, etag: change.etag === undefined ? undefined : '"1"', lastModified: 'Mon, 01 Jan 2024 00:00:00 GMT' }
    let served = first
    const server = await start((request, response) => {
      // A server that ignores If-Range.
      if (how.startsWith('answers 206')) delete request.headers['if-range']
      serve(request, response, served)
    })
    const source = await httpSource(`http://127.0.0.1:${server.port}/m`)
    await source.read(100_000, 100_010)
    served = { ...first, ...change }
    await expect(source.read(100_000, 100_010)).rejects.toMatchObject({
      name: 'CheckpointError',
      got: 'another revision: the file changed while it was read'
    })
  })

  test('sends the date instead of a weak ETag', async () => {
    const lastModified = 'Mon, 01 Jan 2024 00:00:00 GMT'
    const { server, url } = await startFile(() => ({ bytes: BYTES, etag: 'W/"1"', lastModified }))
    await (await httpSource(url)).read(100_000, 100_001)
    expect(server.asked[1].headers['if-range']).toBe(lastModified)
  })

  test.each(['bytes 0-9/200000', 'bytes 100000-100010/200000', 'bytes 100000-100009/*', '100000-100009/200000', 'bytes 100009-100000/200000', 'items 1-2/3', ''])(
    'refuses the Content-Range %j',
    async (contentRange) => {
      let headers = {}
      const { url } = await startFile(() => ({ bytes: BYTES, etag: '"1"', headers }))
      const source = await httpSource(url)
      headers = { 'content-range': contentRange }
      await expect(source.read(100_000, 100_010)).rejects.toMatchObject({ name: 'CheckpointError', place: `${url}, Content-Range`, got: contentRange })
    }
  )

  test('reads the whole file once from a server without ranges', async () => {
    const { server, url } = await startFile(() => ({ bytes: BYTES, ranges: false }))
    const source = await httpSource(url)
    expect(Buffer.from(await source.read(0, 200_000)).equals(BYTES)).toBe(true)
    expect(Buffer.from(await source.read(150_000, 150_001)).equals(BYTES.subarray(150_000, 150_001))).toBe(true)
    expect(server.asked).toHaveLength(1)
  })

  test('reads a whole file of unannounced length, and refuses one beyond 2 GiB by its announcement', async () => {
    const chunked = await start((_, response) => {
      response.write(BYTES.subarray(0, 1000))
      response.end(BYTES.subarray(1000))
    })
    const source = await httpSource(`http://127.0.0.1:${chunked.port}/`)
    expect(Buffer.from(await source.read(0, source.byteLength)).equals(BYTES)).toBe(true)
    const huge = await start((_, response) => {
      response.writeHead(200, { 'content-length': 2 ** 31 })
      response.write('x')
    })
    await expect(httpSource(`http://127.0.0.1:${huge.port}/`)).rejects.toMatchObject({ name: 'CheckpointError', got: '2147483648 bytes' })
  })

  test('reads an empty file and a small one', async () => {
    const empty = await startFile(() => ({ bytes: new Uint8Array(0) }))
    expect((await httpSource(empty.url)).byteLength).toBe(0)
    const small = await startFile(() => ({ bytes: BYTES.subarray(0, 3) }))
    expect([...(await (await httpSource(small.url)).read(0, 3))]).toEqual([...BYTES.subarray(0, 3)])
    expect(small.server.asked).toHaveLength(1)
  })

  test('tries again when the connection is cut, at each point, but not for ever', async () => {
    let cutAfter: number | undefined = 100
    const { server, url } = await startFile(() => {
      const served = { bytes: BYTES, etag: '"1"', cutAfter }
      cutAfter = undefined
      return served
    })
    const source = await httpSource(url, QUICK)
    cutAfter = 5
    expect(Buffer.from(await source.read(100_000, 200_000)).equals(BYTES.subarray(100_000))).toBe(true)
    expect(server.asked).toHaveLength(4)
    const always = await startFile(() => ({ bytes: BYTES, ranges: false, cutAfter: 100 }))
    await expect(httpSource(always.url, QUICK)).rejects.toMatchObject({ name: 'CheckpointError', place: always.url, expected: 'the whole file from its server' })
    expect(always.server.asked).toHaveLength(3)
  })

  test.each([
    ['a part', { status: 206, headers: { 'content-range': 'bytes 0-5/6' } }],
    ['the whole', { status: 200, headers: { 'content-length': '6' } }]
  ])('tries again when the body of %s ends early, and refuses one that goes on', async (_, init) => {
    let bodies = ['abc', 'abcdef']
    const fetch = async () => new Response(bodies.shift(), init)
    const source = await httpSource('https://host/m', { ...QUICK, fetch })
    expect(Buffer.from(await source.read(0, source.byteLength)).toString()).toBe('abcdef')
    bodies = ['abcdefg', 'abcdef']
    await expect(httpSource('https://host/m', { ...QUICK, fetch })).rejects.toMatchObject({ name: 'CheckpointError', expected: '6 bytes', got: 'more' })
  })

  test.each([
    [500, 3],
    [503, 3],
    [429, 3],
    [400, 1],
    [401, 1],
    [403, 1],
    [404, 1]
  ])('says so when the status is %i, after %i tries', async (status, tries) => {
    const server = await start((_, response) => response.writeHead(status).end('body'))
    const url = `http://127.0.0.1:${server.port}/m`
    await expect(httpSource(url, QUICK)).rejects.toMatchObject({ name: 'CheckpointError', place: url, got: expect.stringContaining(`status ${status}`) })
    expect(server.asked).toHaveLength(tries)
  })

  test('says so when nobody answers', async () => {
    const server = await startServer(() => {})
    await server.close()
    await expect(httpSource(`http://127.0.0.1:${server.port}/m`, QUICK)).rejects.toMatchObject({
      name: 'CheckpointError',
      got: `no answer from http://127.0.0.1:${server.port} (ECONNREFUSED)`
    })
  })

  test('stops when aborted: before, while it waits for an answer, in a body, between tries', async () => {
    const reason = new Error('enough')
    const silent = await start(() => {})
    const slow = await start((_, response) => {
      response.writeHead(206, { 'content-length': 10, 'content-range': 'bytes 0-9/10' })
      response.write('12345')
    })
    const failing = await start((_, response) => response.writeHead(500).end())
    await expect(httpSource(`http://127.0.0.1:${silent.port}/`, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    expect(silent.asked).toHaveLength(0)
    for (const { port } of [silent, slow, failing]) {
      const controller = new AbortController()
      setTimeout(() => controller.abort(reason), 100)
      await expect(httpSource(`http://127.0.0.1:${port}/`, { signal: controller.signal, retryDelayMs: 60_000 })).rejects.toBe(reason)
    }
  })
})

describe('a token', () => {
  test('goes along a redirect within an origin, not to another, and not back again', async () => {
    const other = await start((request, response) => {
      if (request.url === '/back') response.writeHead(302, { location: `http://127.0.0.1:${own.port}/file` }).end()
      else serve(request, response, { bytes: BYTES, etag: '"1"' })
    })
    const own = await start((request, response) => {
      if (request.url === '/a') response.writeHead(307, { location: '/b' }).end()
      else if (request.url === '/b') response.writeHead(302, { location: `http://localhost:${other.port}/file` }).end()
      else if (request.url === '/c') response.writeHead(302, { location: `http://127.0.0.1:${other.port}/back` }).end()
      else serve(request, response, { bytes: BYTES, etag: '"1"' })
    })
    const source = await httpSource(`http://127.0.0.1:${own.port}/a`, { token: 'hf_secret' })
    await source.read(100_000, 100_001)
    expect(tokens(own)).toEqual(Array(4).fill('Bearer hf_secret'))
    expect(tokens(other)).toEqual([undefined, undefined])
    own.asked.length = 0
    await httpSource(`http://127.0.0.1:${own.port}/c`, { token: 'hf_secret' })
    expect(tokens(own)).toEqual(['Bearer hf_secret', undefined])
    expect(tokens(other)).toEqual([undefined, undefined, undefined])
    // Another host of the same port is another origin.
    own.asked.length = 0
    const sameServer = await start((request, response) => {
      if (request.url === '/a') response.writeHead(302, { location: `http://localhost:${sameServer.port}/b` }).end()
      else serve(request, response, { bytes: BYTES })
    })
    await httpSource(`http://127.0.0.1:${sameServer.port}/a`, { token: 'hf_secret' })
    expect(tokens(sameServer)).toEqual(['Bearer hf_secret', undefined])
  })

  test('is in no message', async () => {
    const server = await start((_, response) => response.writeHead(403).end())
    const error: unknown = await httpSource(`http://127.0.0.1:${server.port}/m?sig=hf_secret`, { token: 'hf_secret' }).catch((error: unknown) => error)
    expect(String(error)).toContain('status 403')
    expect(String(error)).not.toContain('hf_secret')
    await expect(httpSource(`http://127.0.0.1:${server.port}/`, { token: 'hf_secret\r\nx: y' })).rejects.toSatisfy(
      (error) => error instanceof TypeError && !error.message.includes('hf_secret')
    )
  })
})

describe('redirects', () => {
  test.each(['file:///etc/passwd', 'data:,x', 'http://'])('to %s lead nowhere', async (location) => {
    await expect(httpSource('http://host/m', { fetch: redirecting(location) })).rejects.toMatchObject({ name: 'CheckpointError', place: 'http://host/m' })
  })

  test('from https stay on https', async () => {
    await expect(httpSource('https://host/m', { fetch: redirecting('http://host/m') })).rejects.toMatchObject({ expected: 'a redirect to https:', got: '"http:"' })
  })

  test('end after ten', async () => {
    let count = 0
    const fetch = () => {
      count++
      return redirecting(`/${count}`)()
    }
    await expect(httpSource('https://host/m', { fetch })).rejects.toMatchObject({ expected: 'at most 10 redirects' })
    expect(count).toBe(11)
  })

  test('that the runtime does not show are not followed with a token, and left to it without', async () => {
    const modes: unknown[] = []
    const fetch = async (_: unknown, init?: RequestInit) => {
      modes.push(init?.redirect)
      const response = new Response('abc')
      if (init?.redirect === 'manual') Object.defineProperty(response, 'type', { value: 'opaqueredirect' })
      return response
    }
    await expect(httpSource('https://host/m', { fetch, token: 't' })).rejects.toMatchObject({ name: 'UnsupportedError' })
    expect(modes).toEqual(['manual'])
    expect((await httpSource('https://host/m', { fetch })).byteLength).toBe(3)
    expect(modes).toEqual(['manual', 'manual', 'follow'])
  })
})

function tokens({ asked }: TestServer) {
  return asked.map(({ headers }) => headers.authorization)
}

function redirecting(location: string) {
  return async () => new Response(null, { status: 302, headers: { location } })
}
