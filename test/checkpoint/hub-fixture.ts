/**
 * What the tests of the hub share: a hub on this machine and an empty cache for each test, ways to look into both, and 3 MB of weights.
 */
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach } from 'vitest'
import type { ByteSource } from '../../src/checkpoint/byte-source.ts'
import { hubFiles, type HubOptions } from '../../src/checkpoint/hub.ts'
import { folderCache } from '../../src/platform/node-cache.ts'
import { startHub, type TestHub } from './hub-server.ts'

export const ID = 'state-spaces/tiny'
export const WEIGHTS = `${ID}/resolve/main/model.safetensors`
export const CONFIG = `${ID}/resolve/main/config.json`

export let folder: string
export let server: TestHub

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'mamba-hub-'))
  server = await startHub()
})
afterEach(async () => {
  await server.close()
  rmSync(folder, { recursive: true })
})

export function hub(options: HubOptions = {}) {
  return hubFiles(ID, { host: server.host, cache: folderCache(folder), retries: 2, retryDelayMs: 1, ...options })
}

/** 3 MB that differ from seed to seed at every byte. */
export function bytesOf(seed: number): Uint8Array {
  return PATTERN.map((byte) => byte + seed)
}

const PATTERN = new Uint8Array(3_000_000).map((_, i) => Math.imul(i, 7919) >> 5)

export async function contents(source: ByteSource | undefined): Promise<Buffer> {
  if (source === undefined) throw new Error('no file')
  const bytes = await source.read(0, source.byteLength)
  await source.close()
  return Buffer.from(bytes)
}

/** What was asked since the last call. */
export function asked() {
  const all = [server.hub, server.store].flatMap(({ asked }) => asked.splice(0).map((request) => ({ ...request, isStore: asked === server.store.asked })))
  return all.map(({ method, headers, isStore }) => ({
    name: isStore ? 'store' : 'hub',
    method,
    range: headers.range,
    ifRange: headers['if-range'],
    token: headers.authorization
  }))
}

export function partNames(): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.part'))
}

export function filesOfSize(byteLength: number): string[] {
  const paths = readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name))
  return paths.filter((path) => statSync(path).size === byteLength)
}

/** A fetch that answers every request with status 200. */
export function answering(answer: (method: string | undefined, range: string | null) => readonly [string, Record<string, string>]): typeof globalThis.fetch {
  return async (_, init) => {
    const [body, headers] = answer(init?.method, new Headers(init?.headers).get('range'))
    return new Response(body, { headers })
  }
}

export function failTimes(times: number, failure: TestHub['failures'][number]): void {
  for (let i = 0; i < times; i++) server.failures.push(failure)
}
