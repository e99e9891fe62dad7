/** Models with attention have a limit: the option contextLength. What goes beyond is refused before anything is read; within, all is as with any model. */
import { describe, expect, test } from 'vitest'
import type { MemoryBytes } from '../../src/backend/backend.ts'
import { furtherSizes } from '../../src/backend/wasm/further-sizes.ts'
import { createMemoryMap } from '../../src/backend/wasm/memory-map.ts'
import type { JsonObject } from '../../src/checkpoint/json.ts'
import { Mamba } from '../../src/index.ts'
import { capacityOf } from '../../src/load.ts'
import { buildModel, readModelConfig } from '../support/architectures.ts'
import type { Program } from '../../src/program/ops.ts'
import { reasonOf, untyped } from '../support/anything.ts'
import { expectSameBits } from '../support/compare.ts'
import { filesOf, fixtureModel } from '../support/fixtures.ts'

const HYBRID = fixtureModel('bamba')
const IDS = Array.from({ length: 90 }, (_, i) => (i * 37) % 150)
const KINDS = [{ backend: 'reference' }, { backend: 'wasm', build: 'scalar' }, { backend: 'wasm', threads: 2 }] as const

async function expectBeyond(call: () => unknown, limit: number, got: number): Promise<void> {
  const error = await reasonOf(call)
  expect(error).toBeInstanceOf(RangeError)
  expect(String(error)).toMatch(new RegExp(`contextLength.*at most ${limit} tokens.*got ${got}`))
}

async function expectTooMany(call: () => unknown, most: number, got: number): Promise<void> {
  const error = await reasonOf(call)
  expect(error).toBeInstanceOf(RangeError)
  expect(String(error)).toMatch(new RegExp(`maxTokens: expected at most ${most} .*contextLength.*got ${got}$`))
}

describe.each(KINDS)('%j', (kind) => {
  test('a prompt may fill the context, and not go beyond', async () => {
    await using mamba = await Mamba.load(HYBRID, { ...kind, contextLength: 20 })
    const { vocabSize } = mamba.config
    expect((await mamba.forward(IDS.slice(0, 20), { allLogits: true })).length).toBe(20 * vocabSize)
    await expectBeyond(() => mamba.forward(IDS.slice(0, 21)), 20, 21)
    await expectBeyond(() => mamba.score(IDS.slice(0, 22)), 20, 21)
    // Windows that start anew have the whole context each.
    expect((await mamba.score(IDS.slice(0, 30), { window: 15 })).perplexity).toBeGreaterThan(1)
  })

  test('a session stays as it was', async () => {
    await using mamba = await Mamba.load(HYBRID, { ...kind, contextLength: 20 })
    await using session = mamba.session()
    await session.append(IDS.slice(0, 15))
    await expectBeyond(() => session.append(IDS.slice(15, 21)), 20, 21)
    await expectBeyond(() => session.append(IDS.slice(15, 21), { defer: true }), 20, 21)
    await expectBeyond(() => session.forward(IDS.slice(15, 21)), 20, 21)
    // The last token is given out, not read: six more would fit.
    await expectTooMany(() => session.complete({ maxTokens: 7, ignoreEos: true }), 6, 7)
    expect(session.position).toBe(15)
    // By default it ends where the context does.
    const short = session.fork()
    expect((await short.complete({ ignoreEos: true, temperature: 0 })).ids.length).toBe(6)
    const { ids } = await session.complete({ maxTokens: 6, ignoreEos: true, temperature: 0 })
    expect(ids.length).toBe(6)
    await using other = await Mamba.load(HYBRID, { ...kind })
    expect((await other.complete(IDS.slice(0, 15), { maxTokens: 6, ignoreEos: true, temperature: 0 })).ids).toEqual(ids)
  })

  test('drafts end with the context', async () => {
    await using mamba = await Mamba.load(HYBRID, { ...kind, contextLength: 8 })
    for (const prompt of [[1, 2, 1, 2, 1, 2], [1, 2, 1, 2, 1, 2, 1], [1, 2, 1, 2, 1, 2, 1, 2]]) {
      const options = { maxTokens: 9 - prompt.length, ignoreEos: true, temperature: 0 }
      const { ids } = await mamba.complete(prompt, options)
      expect((await mamba.complete(prompt, { ...options, speculation: { minMatch: 1 } })).ids).toEqual(ids)
    }
  })

  test('a session whose context is full is saved and restored', async () => {
    await using mamba = await Mamba.load(HYBRID, { ...kind, contextLength: 20 })
    await using session = mamba.session()
    await session.append(IDS.slice(0, 15))
    await session.complete({ maxTokens: 6, ignoreEos: true })
    expect(session.position).toBe(21)
    await using restored = await mamba.restore(await session.save())
    expect(restored.position).toBe(21)
    await expectTooMany(() => restored.complete({ maxTokens: 1 }), 0, 1)
    await expectBeyond(() => restored.complete(), 20, 21)
  })

  test('a stream is refused before its first piece', async () => {
    await using mamba = await Mamba.load(HYBRID, { ...kind, contextLength: 20 })
    await expectTooMany(() => mamba.generate(IDS.slice(0, 15), { maxTokens: 7 }).next(), 6, 7)
  })
})

