/** Stored sessions in a real Redis server, which the test starts by itself on a free port. Needs Debian's `redis-server`, or REDIS_SERVER_PATH. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createConnection, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Mamba, StateStore } from '../../src/index.ts'
import { fixtureModel } from '../support/fixtures.ts'
import { openStorage } from '../support/storages.ts'
import { testStore } from '../support/store-tests.ts'

const BINARY = process.env['REDIS_SERVER_PATH'] ?? 'redis-server'
const hasRedis = spawnSync(BINARY, ['--version']).status === 0

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

async function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(port, '127.0.0.1', () => socket.write('PING\r\n'))
    socket.on('data', (data) => resolve(String(data).startsWith('+PONG')))
    socket.on('error', () => resolve(false))
    socket.on('close', () => resolve(false))
    setTimeout(() => socket.destroy(), 500)
  })
}

describe.skipIf(!hasRedis)(`in Redis${hasRedis ? '' : ` (skipped: no ${BINARY} here)`}`, () => {
  const folder = mkdtempSync(join(tmpdir(), 'state-store-redis-'))
  let port = 0
  let server: ChildProcess

  beforeAll(async () => {
    port = await freePort()
    server = spawn(BINARY, ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'no'], { stdio: 'ignore' })
    for (let i = 0; !(await answers(port)); i++) {
      if (i === 100) throw new Error('the server does not answer')
      await wait(100)
    }
  })
  afterAll(async () => {
    const ended = new Promise((resolve) => server.once('exit', resolve))
    server.kill()
    await ended
    rmSync(folder, { recursive: true })
  })

  testStore(() => `redis:${port}`, { isShared: true })

  test('frees the memory of a session whose time is over', async () => {
    const storage = openStorage(`redis:${port}`)
    await using mamba = await Mamba.load(fixtureModel('mamba'))
    await using session = mamba.session()
    await session.append([1])
    await new StateStore(storage, { prefix: 'brief', ttlSeconds: 1 }).save('a', session)
    expect(await storage.getKeys('brief:')).toEqual(['brief:a'])
    await wait(1500)
    expect(await storage.getKeys('brief:')).toEqual([])
    await storage.dispose()
  })
})
