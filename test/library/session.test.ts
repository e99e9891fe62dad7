/** Sessions: what they hold, in which order, and how independent they are. Exact comparisons: the bits must not depend on the way there. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Mamba, type Session } from '../../src/index.ts'
import { reasonOf } from '../support/anything.ts'
import { expectSameBits } from '../support/compare.ts'
import { fixtureModel } from '../support/fixtures.ts'
import { createNumbers } from '../support/numbers.ts'
import { loadTiny, tinyTensors } from '../support/tiny-checkpoint.ts'

const numbers = createNumbers(4)
const IDS = Int32Array.from({ length: 700 }, () => numbers.integer(0, 159))
const GREEDY = { maxTokens: 12, temperature: 0, ignoreEos: true } as const

let mamba: Mamba

beforeAll(async () => {
  // Two slots: with three sessions they are moved in and out.
  mamba = await Mamba.load(fixtureModel('mamba'), { maxBatch: 2 })
})
afterAll(() => mamba.dispose())

/** Logits after `ids` from a fresh state. */
async function logitsAfter(...parts: readonly ArrayLike<number>[]): Promise<Float32Array> {
  return mamba.forward(parts.flatMap((part) => Array.from(part)))
}

async function sessionAfter(ids: ArrayLike<number>): Promise<Session> {
  const session = mamba.session()
  await session.append(ids)
  return session
}

describe('append', () => {
  test('of parts is append of the whole', async () => {
    for (const lengths of [[700], [1, 699], [699, 1], [256, 256, 188], numbers.parts(700, 90)]) {
      await using session = mamba.session()
      let first = 0
      for (const length of lengths) {
        await session.append(IDS.subarray(first, first + length))
        first += length
        expect(session.position).toBe(first)
      }
      expectSameBits(await session.forward([5]), await logitsAfter(IDS, [5]), `in parts of ${lengths.join(', ')}`)
    }
  })

  test('of nothing changes nothing', async () => {
    await using session = await sessionAfter([1, 2])
    await session.append([])
    expect(session.position).toBe(2)
    expectSameBits(await session.forward([3]), await logitsAfter([1, 2, 3]), 'logits')
  })

  test('deferred is read by the next call', async () => {
    await using session = mamba.session()
    await session.append([1, 2, 3], { defer: true })
    expect(session.position).toBe(3)
    expectSameBits(await session.forward([4]), await logitsAfter([1, 2, 3, 4]), 'logits')
  })

  test('takes the ids as they are at the call', async () => {
    await using session = mamba.session()
    const ids = Int32Array.of(7, 8, 9)
    const appended = session.append(ids)
    ids.fill(0)
    await appended
    expectSameBits(await session.forward([1]), await logitsAfter([7, 8, 9, 1]), 'logits')
  })

  test('checks the ids before the text gets any of them', async () => {
    await using session = await sessionAfter([1, 2])
    await expect(session.append([3, 160])).rejects.toThrow(RangeError)
    expect(session.position).toBe(2)
    expectSameBits(await session.forward([3]), await logitsAfter([1, 2, 3]), 'logits')
  })
})

test('append of nothing changes nothing, not even what is known of the last token', async () => {
  const session = mamba.session()
  await session.forward(IDS.subarray(0, 20))
  await session.append([])
  expect((await session.complete(GREEDY)).ids).toEqual((await mamba.complete(IDS.subarray(0, 20), GREEDY)).ids)
  await session.dispose()
})

