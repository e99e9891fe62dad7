/** A model behind messages gives what it gives directly: texts, bits, saved bytes, where a loop is left. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type GenerateChunk, type GenerateOptions, Mamba } from '../../src/index.ts'
import type { WorkerMamba } from '../../src/worker/load-in-worker.ts'
import { expectSameBits } from '../support/compare.ts'
import { type BehindPort, loadBehindPort } from './behind-port.ts'

const PROMPT = 'The captain looked at the'
const OPTIONS: GenerateOptions = { maxTokens: 40, seed: 7, temperature: 0.7, ignoreEos: true }

let direct: Mamba
let behind: BehindPort
let mamba: WorkerMamba

beforeAll(async () => {
  [direct, behind] = await Promise.all([Mamba.load(), loadBehindPort()])
  mamba = behind.mamba
})
afterAll(async () => {
  await Promise.all([direct.dispose(), mamba.dispose()])
  expect(behind.nEnds()).toBe(1)
})

/** What a text may be made of, on either. */
type AnyMamba = Mamba | WorkerMamba

/** Times aside. */
async function piecesOf(chunks: AsyncIterable<GenerateChunk>): Promise<unknown[]> {
  const pieces: unknown[] = []
  for await (const { finish, ...chunk } of chunks) pieces.push({ ...chunk, finish: finish && { ...finish, timings: null } })
  return pieces
}

/** Both, and what both gave. */
async function onBoth<T>(task: (mamba: AnyMamba) => Promise<T>): Promise<T> {
  const [want, got] = [await task(direct), await task(mamba)]
  expect(got).toEqual(want)
  return got
}

test('facts', async () => {
  await onBoth(async ({ config, fingerprint, hasTokenizer, backend, notKept }) => ({ config, fingerprint, hasTokenizer, backend, notKept }))
  await onBoth(async (mamba) => mamba.prefixCache)
  const { failure, ...stats } = await mamba.stats
  expect(failure).toBeNull()
  expect(Object.keys(stats).sort()).toEqual(Object.keys(direct.stats).filter((name) => name !== 'failure').sort())
})

test('ids and text', async () => {
  const ids = await onBoth(async (mamba) => mamba.tokenize('Once upon a time'))
  expect(await onBoth(async (mamba) => mamba.detokenize(ids))).toBe('Once upon a time')
})

test('the text of a generation, piece by piece', async () => {
  const pieces = await onBoth((mamba) => piecesOf(mamba.generate(PROMPT, OPTIONS)))
  expect(pieces.length).toBeGreaterThan(20)
  await onBoth(async (mamba) => (await mamba.complete([84, 104, 101], OPTIONS)).ids)
})

test('logits and scores, to the bit', async () => {
  const wants = await direct.forward(PROMPT, { allLogits: true })
  expectSameBits(await mamba.forward(PROMPT, { allLogits: true }), wants, 'logits')
  await onBoth(async (mamba) => ({ ...(await mamba.score(PROMPT)), elapsedMs: 0 }))
})

