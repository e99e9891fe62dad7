/** Stored sessions in memory and in files. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { Mamba, StateStore } from '../../src/index.ts'
import { reasonOf, untyped } from '../support/anything.ts'
import { fixtureModel } from '../support/fixtures.ts'
import { openStorage } from '../support/storages.ts'
import { testStore } from '../support/store-tests.ts'

describe('in memory', () => testStore(() => 'memory', { isShared: false }))

describe('in files', () => {
  const folder = mkdtempSync(join(tmpdir(), 'state-store-'))
  afterAll(() => rmSync(folder, { recursive: true }))
  testStore(() => `fs:${folder}`, { isShared: true })
})

describe('options and arguments', () => {
  const storage = openStorage('memory')

  test('of the store', () => {
    for (const wrong of [null, undefined, {}, { ...storage, setItemRaw: 3 }]) expect(() => new StateStore(untyped(wrong))).toThrow(TypeError)
    for (const prefix of ['', 'a:b', 'a/b', 'ä', 'x'.repeat(101)]) expect(() => new StateStore(storage, { prefix })).toThrow(RangeError)
    for (const ttlSeconds of [0, -1, NaN, Infinity]) expect(() => new StateStore(storage, { ttlSeconds })).toThrow(RangeError)
  })

  test('of its calls', async () => {
    const store = new StateStore(storage)
    await using mamba = await Mamba.load(fixtureModel('mamba'))
    await using session = mamba.session()
    for (const key of ['', 'x'.repeat(201), 'ä'.repeat(34), '\ud800']) expect(await reasonOf(() => store.save(key, session)), key).toBeInstanceOf(RangeError)
    expect(await reasonOf(() => store.load(untyped(3), mamba))).toBeInstanceOf(TypeError)
    expect(await reasonOf(() => store.save('a', session, { ttlSeconds: 0 }))).toBeInstanceOf(RangeError)
    await store.save('x'.repeat(200), session)
    await storage.setItemRaw('mamba:text', untyped('text'))
    expect(String(await reasonOf(() => store.load('text', mamba)))).toContain('stored session "text": expected bytes')
    expect(await store.delete('none')).toBe(false)
  })
})
