/** Downloads from a hub: cut, resumed, changed in between, aborted, at the same time, and without a server. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, renameSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import type { HubProgress } from '../../src/checkpoint/hub.ts'
import { defaultCacheFolder } from '../../src/platform/node-cache.ts'
import { utf8 } from './helpers.ts'
import { CONFIG, ID, WEIGHTS, answering, asked, bytesOf, contents, failTimes, filesOfSize, folder, hub, partNames, server } from './hub-fixture.ts'
import { storeTag } from './hub-server.ts'

/** Leaves a part of the weights in the cache, about half of them, and says where and how long it is. */
async function leavePart(): Promise<{ path: string; byteLength: number }> {
  server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true, cutAfter: 1_500_000 })
  await expect(hub({ retries: 0 }).open('model.safetensors')).rejects.toMatchObject({ name: 'CheckpointError' })
  const parts = partNames()
  expect(parts).toHaveLength(1)
  asked()
  const path = join(folder, parts[0])
  const byteLength = statSync(path).size
  // What was sent just before the cut may not have been read.
  expect(byteLength).toBeGreaterThan(0)
  expect(byteLength).toBeLessThanOrEqual(1_500_000)
  return { path, byteLength }
}

describe('a download that is cut', () => {
  test('is resumed at once, under the tag that the store gave', async () => {
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true, cutAfter: 1_000_000 })
    const progress: HubProgress[] = []
    const source = await hub({ retries: 20, onProgress: (event) => progress.push(event) }).open('model.safetensors')
    expect((await contents(source)).equals(bytesOf(1))).toBe(true)
    const [first, ...rest] = asked().filter(({ name }) => name === 'store')
    expect(first).toMatchObject({ range: 'bytes=0-', ifRange: undefined })
    expect(rest.length).toBeGreaterThanOrEqual(2)
    for (const { range, ifRange } of rest) {
      expect(range).not.toBe('bytes=0-')
      expect(ifRange).toBe(storeTag('1'))
    }
    expect(progress.every(({ file, totalBytes }) => file === 'model.safetensors' && totalBytes === 3_000_000)).toBe(true)
    expect(progress.map(({ loadedBytes }) => loadedBytes)).toEqual(progress.map(({ loadedBytes }) => loadedBytes).sort((a, b) => a - b))
    expect([progress[0].loadedBytes, progress.at(-1)!.loadedBytes]).toEqual([0, 3_000_000])
    expect(partNames()).toEqual([])
  })

  test('is resumed by a later one', async () => {
    const { byteLength } = await leavePart()
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true })
    expect((await contents(await hub().open('model.safetensors'))).equals(bytesOf(1))).toBe(true)
    expect(asked().at(-1)).toMatchObject({ name: 'store', range: `bytes=${byteLength}-`, ifRange: storeTag('1') })
    expect(partNames()).toEqual([])
  })

  test('starts over when the revision changed since', async () => {
    await leavePart()
    server.files.set(WEIGHTS, { bytes: bytesOf(2), etag: '"2"', isLarge: true })
    expect((await contents(await hub().open('model.safetensors'))).equals(bytesOf(2))).toBe(true)
    expect(asked().at(-1)).toMatchObject({ range: 'bytes=0-', ifRange: undefined })
    expect(partNames()).toEqual([])
  })

  test('starts over when the revision changes between the question and the answer', async () => {
    await leavePart()
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true })
    let requests = 0
    server.onRequest = () => {
      // The first HEAD sees the old revision, the GET after it the new one.
      if (++requests === 2) server.files.set(WEIGHTS, { bytes: bytesOf(2), etag: '"2"', isLarge: true })
    }
    expect((await contents(await hub().open('model.safetensors'))).equals(bytesOf(2))).toBe(true)
    expect(requests).toBeGreaterThan(4)
  })

  test('starts over when the store has the file under another tag', async () => {
    const { byteLength } = await leavePart()
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true })
    const validator = readdirSync(folder, { recursive: true, encoding: 'utf8' }).find((name) => name.endsWith('.validator'))!
    writeFileSync(join(folder, validator), '"another"')
    expect((await contents(await hub().open('model.safetensors'))).equals(bytesOf(1))).toBe(true)
    expect(asked().at(-1)).toMatchObject({ range: `bytes=${byteLength}-`, ifRange: '"another"' })
  })

  test('starts over where the server has no ranges', async () => {
    await leavePart()
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true, ranges: false })
    expect((await contents(await hub().open('model.safetensors'))).equals(bytesOf(1))).toBe(true)
  })

  test('is not resumed under a weak tag', async () => {
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: 'W/"1"', cutAfter: 1_500_000 })
    await expect(hub({ retries: 0 }).open('model.safetensors')).rejects.toMatchObject({ name: 'CheckpointError' })
    expect(partNames()).toEqual([])
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: 'W/"1"' })
    asked()
    expect((await contents(await hub().open('model.safetensors'))).equals(bytesOf(1))).toBe(true)
    expect(asked().at(-1)).toMatchObject({ range: 'bytes=0-', ifRange: undefined })
    // Nor where a writer that died has left one.
    const [bytes] = filesOfSize(3_000_000)
    renameSync(bytes, `${bytes}.0.1-2-3.part`)
    writeFileSync(`${bytes}.0.1-2-3.part`, new Uint8Array(3_000_001))
    expect((await contents(await hub({ retries: 0 }).open('model.safetensors'))).equals(bytesOf(1))).toBe(true)
  })

  test('is refused when the server goes on at another place', async () => {
    const { byteLength } = await leavePart()
    const headers = { 'content-range': `bytes ${byteLength - 1}-2999998/3000000` }
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true, headers })
    await expect(hub().open('model.safetensors')).rejects.toMatchObject({ name: 'CheckpointError', expected: `the bytes from ${byteLength} on` })
  })

  test('is resumed when the body ended early without an error', async () => {
    const ranges: unknown[] = []
    const fetch = answering((method, range) => {
      if (method === 'GET') ranges.push(range)
      return [method === 'HEAD' ? '' : ranges.length === 1 ? '{"a"' : '{"a": 1}', { etag: '"1"', 'content-length': '8' }]
    })
    expect(String(await contents(await hub({ fetch }).open('config.json')))).toBe('{"a": 1}')
    expect(ranges).toEqual(['bytes=0-', 'bytes=4-'])
  })

  test('leaves the earlier revision in its place until the new one is complete', async () => {
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true })
    await (await hub().open('model.safetensors'))!.close()
    server.files.set(WEIGHTS, { bytes: bytesOf(2), etag: '"2"', isLarge: true, cutAfter: 10 })
    await expect(hub().open('model.safetensors')).rejects.toMatchObject({ name: 'CheckpointError', expected: 'the whole file from its server' })
    server.failures.push({ status: 503 })
    expect((await contents(await hub().open('model.safetensors'))).equals(bytesOf(1))).toBe(true)
    server.files.set(WEIGHTS, { bytes: bytesOf(2), etag: '"2"', isLarge: true })
    expect((await contents(await hub().open('model.safetensors'))).equals(bytesOf(2))).toBe(true)
    expect(filesOfSize(3_000_000)).toHaveLength(1)
  })

  test('stops when aborted, with the reason, and is resumed later', async () => {
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true })
    for (const place of ['options', 'open', 'open, beside one in the options']) {
      const controller = new AbortController()
      const reason = new Error('enough')
      const onProgress = ({ loadedBytes }: HubProgress): void => {
        if (loadedBytes > 0) controller.abort(reason)
      }
      const inOptions = place === 'open' ? undefined : place === 'options' ? controller.signal : new AbortController().signal
      const files = hub({ onProgress, signal: inOptions })
      await expect(files.open('model.safetensors', place === 'options' ? undefined : controller.signal), place).rejects.toBe(reason)
    }
    expect(partNames()).toHaveLength(1)
    asked()
    expect((await contents(await hub().open('model.safetensors'))).equals(bytesOf(1))).toBe(true)
    expect(asked().at(-1)!.range).toMatch(/^bytes=[1-9][0-9]*-$/)
  })
})