describe('a session', () => {
  test('append, generate, fork, rewind, save and restore', async () => {
    const run = async (mamba: AnyMamba) => {
      const session = mamba.session({ checkpoints: { every: 16, keep: 4 } })
      expect(session.position).toBe(0)
      await session.append(PROMPT)
      const fork = session.fork()
      expect(fork.position).toBe(PROMPT.length)
      const answers = await Promise.all([session.complete(OPTIONS), fork.complete({ ...OPTIONS, seed: 8 })])
      await session.rewind(10)
      const bytes = await session.save()
      const restored = await mamba.restore(bytes)
      const after = await restored.complete(OPTIONS)
      const positions = [session.position, fork.position, restored.position]
      const logits = await restored.forward('and', { allLogits: true })
      const result = { texts: [...answers, after].map(({ text }) => text), bytes, positions, logits, half: await restored.save({ precision: 'f16' }) }
      await Promise.all([session, fork, restored].map((each) => each.dispose()))
      return result
    }
    const { texts, positions } = await onBoth(run)
    expect(new Set(texts).size).toBe(3)
    expect(positions).toEqual([55, 65, 95])
  })

  test('that one saved the other restores, with the same bytes', async () => {
    await using session = mamba.session()
    await session.append(PROMPT)
    const bytes = await session.save()
    await using restored = await direct.restore(bytes)
    expect(await restored.save()).toEqual(bytes)
    expect((await session.complete(OPTIONS)).text).toBe((await restored.complete(OPTIONS)).text)
  })

  test('a part of the caller’s memory goes over, and stays the caller’s', async () => {
    await using session = mamba.session()
    await session.append(PROMPT)
    const bytes = await session.save()
    for (const memory of [new Uint8Array(bytes.length + 100), new Uint8Array(new SharedArrayBuffer(bytes.length + 100))]) {
      memory.set(bytes, 7)
      await using restored = await mamba.restore(memory.subarray(7, 7 + bytes.length))
      expect(await restored.save()).toEqual(bytes)
      expect(memory.slice(7, 7 + bytes.length)).toEqual(bytes)
    }
  })

  test('logits go on from its text', async () => {
    await using session = mamba.session()
    await session.append(PROMPT)
    await using same = direct.session()
    await same.append(PROMPT)
    expectSameBits(await mamba.forward(' sea', { session }), await direct.forward(' sea', { session: same }), 'logits')
    expect(session.position).toBe(same.position)
  })

  test('left early, it is where the last piece left it', async () => {
    const run = async (mamba: AnyMamba) => {
      await using session = mamba.session()
      await session.append(PROMPT)
      let nPieces = 0
      for await (const { text } of session.generate(OPTIONS)) if (text !== '' && ++nPieces === 5) break
      return { position: session.position, bytes: await session.save() }
    }
    expect((await onBoth(run)).position).toBe(PROMPT.length + 5)
  })

  test('stands still until the next piece is asked for', async () => {
    await using session = mamba.session()
    await session.append(PROMPT)
    const chunks = session.generate(OPTIONS)
    await chunks.next()
    const { tokens } = await mamba.stats
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect((await mamba.stats).tokens).toBe(tokens)
    await chunks.return()
  })

  test('generated in the order of calls', async () => {
    const run = async (mamba: AnyMamba) => {
      await using session = mamba.session()
      const calls = [session.append(PROMPT), session.complete(OPTIONS), session.append(' The'), session.complete(OPTIONS)] as const
      const [, first, , second] = await Promise.all(calls)
      return [first.text, second.text]
    }
    await onBoth(run)
  })
})

test('a text without a session is at most four pieces ahead', async () => {
  const chunks = mamba.generate(PROMPT, OPTIONS)
  await chunks.next()
  await new Promise((resolve) => setTimeout(resolve, 100))
  const { tokens } = await mamba.stats
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect((await mamba.stats).tokens).toBe(tokens)
  await chunks.return()
  expect((await mamba.stats).calls).toBe(0)
})

test('the arguments are those of the call, not of the first piece', async () => {
  const ids = [84, 104, 101]
  const want = await piecesOf(direct.generate(ids, OPTIONS))
  const chunks = mamba.generate(ids, OPTIONS)
  ids[0] = 1
  expect(await piecesOf(chunks)).toEqual(want)
})

test('whoever waits holds the process, and nobody else', async () => {
  expect(behind.isHeld()).toBe(false)
  const call = mamba.complete(PROMPT, OPTIONS)
  expect(behind.isHeld()).toBe(true)
  await call
  const chunks = mamba.generate(PROMPT, OPTIONS)
  await chunks.next()
  expect(behind.isHeld()).toBe(false)
  await chunks.return()
  expect(behind.isHeld()).toBe(false)
})
