/** The hub's layout and answers: what is asked, what is refused, where the token goes. */
import { readdirSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { hubFiles } from '../../src/checkpoint/hub.ts'
import { openCheckpoint } from '../../src/checkpoint/open-checkpoint.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { folderCache } from '../../src/platform/node-cache.ts'
import { modelFiles, utf8 } from './helpers.ts'
import { CONFIG, ID, WEIGHTS, answering, asked, bytesOf, contents, failTimes, folder, hub, partNames, server } from './hub-fixture.ts'
import { startHub } from './hub-server.ts'

describe('hubFiles', () => {
  test('opens a checkpoint, and asks for the headers alone the next time', async () => {
    for (const [name, bytes] of Object.entries(modelFiles('mamba'))) {
      server.files.set(`${ID}/resolve/main/${name}`, { bytes, etag: `"${name}"`, isLarge: name.endsWith('.safetensors') })
    }
    for (const methods of [['HEAD', 'GET', 'HEAD', 'GET', 'GET'], ['HEAD', 'HEAD']]) {
      const checkpoint = await openCheckpoint(hub())
      expect(checkpoint.name).toBe(ID)
      expect(checkpoint.tensors.size).toBe(32)
      const entry = checkpoint.tensors.get('backbone.norm_f.weight')!
      expect(entry.source.name).toBe(`${ID}/model.safetensors`)
      expect(await readWholeTensor(entry)).toHaveLength(32)
      await checkpoint.close()
      expect(asked().map(({ method }) => method)).toEqual(methods)
    }
    expect(await hub().open('tokenizer.json')).toBeUndefined()
  })

  test('sends the token to the hub and never to the store', async () => {
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true, cutAfter: 1_000_000 })
    const cached = await hub({ token: 'hf_secret', retries: 20 }).open('model.safetensors')
    await cached!.close()
    const remote = await hub({ token: 'hf_secret', cache: undefined }).open('model.safetensors')
    await remote!.read(100_000, 200_000)
    const requests = asked()
    const ofHub = requests.filter(({ name }) => name === 'hub')
    const ofStore = requests.filter(({ name }) => name === 'store')
    expect(ofHub.length).toBeGreaterThan(4)
    expect(ofStore.length).toBeGreaterThan(2)
    expect(ofHub.every(({ token }) => token === 'Bearer hf_secret')).toBe(true)
    expect(ofStore.every(({ token }) => token === undefined)).toBe(true)
  })

  test('reads by range where there is no cache', async () => {
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true })
    const source = await hub({ cache: undefined }).open('model.safetensors')
    expect(source).toMatchObject({ name: `${ID}/model.safetensors`, byteLength: 3_000_000 })
    expect(Buffer.from(await source!.read(2_000_000, 2_000_100)).equals(bytesOf(1).subarray(2_000_000, 2_000_100))).toBe(true)
    expect(await hub({ cache: undefined }).open('none')).toBeUndefined()
    expect(readdirSync(folder)).toEqual([])
  })

  test('keeps hosts, ids and revisions apart', async () => {
    const other = await startHub()
    const places = [`${ID}/resolve/main`, `${ID}/resolve/v1`, `${ID}/resolve/refs%2Fpr%2F1`, 'tiny/resolve/main']
    for (const [i, place] of places.entries()) {
      server.files.set(`${place}/config.json`, { bytes: utf8(`{"n": ${i}}`), etag: '"same"' })
      other.files.set(`${place}/config.json`, { bytes: utf8(`{"n": ${i + 5}}`), etag: '"same"' })
    }
    const cache = folderCache(folder)
    const texts: string[] = []
    for (const host of [server.host, other.host]) {
      for (const revision of ['main', 'v1', 'refs/pr/1']) texts.push(String(await contents(await hubFiles(ID, { host, revision, cache }).open('config.json'))))
      texts.push(String(await contents(await hubFiles('tiny', { host: `${host}/`, cache }).open('config.json'))))
    }
    expect(texts).toEqual([0, 1, 2, 3, 5, 6, 7, 8].map((n) => `{"n": ${n}}`))
    await other.close()
  })

  test.each(['', 'a/b/c', '../x', 'a/..', 'a/', '/a', 'a b', 'a--b', 'a..b', '-a', 'a/b?c', 'a/b#c', 'a%2Fb', 'a\\b', 'https://x', 'x'.repeat(97)])('refuses the id %j', (id) => {
    expect(() => hubFiles(id)).toThrow(RangeError)
  })

  test.each(['', '..', '../main', 'a/../b', 'a b', '/a', '-a', 'a?b', 'a\n'])('refuses the revision %j', (revision) => {
    expect(() => hubFiles(ID, { revision })).toThrow(RangeError)
  })

  test('takes the ids that there are', () => {
    for (const id of ['gpt2', 'state-spaces/mamba-130m-hf', 'tiiuae/falcon-mamba-7b', 'a_b/c.d-e', 'x'.repeat(96)]) expect(hubFiles(id).name).toBe(id)
    expect(() => hubFiles(ID, { host: 'huggingface.co' })).toThrow(TypeError)
  })
})

