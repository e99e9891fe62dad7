/** What downloads leave: listed, deleted; and a disk or a browser without room. */
import { existsSync, mkdirSync, readdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { deleteCachedFiles, listCachedFiles } from '../../src/cached-files.ts'
import { folderKey, parseKey } from '../../src/checkpoint/cache-keys.ts'
import { hubFiles, type HubProgress } from '../../src/checkpoint/hub.ts'
import { cacheStorageFiles } from '../../src/platform/web-cache.ts'
import { utf8 } from './helpers.ts'
import { CONFIG, ID, WEIGHTS, asked, bytesOf, contents, filesOfSize, folder, hub, partNames, server } from './hub-fixture.ts'
import { stubCaches } from './stub-caches.ts'

const LARGE = { bytes: bytesOf(1), etag: '"1"', isLarge: true }

afterEach(() => {
  vi.unstubAllGlobals()
})

describe('keys', () => {
  test.each([
    { host: 'huggingface.co', model: 'state-spaces/mamba-130m-hf', revision: 'main', file: 'model.safetensors' },
    { host: 'http://127.0.0.1:80/a', model: 'name', revision: 'refs/pr/1', file: 'a b%.json' }
  ])('$host $model', (name) => {
    const folder = folderKey(name)
    expect(folder.split('/')).toHaveLength(4)
    expect(parseKey(`${folder}/record.json`)).toEqual({ name, isComplete: false })
    expect(parseKey(`${folder}/${'0a'.repeat(32)}`)).toEqual({ name, isComplete: true })
    for (const end of ['.validator', '.12.a-b.part', '.validator.12.a-b.tmp']) expect(parseKey(`${folder}/${'0a'.repeat(32)}${end}`)?.isComplete).toBe(false)
  })

  test.each(['', 'a', 'a/b/c/d/e', 'a/b/c/d/record.json.bak', `a/b/c/${'0a'.repeat(32)}`, '%/b/c/d/record.json', 'a/b/c/d/e/record.json'])('of others: %s', (key) => {
    expect(parseKey(key)).toBeUndefined()
  })
})

/** The same for both kinds of cache. */
async function expectListedAndDeleted(options: { readonly cacheFolder: string }, open: (id: string) => ReturnType<typeof hubFiles>): Promise<void> {
  expect(await listCachedFiles(options)).toEqual([])
  server.files.set(WEIGHTS, LARGE)
  server.files.set(CONFIG, { bytes: utf8('{}'), etag: '"2"' })
  server.files.set('other/model/resolve/main/config.json', { bytes: utf8('{"a": 1}'), etag: '"3"' })
  for (const file of ['model.safetensors', 'config.json']) await contents(await open(ID).open(file))
  await contents(await open('other/model').open('config.json'))
  const host = server.host
  const files = await listCachedFiles(options)
  expect(files).toMatchObject([
    { host, model: 'other/model', revision: 'main', file: 'config.json', isComplete: true },
    { host, model: ID, revision: 'main', file: 'config.json', isComplete: true },
    { host, model: ID, revision: 'main', file: 'model.safetensors', isComplete: true }
  ])
  expect(files[2].byteLength).toBeGreaterThan(3_000_000)
  expect(files[2].byteLength).toBeLessThan(3_000_300)
  expect(await listCachedFiles({ ...options, file: 'config.json' })).toEqual(files.slice(0, 2))
  expect(await deleteCachedFiles({ ...options, model: ID })).toEqual(files.slice(1))
  expect(await listCachedFiles(options)).toEqual(files.slice(0, 1))
  asked()
  await contents(await open(ID).open('config.json'))
  expect(asked().map(({ method }) => method)).toEqual(['HEAD', 'GET'])
  expect(await deleteCachedFiles(options)).toHaveLength(2)
  expect(await listCachedFiles(options)).toEqual([])
}

describe('in a folder', () => {
  test('are listed and deleted, and nothing else that is there', async () => {
    const cacheFolder = join(folder, 'cache')
    const { folderCache } = await import('../../src/platform/node-cache.ts')
    await expectListedAndDeleted({ cacheFolder }, (id) => hubFiles(id, { host: server.host, cache: folderCache(cacheFolder), retries: 0 }))
    expect(readdirSync(cacheFolder)).toEqual([])
    for (const path of ['mine', 'a/b/c/d']) mkdirSync(join(cacheFolder, path), { recursive: true })
    for (const path of ['mine/record.json', 'a/b/c/d/notes.txt']) writeFileSync(join(cacheFolder, path), 'mine')
    expect(await listCachedFiles({ cacheFolder })).toEqual([])
    expect(await deleteCachedFiles({ cacheFolder })).toEqual([])
    expect(existsSync(join(cacheFolder, 'mine/record.json')) && existsSync(join(cacheFolder, 'a/b/c/d/notes.txt'))).toBe(true)
  })

  test('a part that was left is one, a part that is being written is not', async () => {
    server.files.set(WEIGHTS, { ...LARGE, cutAfter: 1_500_000 })
    await expect(hub({ retries: 0 }).open('model.safetensors')).rejects.toMatchObject({ name: 'CheckpointError' })
    const options = { cacheFolder: folder }
    const [left] = await listCachedFiles(options)
    expect(left).toMatchObject({ file: 'model.safetensors', isComplete: false })
    expect(left.byteLength).toBeGreaterThan(0)
    const [part] = partNames()
    const ofThisProcess = part.replace(/\.0\.([^.]+)\.part$/, `.${process.pid}.$1.part`)
    renameSync(join(folder, part), join(folder, ofThisProcess))
    await deleteCachedFiles(options)
    expect(partNames()).toEqual([ofThisProcess])
    renameSync(join(folder, ofThisProcess), join(folder, part))
    await deleteCachedFiles(options)
    expect(partNames()).toEqual([])
  })

  test('a full disk: the file is read from its server, and whoever listens is told', async () => {
    // A part that was left, on a device that is always full.
    server.files.set(WEIGHTS, LARGE)
    await contents(await hub().open('model.safetensors'))
    const [path] = filesOfSize(3_000_000)
    server.files.set(WEIGHTS, { ...LARGE, etag: '"1"' })
    await deleteCachedFiles({ cacheFolder: folder })
    mkdirSync(join(path, '..'), { recursive: true })
    symlinkSync('/dev/full', `${path}.0.1-2-3.part`)
    const progress: HubProgress[] = []
    const source = await hub({ onProgress: (event) => progress.push(event) }).open('model.safetensors')
    expect((await contents(source)).equals(Buffer.from(bytesOf(1)))).toBe(true)
    expect(progress.find(({ notKept }) => notKept !== undefined)).toEqual({ file: 'model.safetensors', loadedBytes: 0, totalBytes: 3_000_000, notKept: 'no room on the disk (ENOSPC)' })
    expect(partNames()).toEqual([])
    expect(await listCachedFiles({ cacheFolder: folder })).toMatchObject([{ isComplete: false }])
    // The next time there is room.
    await contents(await hub().open('model.safetensors'))
    expect(await listCachedFiles({ cacheFolder: folder })).toMatchObject([{ isComplete: true }])
  })
})

describe('in a browser’s cache', () => {
  const open = (id: string) => hubFiles(id, { host: server.host, cache: cacheStorageFiles('some'), retries: 0 })

  test('are listed and deleted', async () => {
    vi.stubGlobal('caches', stubCaches())
    vi.doMock('#platform', async () => import('../../src/platform/web.ts'))
    vi.resetModules()
    const web = await import('../../src/cached-files.ts')
    expect(await web.listCachedFiles()).toEqual([])
    server.files.set(CONFIG, { bytes: utf8('{}'), etag: '"2"' })
    await contents(await open(ID).open('config.json'))
    const [file] = await web.listCachedFiles({ cacheFolder: 'some' })
    expect(file).toMatchObject({ host: server.host, model: ID, file: 'config.json', isComplete: true })
    expect(await web.deleteCachedFiles({ cacheFolder: 'some' })).toEqual([file])
    expect(await web.listCachedFiles({ cacheFolder: 'some' })).toEqual([])
    vi.doUnmock('#platform')
  })

  test.each([
    ['known before', { quota: 1_000_000, usage: 10 }, 0, /1000000 bytes left|999990 of 1000000 bytes left, 3000000 needed/],
    ['found on the way', { quota: 1e9, usage: 10 }, 1_000_000, /QuotaExceededError/]
  ])('no room, %s: the file is read from its server, and whoever listens is told', async (_, estimate, limit, message) => {
    vi.stubGlobal('caches', stubCaches(limit))
    vi.stubGlobal('navigator', { storage: { estimate: async () => estimate } })
    server.files.set(WEIGHTS, LARGE)
    const progress: HubProgress[] = []
    const files = hubFiles(ID, { host: server.host, cache: cacheStorageFiles(), retries: 0, onProgress: (event) => progress.push(event) })
    expect((await contents(await files.open('model.safetensors'))).equals(Buffer.from(bytesOf(1)))).toBe(true)
    expect(progress.map(({ notKept }) => notKept).filter((reason) => reason !== undefined)).toEqual([expect.stringMatching(message)])
    expect((await cacheStorageFiles()?.list())?.filter(({ byteLength }) => byteLength > 1000)).toEqual([])
  })
})