describe('forward', () => {
  test('of all tokens has the last among them', async () => {
    const [all, last] = [await mamba.forward(IDS, { allLogits: true }), await mamba.forward(IDS)]
    expect([all.length, last.length]).toEqual([700 * 160, 160])
    expectSameBits(last, all.subarray(699 * 160), 'the last')
    for (const length of [1, 2, 255, 256, 257, 512]) {
      expectSameBits(await mamba.forward(IDS.subarray(0, length)), all.subarray((length - 1) * 160, length * 160), `the last of ${length}`)
    }
  })

  test('on a session adds to its text', async () => {
    await using session = await sessionAfter(IDS.subarray(0, 300))
    const all = await mamba.forward(IDS.subarray(300, 600), { session, allLogits: true })
    expect(session.position).toBe(600)
    expectSameBits(all.subarray(299 * 160), await logitsAfter(IDS.subarray(0, 600)), 'the last')
    expectSameBits(await session.forward(IDS.subarray(600)), await logitsAfter(IDS), 'the next')
  })

  test('gives arrays of the caller’s own', async () => {
    const first = await mamba.forward([1, 2])
    const copy = first.slice()
    await mamba.forward([3, 4])
    first.fill(0)
    expectSameBits(await mamba.forward([1, 2]), copy, 'again')
  })

  test('of ids and then generate: the text goes on', async () => {
    await using session = mamba.session()
    await session.forward(IDS.subarray(0, 20))
    const { ids } = await session.complete(GREEDY)
    expect(ids).toEqual((await mamba.complete(IDS.subarray(0, 20), GREEDY)).ids)
  })
})

describe('generate', () => {
  test('goes on from the text, and adds to it', async () => {
    await using session = await sessionAfter(IDS.subarray(0, 40))
    const first = await session.complete(GREEDY)
    expect(first.ids).toEqual((await mamba.complete(IDS.subarray(0, 40), GREEDY)).ids)
    expect(session.position).toBe(52)
    const second = await session.complete(GREEDY)
    expect([...first.ids, ...second.ids]).toEqual((await mamba.complete(IDS.subarray(0, 40), { ...GREEDY, maxTokens: 24 })).ids)
    expectSameBits(await session.forward([9]), await logitsAfter(IDS.subarray(0, 40), first.ids, second.ids, [9]), 'logits')
  })

  test('needs a token', async () => {
    await using session = mamba.session()
    await expect(session.complete(GREEDY)).rejects.toThrow(RangeError)
  })

  test('left early keeps what came', async () => {
    await using session = await sessionAfter([1, 2, 3])
    const ids: number[] = []
    for await (const chunk of session.generate(GREEDY)) {
      ids.push(...chunk.ids)
      if (ids.length === 5) break
    }
    expect(session.position).toBe(8)
    expectSameBits(await session.forward([9]), await logitsAfter([1, 2, 3], ids, [9]), 'logits')
  })

  test('counts what was seen before for the repetition penalty', async () => {
    const options = { ...GREEDY, repetitionPenalty: 1.8 }
    await using session = await sessionAfter(IDS.subarray(0, 10))
    const [first, second] = [await session.complete(options), await session.complete(options)]
    expect([...first.ids, ...second.ids]).toEqual((await mamba.complete(IDS.subarray(0, 10), { ...options, maxTokens: 24 })).ids)
    expect(first.ids).not.toEqual((await mamba.complete(IDS.subarray(0, 10), GREEDY)).ids)
  })
})

describe('order', () => {
  test('calls on a session run in the order in which they were made', async () => {
    await using session = mamba.session()
    const done: string[] = []
    const note = (name: string) => (): void => void done.push(name)
    const first = session.append(IDS.subarray(0, 600)).then(note('append'))
    const logits = session.forward([5])
    const second = logits.then(note('forward'))
    const generated = session.complete(GREEDY)
    const third = generated.then(note('complete'))
    const last = session.append([7]).then(note('append again'))
    await Promise.all([first, second, third, last])
    expect(done).toEqual(['append', 'forward', 'complete', 'append again'])
    expectSameBits(await logits, await logitsAfter(IDS.subarray(0, 600), [5]), 'logits')
    const { ids } = await generated
    expectSameBits(await session.forward([8]), await logitsAfter(IDS.subarray(0, 600), [5], ids, [7, 8]), 'logits at the end')
  })

  test('a failed call does not stop the next', async () => {
    await using session = mamba.session()
    const bad = session.append([-1])
    const good = session.forward([1])
    await expect(bad).rejects.toThrow(RangeError)
    expectSameBits(await good, await logitsAfter([1]), 'logits')
  })
})

