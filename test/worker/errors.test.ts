/** What goes wrong behind messages goes wrong as it does directly: classes, parts, reasons; and nobody waits for a worker that is gone. */
import { setTimeout as pause } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BusyError, CheckpointError, EngineError, Mamba, UnsupportedError } from '../../src/index.ts'
import type { WorkerMamba, WorkerSession } from '../../src/worker/load-in-worker.ts'
import { reasonOf, untyped } from '../support/anything.ts'
import { fixtureModel } from '../support/fixtures.ts'
import { loadBehindPort } from './behind-port.ts'

const OPTIONS = { maxTokens: 16, seed: 7 } as const
const LONG = { ...OPTIONS, maxTokens: 100_000, ignoreEos: true } as const
const REASON = new Error('no longer wanted')

let mamba: WorkerMamba
let direct: Mamba
beforeAll(async () => {
  [direct, { mamba }] = await Promise.all([Mamba.load(), loadBehindPort()])
})
afterAll(async () => {
  await Promise.all([mamba.dispose(), direct.dispose()])
})

async function collectAll(chunks: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of chunks);
}

test.each<readonly [name: string, task: (mamba: Mamba | WorkerMamba) => Promise<unknown>, expectedClass: new (...args: never[]) => Error]>([
  ['bytes that are no session', (mamba) => mamba.restore(new Uint8Array(100)), CheckpointError],
  ['ids beyond the vocabulary', (mamba) => mamba.forward([1e6]), RangeError],
  ['no prompt', (mamba) => mamba.complete(untyped(7)), TypeError],
  ['an option out of range', (mamba) => mamba.complete('a', { temperature: -1 }), RangeError],
  ['an option out of range, in pieces', async (mamba) => collectAll(mamba.generate('a', { topP: 7 })), RangeError],
  ['no prompt, in pieces', async (mamba) => collectAll(mamba.generate('')), RangeError],
  ['a session without text', (mamba) => mamba.session().complete(OPTIONS), RangeError],
  ['a session with options out of range', async (mamba) => mamba.session({ checkpoints: { every: 0, keep: 1 } }).append('a'), RangeError],
  ['a chat without a template', async (mamba) => mamba.chat().complete('a'), UnsupportedError],
  ['rewinding too far', (mamba) => mamba.session().rewind(1), RangeError],
  ['a session that was disposed', async (mamba) => {
    const session = mamba.session()
    await session.dispose()
    await session.dispose()
    await session.append('a')
  }, TypeError]
])('%s', async (_, task, expectedClass) => {
  const [want, got] = [await reasonOf(() => task(direct)), await reasonOf(() => task(mamba))]
  expect(got).toBeInstanceOf(expectedClass)
  expect({ ...Object(got), name: (got as Error).name, message: (got as Error).message }).toEqual({ ...Object(want), name: (want as Error).name, message: (want as Error).message })
})

test('of load, and the worker is ended', async () => {
  const error = await reasonOf(() => loadBehindPort(undefined, { dtype: untyped('q3') }))
  expect(error).toBeInstanceOf(UnsupportedError)
  expect(error).toMatchObject({ place: 'dtype', message: (await reasonOf(() => Mamba.load(undefined, { dtype: untyped('q3') })) as Error).message })
})

test('an error keeps its cause and the stack of where it was thrown', async () => {
  const error = (await reasonOf(() => loadBehindPort('http://127.0.0.1:1/model.gguf', { retries: 0 }))) as CheckpointError
  expect(error).toBeInstanceOf(CheckpointError)
  expect(error.cause).toBeInstanceOf(Error)
  expect(error.stack).toMatch(/http/)
})

