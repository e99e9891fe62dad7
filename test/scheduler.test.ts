/** Turns of the engine on a backend that is watched: who is in which forward, who waits how long, and what one request's trouble does to the others. */
import { afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { type Batch, type Best, type Capacity, logitRows, type SteppingBackend } from '../src/backend/backend.ts'
import { createEngine, type Engine, type Sequence } from '../src/engine.ts'
import { EngineError } from '../src/errors.ts'
import { type LoadedModel, openModel } from './support/backends.ts'
import { expectSameBits } from './support/compare.ts'
import { fixtureModel } from './support/fixtures.ts'
import { createNumbers } from './support/numbers.ts'

const numbers = createNumbers(21)
const idsOf = (length: number): Int32Array => Int32Array.from({ length }, () => numbers.integer(0, 159))

let model: LoadedModel
beforeAll(async () => {
  model = await openModel(fixtureModel('mamba'))
})
afterEach(() => {
  vi.restoreAllMocks()
})

interface Watched {
  readonly engine: Engine
  readonly batches: Batch[]
  readonly backend: SteppingBackend
}

/** `before` is called with each batch, before its forward. */
async function watched(nSlots: number, { before, maxRows = 64 }: { before?: (batch: Batch, index: number) => void, maxRows?: number } = {}): Promise<Watched> {
  const capacity: Capacity = { maxRows, maxLogitRows: 16, nSlots, contextLength: 0 }
  const backend = await model.load('simd', capacity)
  const batches: Batch[] = []
  const forward: SteppingBackend['forward'] = async (batch, logits) => {
    batches.push({ tokens: batch.tokens.slice(), segments: batch.segments })
    before?.(batch, batches.length - 1)
    await backend.forward(batch, logits)
  }
  return { engine: createEngine({ ...backend, forward }), batches, backend }
}

/** Logits of the last token, read alone. */
async function alone(ids: Int32Array): Promise<Float32Array> {
  const { engine } = await watched(1)
  return lastLogits(engine, engine.sequence(), ids)
}

async function lastLogits(engine: Engine, sequence: Sequence, ids: Int32Array): Promise<Float32Array> {
  let result = new Float32Array(0)
  await engine.run(sequence, ids, 'last', { onLogits: (logits) => (result = logits.slice()) })
  return result
}

/** `nSteps` steps, each asked for as soon as the one before is there. */
async function generate(engine: Engine, sequence: Sequence, nSteps: number, onStep: (step: number) => void = () => {}): Promise<void> {
  for (let step = 0; step < nSteps; step++) {
    await lastLogits(engine, sequence, Int32Array.of(step))
    onStep(step)
  }
}

describe('a turn', () => {
  test('has all who ask, one row for each step', async () => {
    const { engine, batches } = await watched(5)
    await Promise.all(Array.from({ length: 5 }, () => generate(engine, engine.sequence(), 20)))
    expect(batches.map(({ segments }) => segments.length)).toEqual(Array.from({ length: 20 }, () => 5))
    expect(engine.stats).toMatchObject({ turns: 20, tokens: 100, batchSizes: [0, 0, 0, 0, 0, 20], running: 0, waiting: 0, seated: 5, moves: 0 })
  })

  test('waits for those who come a turn of the event loop later', async () => {
    const { engine, batches } = await watched(4)
    await Promise.all(Array.from({ length: 4 }, async () => {
      const sequence = engine.sequence()
      for (let step = 0; step < 10; step++) {
        await lastLogits(engine, sequence, Int32Array.of(step))
        await new Promise((resolve) => setImmediate(resolve))
      }
    }))
    expect(batches.filter(({ segments }) => segments.length === 4).length).toBeGreaterThanOrEqual(9)
  })

  test('reads prompts of several in equal parts, and a short one whole', async () => {
    const { engine, batches } = await watched(4)
    const prompts = [500, 20, 500].map(idsOf)
    const logits = await Promise.all(prompts.map((ids) => lastLogits(engine, engine.sequence(), ids)))
    expect(batches[0].segments.map(({ nRows }) => nRows)).toEqual([22, 20, 22])
    expect(batches.slice(1, -1).every(({ tokens }) => tokens.length === 64)).toBe(true)
    for (const [i, ids] of prompts.entries()) expectSameBits(logits[i], await alone(ids), `prompt ${i}`)
  })

  test('has one request of a sequence at a time, in the order of the calls', async () => {
    const { engine, batches } = await watched(2)
    const sequence = engine.sequence()
    const parts = [30, 1, 100, 2].map(idsOf)
    const logits = await Promise.all(parts.map((ids) => lastLogits(engine, sequence, ids)))
    expect(batches.every(({ segments }) => segments.length === 1)).toBe(true)
    expectSameBits(logits[3], await alone(Int32Array.from(parts.flatMap((ids) => [...ids]))), 'all four')
  })
})

describe('the best token alone', () => {
  interface Finding {
    readonly engine: Engine
    /** Of each turn: whether the backend gave the best tokens or the logits. */
    readonly turns: ('best' | 'best, going on' | 'logits')[]
  }

  /** As on a backend that finds the best tokens by itself. */
  async function finding(nSlots: number): Promise<Finding> {
    const { backend } = await watched(nSlots)
    const vocabSize = backend.program.logits?.width ?? 0
    const turns: Finding['turns'] = []
    const forward: SteppingBackend['forward'] = (batch, logits) => {
      turns.push('logits')
      return backend.forward(batch, logits)
    }
    const forwardBest = async (batch: Batch, goesOn?: boolean): Promise<Best[]> => {
      turns.push(goesOn ? 'best, going on' : 'best')
      const logits = new Float32Array(logitRows(batch).length * vocabSize)
      await backend.forward(batch, logits)
      return Array.from({ length: logits.length / vocabSize }, (_, row) => {
        const own = logits.subarray(row * vocabSize, (row + 1) * vocabSize)
        const logit = Math.max(...own)
        return { id: own.indexOf(logit), logit }
      })
    }
    return { engine: createEngine({ ...backend, forward, forwardBest }), turns }
  }

  /** A greedy generation, by whichever comes. */
  async function greedy(engine: Engine, prompt: Int32Array, nSteps: number): Promise<number[]> {
    const [sequence, ids] = [engine.sequence(), [...prompt]]
    for (let step = 0; step < nSteps; step++) {
      await engine.run(sequence, Int32Array.from(ids.slice(sequence.position)), 'last', {
        onLogits: (logits) => ids.push(logits.indexOf(Math.max(...logits))),
        onBest: ({ id }) => ids.push(id)
      })
    }
    return ids.slice(prompt.length)
  }

  test('of a turn in which nobody wants logits', async () => {
    const prompts = [100, 3, 1].map(idsOf)
    const [plain, { engine, turns }] = [await watched(3), await finding(3)]
    const want = await Promise.all(prompts.map((prompt) => greedy(plain.engine, prompt, 5)))
    expect(await Promise.all(prompts.map((prompt) => greedy(engine, prompt, 5)))).toEqual(want)
    expect(new Set(turns)).toEqual(new Set(['best']))
  })

  test('not of one in which somebody does, and each gets what it gets alone', async () => {
    const { engine, turns } = await finding(3)
    const prompt = idsOf(20)
    const [ids, logits] = await Promise.all([greedy(engine, prompt, 5), lastLogits(engine, engine.sequence(), idsOf(7))])
    expect(turns).toEqual(['logits', 'best', 'best', 'best', 'best'])
    expect(logits).toHaveLength(160)
    expect(ids).toEqual(await greedy((await watched(1)).engine, prompt, 5))
  })

  test('a lone sequence that goes on says so', async () => {
    const { engine, turns } = await finding(2)
    const run = (sequence: Sequence, ids: Int32Array, goesOn: boolean): Promise<void> => engine.run(sequence, ids, 'last', { onBest() {}, goesOn })
    const [a, b] = [engine.sequence(), engine.sequence()]
    await run(a, idsOf(100), true)
    await run(a, idsOf(1), false)
    await Promise.all([run(a, idsOf(1), true), run(b, idsOf(1), true)])
    expect(turns).toEqual(['logits', 'best, going on', 'best', 'best'])
  })

  test('not where all of a prompt is read without any', async () => {
    const { engine, turns } = await finding(2)
    await engine.run(engine.sequence(), idsOf(30), 'none', { onBest: () => expect.fail('nothing was asked for') })
    expect(turns).toEqual(['logits'])
  })
})

describe('a long prompt beside steps', () => {
  /** A clock that only forwards move: 4 ms a row. */
  function slowClock(): (batch: Batch) => void {
    let nowMs = 0
    vi.spyOn(performance, 'now').mockImplementation(() => nowMs)
    return ({ tokens }) => (nowMs += 4 * tokens.length)
  }

  test('a turn stays within 50 ms, and every step is in the next turn', async () => {
    const { engine, batches } = await watched(3, { before: slowClock() })
    const steps: number[] = []
    const prompt = idsOf(600)
    const [logits] = await Promise.all([
      lastLogits(engine, engine.sequence(), prompt),
      generate(engine, engine.sequence(), 40, () => steps.push(batches.length))
    ])
    expectSameBits(logits, await alone(prompt), 'the prompt')
    expect(steps).toEqual(steps.map((_, i) => steps[0] + i))
    const rows = batches.filter(({ segments }) => segments.length === 2).map(({ tokens }) => tokens.length)
    expect(rows.length).toBeGreaterThanOrEqual(35)
    // What a row takes is measured in the first turns; 12 of them take 48 ms.
    expect(rows.slice(8)).toEqual(rows.slice(8).map(() => 12))
  })

  test('a prompt alone has all rows at once, and again 100 ms after the last step', async () => {
    const { engine, batches } = await watched(3, { before: slowClock() })
    await lastLogits(engine, engine.sequence(), idsOf(256))
    expect(batches.map(({ tokens }) => tokens.length)).toEqual([64, 64, 64, 64])
    // The stream pauses; its next step may come at any moment.
    const stream = engine.sequence()
    await generate(engine, stream, 1)
    await lastLogits(engine, engine.sequence(), idsOf(200))
    expect(batches.slice(5).map(({ tokens }) => tokens.length)).toEqual([12, 12, 12, 64, 64, 36])
  })

  test('a released stream is not waited for', async () => {
    const { engine, batches } = await watched(3, { before: slowClock() })
    await lastLogits(engine, engine.sequence(), idsOf(64))
    const stream = engine.sequence()
    await generate(engine, stream, 1)
    await engine.release(stream)
    await lastLogits(engine, engine.sequence(), idsOf(64))
    expect(batches.at(-1)?.tokens.length).toBe(64)
  })
})

describe('more sequences than slots', () => {
  test.each([[2, 7], [3, 4], [1, 5]])('%i slots, %i generations: all go on, none far ahead, and few states move', async (nSlots, nStreams) => {
    let nowMs = 0
    vi.spyOn(performance, 'now').mockImplementation(() => nowMs)
    const { engine, batches } = await watched(nSlots, { before: () => (nowMs += 10) })
    const done = Array.from({ length: nStreams }, () => 0)
    let mostApart = 0
    await Promise.all(done.map((_, i) => generate(engine, engine.sequence(), 100, (step) => {
      done[i] = step + 1
      if (done.every((count) => count < 100)) mostApart = Math.max(mostApart, Math.max(...done) - Math.min(...done))
    })))
    expect(done.every((count) => count === 100)).toBe(true)
    // A tenancy is ten turns here: the rounds of all differ by no more than two.
    expect(mostApart).toBeLessThanOrEqual(22)
    expect(batches.length).toBeLessThanOrEqual(Math.ceil((100 * nStreams) / nSlots) + 110)
    // Each leaves after ten turns of its own.
    expect(engine.stats.moves).toBeLessThanOrEqual(10 * nStreams)
    expect(engine.stats.seated).toBe(nSlots)
  })

  test('a prompt of many turns does not keep a seat for ever', async () => {
    let nowMs = 0
    vi.spyOn(performance, 'now').mockImplementation(() => nowMs)
    const { engine, batches } = await watched(1, { before: ({ tokens }) => (nowMs += tokens.length) })
    let atStep = 0
    const prompts = [2000, 2000].map(async (length) => lastLogits(engine, engine.sequence(), idsOf(length)))
    await generate(engine, engine.sequence(), 1, () => (atStep = batches.length))
    expect(atStep).toBeLessThanOrEqual(6)
    await Promise.all(prompts)
  })
})

describe('trouble of one', () => {
  test('its signal takes it out, whether it reads or waits; the others never notice', async () => {
    const { engine, batches } = await watched(2)
    const [reading, waiting] = [new AbortController(), new AbortController()]
    const prompts = [2000, 700, 2000, 300].map(idsOf)
    const onProgress = (): void => {
      reading.abort('a')
      waiting.abort('b')
    }
    const sequences = prompts.map(() => engine.sequence())
    const [first, second, third, fourth] = await Promise.allSettled([
      engine.run(sequences[0], prompts[0], 'last', { signal: reading.signal, onProgress }),
      lastLogits(engine, sequences[1], prompts[1]),
      engine.run(sequences[2], prompts[2], 'last', { signal: waiting.signal }),
      lastLogits(engine, sequences[3], prompts[3])
    ])
    expect([first, third]).toEqual([{ status: 'rejected', reason: 'a' }, { status: 'rejected', reason: 'b' }])
    expect(sequences[0].position).toBe(32)
    expect(sequences[2].position).toBe(0)
    expect(batches.length).toBeLessThan(20)
    for (const [i, result] of [[1, second], [3, fourth]] as const) {
      if (result.status !== 'fulfilled') throw result.reason
      expectSameBits(result.value, await alone(prompts[i]), `prompt ${i}`)
    }
    expect(engine.stats).toMatchObject({ running: 0, waiting: 0 })
  })

  test('what its callbacks throw rejects it alone', async () => {
    const { engine } = await watched(3)
    const ids = idsOf(100)
    const failure = new Error('mine')
    const throwing = (): void => {
      throw failure
    }
    const results = await Promise.allSettled([
      engine.run(engine.sequence(), ids, 'last', { onProgress: throwing }), engine.run(engine.sequence(), ids, 'all', { onLogits: throwing }), lastLogits(engine, engine.sequence(), ids)
    ])
    expect(results.slice(0, 2)).toEqual([{ status: 'rejected', reason: failure }, { status: 'rejected', reason: failure }])
    expect(results[2]).toMatchObject({ status: 'fulfilled' })
    expectSameBits(await lastLogits(engine, engine.sequence(), ids), await alone(ids), 'later')
  })

  test('no memory for the state that makes room: one rejects, and nobody is half moved', async () => {
    const { engine: plain, backend } = await watched(1)
    let isFull = false
    const engine = createEngine({
      ...backend,
      async readState(...place) {
        if (isFull) throw new RangeError('Array buffer allocation failed')
        return backend.readState(...place)
      }
    })
    const [a, b] = [engine.sequence(), engine.sequence()]
    const ids = idsOf(20)
    await lastLogits(engine, a, ids)
    isFull = true
    await expect(lastLogits(engine, b, ids)).rejects.toThrow('Array buffer allocation failed')
    isFull = false
    expectSameBits(await lastLogits(engine, b, ids), await alone(ids), 'the one that was refused')
    expectSameBits(await lastLogits(engine, a, Int32Array.of(3)), await alone(Int32Array.of(...ids, 3)), 'the one that stayed')
    await plain.dispose()
  })
})

describe('trouble of all', () => {
  test('a forward that fails: every request rejects with the reason, later ones too, and the engine says so', async () => {
    const cause = new Error('unreachable')
    const { engine } = await watched(2, { before(_, index) {
      if (index === 3) throw cause
    } })
    expect(engine.stats.failure).toBeNull()
    const sequences = Array.from({ length: 6 }, () => engine.sequence())
    const results = await Promise.allSettled(sequences.map((sequence) => lastLogits(engine, sequence, idsOf(900))))
    for (const result of results) expect(result).toMatchObject({ status: 'rejected', reason: { name: 'EngineError', message: 'engine: expected a forward that ends, got unreachable', cause } })
    await expect(lastLogits(engine, engine.sequence(), idsOf(1))).rejects.toBeInstanceOf(EngineError)
    await expect(engine.snapshot(sequences[0])).rejects.toBeInstanceOf(EngineError)
    expect(engine.stats).toMatchObject({ running: 0, waiting: 0, failure: { name: 'EngineError' } })
    await Promise.all(sequences.map((sequence) => engine.release(sequence)))
    expect(engine.stats.seated).toBe(0)
    await engine.dispose()
  })

  test('dispose rejects what still waits', async () => {
    const { engine } = await watched(1)
    const results = Promise.allSettled([1, 2, 3].map(() => lastLogits(engine, engine.sequence(), idsOf(5000))))
    await Promise.resolve()
    await engine.dispose()
    for (const result of await results) expect(result).toMatchObject({ status: 'rejected', reason: { name: 'TypeError' } })
  })
})