describe('parts', () => {
  test.each([
    ['of a living writer are left alone', process.pid, 0, false],
    ['of a living process that has not written for an hour are taken', process.pid, 3_600_000, true],
    ['of a dead writer are taken', 2 ** 22 + 1, 0, true]
  ])('%s', async (_, pid, ageMs, isTaken) => {
    const { path, byteLength } = await leavePart()
    const ofPid = path.replace(/\.0\.([^.]+)\.part$/, `.${pid}.$1.part`)
    renameSync(path, ofPid)
    utimesSync(ofPid, new Date(), new Date(Date.now() - ageMs))
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true })
    expect((await contents(await hub().open('model.safetensors'))).equals(bytesOf(1))).toBe(true)
    expect(asked().at(-1)!.range).toBe(`bytes=${isTaken ? byteLength : 0}-`)
    expect(existsSync(ofPid)).toBe(!isTaken)
  })
})

describe('without a server', () => {
  test.each([503, undefined])('the cache serves what it has and says what it has not (status %s)', async (status) => {
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true })
    await (await hub().open('model.safetensors'))!.close()
    if (status === undefined) await server.close()
    else failTimes(9, { status })
    const progress: HubProgress[] = []
    const source = await hub({ onProgress: (event) => progress.push(event) }).open('model.safetensors')
    expect((await contents(source)).equals(bytesOf(1))).toBe(true)
    expect(progress).toEqual([{ file: 'model.safetensors', loadedBytes: 3_000_000, totalBytes: 3_000_000 }])
    await expect(hub().open('config.json')).rejects.toMatchObject({ name: 'CheckpointError', place: `${ID}/config.json`, expected: 'the whole file from its server' })
  })

  test('a file in the cache that was cut is not served', async () => {
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true })
    await (await hub().open('model.safetensors'))!.close()
    writeFileSync(filesOfSize(3_000_000)[0], bytesOf(1).subarray(1))
    failTimes(3, { status: 503 })
    await expect(hub().open('model.safetensors')).rejects.toMatchObject({ name: 'CheckpointError' })
    expect((await contents(await hub().open('model.safetensors'))).equals(bytesOf(1))).toBe(true)
  })

  test('a record that cannot be read counts as none', async () => {
    server.files.set(CONFIG, { bytes: utf8('{}'), etag: '"1"' })
    await (await hub().open('config.json'))!.close()
    const record = readdirSync(folder, { recursive: true, encoding: 'utf8' }).find((name) => name.endsWith('record.json'))!
    for (const text of ['', '[]', '{"tag": 1}']) {
      writeFileSync(join(folder, record), text)
      expect(String(await contents(await hub().open('config.json')))).toBe('{}')
    }
  })
})