describe('wasm', () => {
  test('sessions that share a slot give what each alone gives, and are parked with what they have read alone', async () => {
    await using mamba = await Mamba.load(HYBRID, { maxBatch: 1, threads: 1 })
    const want = await mamba.forward(IDS, { allLogits: true })
    const { vocabSize } = mamba.config
    const sessions = [mamba.session(), mamba.session(), mamba.session()]
    const done = sessions.map(() => 0)
    for (const [turn, count] of [1, 30, 3, 31, 2, 29, 28, 29, 29, 30, 28, 30].entries()) {
      const i = turn % sessions.length
      const got = await sessions[i].forward(IDS.slice(done[i], done[i] + count), { allLogits: true })
      expectSameBits(got, want.subarray(done[i] * vocabSize, (done[i] + count) * vocabSize), `session ${i}, tokens from ${done[i]} on`)
      done[i] += count
    }
    const fork = sessions[0].fork()
    const more = await fork.forward([7])
    expectSameBits(await sessions[0].forward([7]), more, 'a fork')
    for (const session of [...sessions, fork]) await session.dispose()
  })

  test('every token of context costs its keys and values, for each resident sequence', async () => {
    const bytesOf = async (contextLength: number, maxBatch: number): Promise<MemoryBytes> => {
      await using mamba = await Mamba.load(HYBRID, { contextLength, maxBatch, threads: 1 })
      return mamba.backend.memoryBytes
    }
    // Bamba's fixture has one layer of attention, two heads of keys of 8 columns: 128 bytes a token.
    const [short, long, three] = [await bytesOf(320, 1), await bytesOf(3200, 1), await bytesOf(3200, 3)]
    expect([short, long, three].map(({ statePerToken }) => statePerToken)).toEqual([128, 128, 384])
    expect(long.state - short.state).toBe(2880 * 128)
    expect(three.state).toBe(3 * long.state)
  })

  test('by default as many as the model was made for, but at most 4096', async () => {
    for (const [name, most] of [['granitemoehybrid', 2048], ['jamba', 4096]] as const) {
      await using mamba = await Mamba.load(fixtureModel(name), { maxBatch: 1 })
      await using session = mamba.session()
      await expectBeyond(() => session.append(Array.from({ length: most + 1 }, () => 1)), most, most + 1)
    }
  })

  test('a model whose context does not fit is told', async () => {
    const error = await reasonOf(() => Mamba.load(fixtureModel('zamba2'), { contextLength: 2 ** 20, maxBatch: 64 }))
    expect(error).toBeInstanceOf(RangeError)
    const most = Number(/with contextLength (\d+) it would fit/.exec(String(error))?.[1])
    const program = programOf('zamba2')
    const mapOf = (contextLength: number) => createMemoryMap(program, capacityOf(program, 64, contextLength), { heapBase: 0, nThreads: 1, formatOf: () => 'f32', further: furtherSizes })
    expect(mapOf(most).bytes.total).toBeLessThanOrEqual(2 ** 32)
    expect(mapOf(most + 64).bytes.total).toBeGreaterThan(2 ** 32)
  })
})

function programOf(name: string): Program {
  const config: JsonObject = JSON.parse(new TextDecoder().decode(filesOf(fixtureModel(name))['config.json']))
  return buildModel(readModelConfig(config), () => true).program
}

test.each([0, -1, 1.5, NaN, 2 ** 21, '100'])('contextLength %j is refused', async (contextLength) => {
  const error = await reasonOf(() => Mamba.load(HYBRID, { contextLength: untyped(contextLength) }))
  expect(error).toBeInstanceOf(RangeError)
  expect(String(error)).toMatch(/contextLength: expected an integer from 1 to/)
})

test('a pure state space model takes no notice of it', async () => {
  await using mamba = await Mamba.load(fixtureModel('mamba'), { contextLength: 3, threads: 1 })
  await using other = await Mamba.load(fixtureModel('mamba'), { threads: 1 })
  expect(mamba.backend.memoryBytes).toEqual(other.backend.memoryBytes)
  expect((await mamba.complete(IDS, { maxTokens: 5, ignoreEos: true })).ids.length).toBe(5)
})