test('too many calls', async () => {
  const { mamba: small } = await loadBehindPort(undefined, { maxBatch: 1, maxQueue: 0 })
  const calls = await Promise.allSettled([small.complete('a', OPTIONS), small.complete('b', OPTIONS)])
  expect(calls.map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
  expect(calls[1]).toMatchObject({ reason: expect.any(BusyError) })
  await small.dispose()
})

test.each([
  ['fetch', () => loadBehindPort('a/b', { fetch })],
  ['a file set', () => loadBehindPort({ name: 'mine', open: async () => undefined })],
  ['a generator’s options', async () => collectAll(mamba.generate('a', untyped({ f: () => 1 })))]
])('what cannot be sent is told: %s', async (_, task) => {
  expect(await reasonOf(task)).toBeInstanceOf(UnsupportedError)
})

test('an address as a URL', async () => {
  const error = await reasonOf(() => loadBehindPort(new URL('http://127.0.0.1:1/model.gguf'), { retries: 0 }))
  expect(error).toMatchObject({ name: 'CheckpointError', place: 'http://127.0.0.1:1/config.json' })
})

describe('aborts give the very reason', () => {
  test('before the call', async () => {
    const signal = AbortSignal.abort(REASON)
    const session = mamba.session()
    for (const call of [
      () => mamba.complete('a', { signal }), () => mamba.score('ab', { signal }), () => mamba.forward('a', { signal }), () => session.append('abc', { signal }),
      () => collectAll(mamba.generate('a', { signal })), () => loadBehindPort(undefined, { signal })
    ]) expect(await reasonOf(call)).toBe(REASON)
    // The tokens belong to the text, as they do directly.
    expect(session.position).toBe(3)
    await session.dispose()
  })

  test.each(['complete', 'generate'] as const)('during %s', async (method) => {
    const controller = new AbortController()
    await using session = mamba.session()
    await session.append('Once')
    setTimeout(() => controller.abort(REASON), 30)
    const options = { ...LONG, signal: controller.signal }
    expect(await reasonOf(() => (method === 'complete' ? session.complete(options) : collectAll(session.generate(options))))).toBe(REASON)
    expect(session.position).toBeGreaterThan(4)
    expect((await session.complete(OPTIONS)).ids.length).toBeGreaterThan(0)
  })

  test('while a model is loaded', async () => {
    const controller = new AbortController()
    const phases: string[] = []
    const onProgress = ({ phase }: { readonly phase: string }): void => {
      phases.push(phase)
      controller.abort(REASON)
    }
    expect(await reasonOf(() => loadBehindPort(fixtureModel('mamba'), { signal: controller.signal, onProgress }))).toBe(REASON)
    expect(phases[0]).toBe('weights')
  })

  test('and so does what the receiver of the progress throws', async () => {
    const onProgress = (): void => {
      throw REASON
    }
    const ids = Array.from({ length: 3000 }, () => 97)
    const { tokens } = await mamba.stats
    expect(await reasonOf(() => mamba.score(ids, { onProgress }))).toBe(REASON)
    let nPieces = 0
    expect(await reasonOf(async () => {
      for await (const _ of mamba.generate(ids, { onProgress })) nPieces++
    })).toBe(REASON)
    expect(nPieces).toBe(0)
    // The engine has stopped, too.
    expect((await mamba.stats).tokens - tokens).toBeLessThan(2 * 1500)
    expect((await mamba.stats).calls).toBe(0)
  })

  test('without a trace in others', async () => {
    const controller = new AbortController()
    const others = Promise.all([mamba.complete('a', OPTIONS), mamba.complete('b', OPTIONS)])
    const aborted = reasonOf(() => mamba.complete('c', { ...LONG, signal: controller.signal }))
    controller.abort(REASON)
    expect(await aborted).toBe(REASON)
    expect((await others).map(({ text }) => text)).toEqual((await Promise.all([direct.complete('a', OPTIONS), direct.complete('b', OPTIONS)])).map(({ text }) => text))
  })
})

test('progress comes through', async () => {
  const counts: number[] = []
  await mamba.score(Array.from({ length: 3000 }, () => 97), { onProgress: ({ doneTokens }) => counts.push(doneTokens) })
  expect(counts.length).toBeGreaterThan(1)
  expect(counts.at(-1)).toBe(2999)
})

describe('a worker that dies', () => {
  test('rejects all that wait and all that comes', async () => {
    const { mamba, die, nEnds } = await loadBehindPort()
    const session = mamba.session()
    await session.append('Once')
    const chunks = session.generate(LONG)
    await chunks.next()
    const waiting = [mamba.complete('a', LONG), session.append('b'), (async () => collectAll(mamba.generate('c', LONG)))()].map((call) => reasonOf(() => call))
    die('one that ran out of memory')
    const later = [() => chunks.next(), () => mamba.complete('a'), () => mamba.restore(new Uint8Array(1)), () => mamba.session().append('a'), () => session.fork().save()]
    const errors = [...(await Promise.all(waiting)), ...(await Promise.all(later.map((call) => reasonOf(call))))]
    for (const error of errors) expect(error).toMatchObject({ name: 'EngineError', got: 'one that ran out of memory' })
    expect(errors[0]).toBeInstanceOf(EngineError)
    await mamba.dispose().catch(() => {})
    expect(nEnds()).toBe(1)
  })
})

describe('dispose', () => {
  test('waits for calls under way, ends the worker, refuses what follows', async () => {
    const { mamba, nEnds } = await loadBehindPort()
    const session = mamba.session()
    const call = mamba.complete('a', OPTIONS)
    const ends = [mamba.dispose(), mamba.dispose()]
    expect((await call).ids.length).toBeGreaterThan(0)
    await Promise.all(ends)
    expect(nEnds()).toBe(1)
    for (const late of [() => mamba.complete('a'), () => session.append('a'), () => collectAll(mamba.generate('a')), () => mamba.session().save()]) {
      expect(await reasonOf(late)).toMatchObject({ name: 'TypeError', message: 'mamba: expected a model in use, got one that was disposed' })
    }
  })

  test('of a session ends its generation', async () => {
    const session = mamba.session()
    await session.append('Once')
    const chunks = session.generate(LONG)
    await chunks.next()
    await session.dispose()
    expect(await chunks.next()).toEqual({ done: true, value: undefined })
    expect((await mamba.stats).calls).toBe(0)
  })
})

describe('what nobody refers to', () => {
  setFlagsFromString('--expose-gc')
  const collectGarbage = runInNewContext('gc') as () => void
  const eventually = async (condition: () => Promise<boolean>): Promise<boolean> => {
    for (let i = 0; i < 10; i++) {
      collectGarbage()
      await pause(20)
      if (await condition()) return true
    }
    return false
  }

  test('a session is disposed', async () => {
    const { mamba } = await loadBehindPort()
    const leave = async (): Promise<void> => {
      await mamba.session().append('Once')
    }
    await leave()
    const nSeated = async (): Promise<number> => (await mamba.stats).seated
    expect(await eventually(async () => (await nSeated()) === 0)).toBe(true)
    // One that generates is not: its loop is all that refers to it.
    const begin = async () => {
      const session = mamba.session()
      await session.append('Once')
      const chunks = session.generate({ ...LONG, maxTokens: 50 })
      await chunks.next()
      return chunks
    }
    const chunks = await begin()
    expect(await eventually(async () => (await nSeated()) === 0)).toBe(false)
    let nPieces = 1
    for await (const { finish } of chunks) nPieces += finish === null ? 1 : 0
    expect(nPieces).toBe(50)
    await mamba.dispose()
  })

  test('a model’s worker is ended, but not while a session is used', async () => {
    const held: { session?: WorkerSession } = {}
    const begin = async (): Promise<() => number> => {
      const { mamba, nEnds } = await loadBehindPort()
      held.session = mamba.session()
      return nEnds
    }
    const nEnds = await begin()
    expect(await eventually(async () => nEnds() > 0)).toBe(false)
    await held.session?.append('Once')
    delete held.session
    expect(await eventually(async () => nEnds() > 0)).toBe(true)
  })
})