describe('what a server says', () => {
  test.each([
    ['too long by the headers', { headers: { 'x-linked-size': '2999999' } }, '3000000 bytes'],
    ['too short by the headers', { headers: { 'x-linked-size': '3000001' } }, '3000000 bytes'],
    ['no length at all', { headers: { 'x-linked-size': 'many' } }, 'none']
  ])('of a length that is %s is refused', async (_, change, got) => {
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true, ...change })
    await expect(hub().open('model.safetensors')).rejects.toMatchObject({ name: 'CheckpointError', got })
    await expect(hub({ retries: 0 }).open('model.safetensors')).rejects.toMatchObject({ got })
    expect(partNames()).toEqual([])
  })

  test('of a length that the body exceeds is refused, and nothing of it kept', async () => {
    const fetch = answering((method) => [method === 'HEAD' ? '' : '{"a": 1}{"b": 2}', { etag: '"1"', 'content-length': '8' }])
    await expect(hub({ fetch }).open('config.json')).rejects.toMatchObject({ name: 'CheckpointError', expected: '8 bytes', got: 'more' })
    expect(partNames()).toEqual([])
  })

  test('of no revision is refused', async () => {
    const fetch = answering(() => ['{}', { 'content-length': '2' }])
    await expect(hub({ fetch }).open('config.json')).rejects.toMatchObject({ expected: 'an ETag or Last-Modified header' })
  })

  test.each([
    [401, 'RepoNotFound', 1],
    [403, 'GatedRepo', 1],
    [404, 'RepoNotFound', 1],
    [404, 'RevisionNotFound', 1],
    [500, 'Oops', 3],
    [503, 'Busy', 3]
  ])('by status %i (%s) is repeated, after %i tries', async (status, code, tries) => {
    server.files.set(CONFIG, { bytes: utf8('{}'), etag: '"1"' })
    failTimes(tries, { status, headers: { 'x-error-code': code } })
    await expect(hub().open('config.json')).rejects.toMatchObject({ name: 'CheckpointError', got: expect.stringContaining(`status ${status} (${code})`) })
    expect(server.hub.asked).toHaveLength(tries)
    expect(String(await contents(await hub().open('config.json')))).toBe('{}')
  })

  test.each([401, 403, 404])('by status %i counts, also where the cache has the file', async (status) => {
    server.files.set(CONFIG, { bytes: utf8('{}'), etag: '"1"' })
    await (await hub().open('config.json'))!.close()
    failTimes(1, { status, headers: { 'x-error-code': 'RepoNotFound' } })
    await expect(hub().open('config.json')).rejects.toMatchObject({ name: 'CheckpointError', got: `status ${status} (RepoNotFound)` })
  })

  test('in passing does not matter', async () => {
    server.files.set(CONFIG, { bytes: utf8('{}'), etag: '"1"' })
    server.failures.push({ status: 502 }, { status: 429 })
    expect(String(await contents(await hub().open('config.json')))).toBe('{}')
  })

  test('by date alone will do, and an empty file is a file', async () => {
    const fetch = answering(() => ['', { 'last-modified': 'Mon, 01 Jan 2024 00:00:00 GMT', 'content-length': '0' }])
    expect(await contents(await hub({ fetch }).open('config.json'))).toHaveLength(0)
  })
})