describe('downloads at the same time', () => {
  test('in one process give the same bytes', async () => {
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true })
    const sources = await Promise.all(Array.from({ length: 6 }, () => hub().open('model.safetensors')))
    for (const source of sources) expect((await contents(source)).equals(bytesOf(1))).toBe(true)
    expect(partNames()).toEqual([])
  })

  test('in several processes, some of them cut short, give the same bytes', async () => {
    server.files.set(WEIGHTS, { bytes: bytesOf(1), etag: '"1"', isLarge: true })
    server.onRequest = (_, isStore) => {
      const cutAfter = isStore && server.store.asked.length % 2 === 1 ? 1_000_000 : undefined
      server.files.set(WEIGHTS, { ...server.files.get(WEIGHTS)!, cutAfter })
    }
    const script = `
      const { hubFiles } = await import(${JSON.stringify(new URL('../../src/checkpoint/hub.ts', import.meta.url).href)})
      const { folderCache } = await import(${JSON.stringify(new URL('../../src/platform/node-cache.ts', import.meta.url).href)})
      const { createHash } = await import('node:crypto')
      const options = { host: ${JSON.stringify(server.host)}, cache: folderCache(${JSON.stringify(folder)}), retries: 9, retryDelayMs: 1 }
      const source = await hubFiles(${JSON.stringify(ID)}, options).open('model.safetensors')
      console.log(createHash('sha256').update(await source.read(0, source.byteLength)).digest('hex'))
      await source.close()`
    const run = promisify(execFile)
    const outputs = await Promise.all([1, 2, 3].map(() => run(process.execPath, ['--input-type=module', '--eval', script])))
    const expected = createHash('sha256').update(bytesOf(1)).digest('hex')
    expect(outputs.map(({ stdout }) => stdout.trim())).toEqual([expected, expected, expected])
    expect((await contents(await hub().open('model.safetensors'))).equals(bytesOf(1))).toBe(true)
  })
})

describe('defaultCacheFolder', () => {
  test('follows the XDG convention', () => {
    const before = process.env['XDG_CACHE_HOME']
    try {
      process.env['XDG_CACHE_HOME'] = '/var/cache/me'
      expect(defaultCacheFolder()).toBe(join('/var/cache/me', 'mamba-wasm'))
      for (const value of ['', 'relative/folder']) {
        process.env['XDG_CACHE_HOME'] = value
        expect(defaultCacheFolder()).toMatch(/[/\\]\.cache[/\\]mamba-wasm$/)
      }
    } finally {
      if (before === undefined) delete process.env['XDG_CACHE_HOME']
      else process.env['XDG_CACHE_HOME'] = before
    }
  })
})