describe('fork', () => {
  test('has the text so far, and the two are independent', async () => {
    await using session = await sessionAfter(IDS.subarray(0, 50))
    await using fork = session.fork()
    await session.append([1, 2])
    await fork.append([3])
    expectSameBits(await session.forward([4]), await logitsAfter(IDS.subarray(0, 50), [1, 2, 4]), 'the first')
    expectSameBits(await fork.forward([4]), await logitsAfter(IDS.subarray(0, 50), [3, 4]), 'the fork')
    expect([session.position, fork.position]).toEqual([53, 52])
  })

  test('knows its position at once', async () => {
    await using session = await sessionAfter(IDS.subarray(0, 50))
    await using fork = session.fork()
    expect(fork.position).toBe(50)
  })

  test('while the session is busy: after the calls made before it', async () => {
    await using session = mamba.session()
    const appended = session.append(IDS.subarray(0, 400))
    await using fork = session.fork()
    const later = session.append([1])
    const logits = await fork.forward([2])
    expectSameBits(logits, await logitsAfter(IDS.subarray(0, 400), [2]), 'the fork')
    await Promise.all([appended, later])
    expectSameBits(await session.forward([2]), await logitsAfter(IDS.subarray(0, 400), [1, 2]), 'the first')
  })

  test('of a fork, of a fresh one, and many', async () => {
    await using fresh = mamba.session()
    await using fromFresh = fresh.fork()
    expectSameBits(await fromFresh.forward([1, 2]), await logitsAfter([1, 2]), 'of a fresh one')
    const forks: Session[] = [await sessionAfter([9])]
    for (let i = 1; i < 8; i++) {
      forks.push(forks[i - 1].fork())
      await forks[i].append([i])
    }
    for (const [i, fork] of forks.entries()) expectSameBits(await fork.forward([50]), await logitsAfter([9], [1, 2, 3, 4, 5, 6, 7].slice(0, i), [50]), `fork ${i}`)
    await Promise.all(forks.map((fork) => fork.dispose()))
  })

  test('outlives the session', async () => {
    const session = await sessionAfter([1, 2, 3])
    await using fork = session.fork()
    await session.dispose()
    expectSameBits(await fork.forward([4]), await logitsAfter([1, 2, 3, 4]), 'logits')
  })

  test('repeats a text by its seed', async () => {
    await using session = await sessionAfter(IDS.subarray(0, 30))
    await using fork = session.fork()
    const options = { maxTokens: 20, seed: 6, ignoreEos: true }
    expect((await fork.complete(options)).ids).toEqual((await session.complete(options)).ids)
  })
})

describe('dispose', () => {
  test('comes after the calls under way, and ends the session', async () => {
    const session = mamba.session()
    const logits = session.forward(IDS)
    const disposed = session.dispose()
    expectSameBits(await logits, await logitsAfter(IDS), 'logits')
    await disposed
    await session.dispose()
    for (const call of [() => session.append([1]), () => session.forward([1]), () => session.complete(GREEDY)]) {
      const error = await reasonOf(call)
      expect(error).toBeInstanceOf(TypeError)
      expect(String(error)).toMatch(/disposed/)
    }
  })

  test('a fork of a disposed session is disposed', async () => {
    const session = await sessionAfter([1])
    await session.dispose()
    expect(await reasonOf(() => session.fork().append([1]))).toBeInstanceOf(TypeError)
  })
})

test('logits that are no numbers are refused, and again where the text goes on', async () => {
  const data = (length: number): Float32Array => Float32Array.from({ length }, (_, i) => (i % 2 === 0 ? 3e38 : -3e38))
  const tensors = tinyTensors().map((tensor) => (tensor.name === 'backbone.norm_f.weight' ? { ...tensor, data: data(tensor.shape[0]) } : tensor))
  await using broken = await loadTiny({ tensors })
  for (const temperature of [0, 0.8]) {
    await using session = broken.session()
    await session.append([1, 2, 3], { defer: true })
    for (let turn = 0; turn < 2; turn++) {
      await expect(session.complete({ temperature })).rejects.toThrow(new RangeError('logits[0]: expected a finite number or -Infinity, got NaN'))
    }
  }
})
