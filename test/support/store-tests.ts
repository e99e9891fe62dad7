/** What a StateStore must do on every storage. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Storage } from 'unstorage'
import { CheckpointError, ConflictError, Mamba, StateStore } from '../../src/index.ts'
import { reasonOf } from './anything.ts'
import { expectSameBits } from './compare.ts'
import { fixtureModel, repositoryPath } from './fixtures.ts'
import { createNumbers } from './numbers.ts'
import { openStorage } from './storages.ts'

const OPTIONS = { maxTokens: 12, temperature: 0.9, seed: 7, ignoreEos: true, repetitionPenalty: 1.3 } as const
/** Keys that storages have ideas about. */
const KEYS = ['user-1', 'a/b', 'a:b', 'a%2Fb', 'a?b', '../../x', '.', 'ä 😀', 'a\\b', 'a=b', 'meta$', ' ', 'C:\\x\0y']

/** `open`: a place for `openStorage`, known once the tests begin. */
export function testStore(open: () => string, { isShared }: { readonly isShared: boolean }): void {
  let mamba: Mamba
  let storage: Storage
  let store: StateStore
  const numbers = createNumbers(3)
  const turnOf = (length: number): number[] => Array.from({ length }, () => numbers.integer(0, 159))

  beforeAll(async () => {
    mamba = await Mamba.load(fixtureModel('mamba'))
    storage = openStorage(open())
    store = new StateStore(storage)
  })
  afterAll(async () => {
    await mamba.dispose()
    await storage.dispose()
  })

  test('what is saved is loaded, and goes on', async () => {
    await using session = mamba.session()
    await session.append(turnOf(40))
    expect(await store.load('first', mamba)).toBe(null)
    expect(await store.save('first', session)).toBe(1)
    const stored = await store.load('first', mamba)
    expect(stored?.revision).toBe(1)
    expectSameBits(await stored?.session.forward([3]) ?? new Float32Array(), await session.forward([3]), 'logits')
    expect(await store.save('first', session, { precision: 'q8' })).toBe(2)
    expect((await store.load('first', mamba, { checkpoints: { every: 4, keep: 2 } }))?.session.position).toBe(41)
  })

  test('a storage that gives what it was given is not changed by what comes later', async () => {
    await using session = mamba.session()
    await session.append([1, 2, 3])
    const bytes = await session.save()
    await store.save('kept', session)
    await session.append([4, 5, 6])
    expect(await (await store.load('kept', mamba))?.session.save()).toEqual(bytes)
  })

  test('keys of all kinds are told apart, listed and deleted', async () => {
    const own = new StateStore(storage, { prefix: 'keys' })
    for (const [i, key] of KEYS.entries()) {
      await using session = mamba.session()
      await session.append([i, i + 1])
      await own.save(key, session)
    }
    expect((await own.keys()).sort()).toEqual([...KEYS].sort())
    for (const [i, key] of KEYS.entries()) {
      const stored = await own.load(key, mamba)
      expectSameBits(await stored?.session.forward([7]) ?? new Float32Array(), await mamba.forward([i, i + 1, 7]), key)
    }
    expect(await own.delete(KEYS[1])).toBe(true)
    expect(await own.delete(KEYS[1])).toBe(false)
    expect(await own.load(KEYS[1], mamba)).toBe(null)
    expect((await own.keys()).sort()).toEqual(KEYS.filter((key) => key !== KEYS[1]).sort())
    // Another prefix, other keys.
    expect(await store.load(KEYS[0], mamba)).toBe(null)
  })

  test('who goes on from an old state is told', async () => {
    await using session = mamba.session()
    await session.append([1])
    expect(await store.save('guarded', session, { ifRevision: 0 })).toBe(1)
    expect(await reasonOf(() => store.save('guarded', session, { ifRevision: 0 }))).toBeInstanceOf(ConflictError)
    expect(await store.save('guarded', session, { ifRevision: 1 })).toBe(2)
    const error = await reasonOf(() => store.save('guarded', session, { ifRevision: 1 }))
    expect(error).toBeInstanceOf(ConflictError)
    expect(String(error)).toContain('stored session "guarded": expected revision 1, got revision 2')
    // Of many at once just one has the revision.
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => store.save('guarded', session, { ifRevision: 2 })))
    expect(results.filter(({ status }) => status === 'fulfilled').length).toBe(1)
    expect((await store.load('guarded', mamba))?.revision).toBe(3)
  })

  test('a session whose time is over is no longer there', async () => {
    await using session = mamba.session()
    await session.append([1])
    const brief = new StateStore(storage, { ttlSeconds: 0.05 })
    await brief.save('brief', session)
    await brief.save('long', session, { ttlSeconds: 600 })
    await new Promise((resolve) => setTimeout(resolve, 80))
    expect(await brief.load('brief', mamba)).toBe(null)
    expect((await brief.load('long', mamba))?.revision).toBe(1)
    expect(await brief.save('brief', session, { ifRevision: 0 })).toBe(1)
  })

  test('damaged bytes, and another model, are errors that name the key', async () => {
    await using session = mamba.session()
    await session.append([1, 2])
    await store.save('damaged', session)
    const bytes = Uint8Array.from(await storage.getItemRaw('mamba:damaged') ?? [])
    for (const at of [0, 9, 25, 40, 60, 100, bytes.length - 1]) {
      const changed = bytes.slice()
      changed[at] ^= 4
      await storage.setItemRaw('mamba:damaged', changed)
      const error = await reasonOf(() => store.load('damaged', mamba))
      expect(error, `byte ${at}`).toBeInstanceOf(CheckpointError)
      expect(String(error)).toContain('"damaged"')
    }
    // Another key's bytes.
    await storage.setItemRaw('mamba:other', bytes)
    expect(String(await reasonOf(() => store.load('other', mamba)))).toContain('expected this key in it, got "damaged"')
    await storage.setItemRaw('mamba:damaged', bytes)
    await using other = await Mamba.load(fixtureModel('mamba'), { dtype: 'q8_0' })
    expect(await reasonOf(() => store.load('damaged', other))).toBeInstanceOf(CheckpointError)
    expect((await store.load('damaged', mamba))?.session.position).toBe(2)
  })

  if (isShared) test('a conversation goes on in other processes as if it had never moved', { timeout: 120_000 }, async () => {
    await using stayed = mamba.session()
    await using first = mamba.session()
    const prompt = turnOf(50)
    await stayed.append(prompt)
    await first.append(prompt)
    expect((await first.complete(OPTIONS)).ids).toEqual((await stayed.complete(OPTIONS)).ids)
    await store.save('conversation', first)
    for (let turn = 0; turn < 2; turn++) {
      const ids = turnOf(9)
      await stayed.append(ids)
      const expected = await stayed.complete(OPTIONS)
      const moved = await promisify(execFile)(process.execPath, [
        '--conditions=source', repositoryPath('test/support/continue-conversation.ts'), fixtureModel('mamba'), open(), 'conversation', JSON.stringify(ids), JSON.stringify(OPTIONS)
      ])
      expect(JSON.parse(moved.stdout)).toEqual({ ids: expected.ids, revision: turn + 2 })
    }
    const back = await store.load('conversation', mamba)
    expectSameBits(await back?.session.forward([5]) ?? new Float32Array(), await stayed.forward([5]), 'back here')
  })
}
