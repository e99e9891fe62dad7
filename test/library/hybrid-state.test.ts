/**
 * Sessions of a model with attention, whose state grows with the text: a small program made by hand, of a convolution and an attention layer. Forked,
 * rewound, saved and moved between few slots, each text must have the logits that it has when it is read from the start.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { stateElements, type SteppingBackend } from '../../src/backend/backend.ts'
import { createEngine, type Engine } from '../../src/engine.ts'
import { Session } from '../../src/index.ts'
import { ProgramBuilder } from '../../src/program/builder.ts'
import { elementsOf, type Program } from '../../src/program/ops.ts'
import { restoreText } from '../../src/saved-text.ts'
import { createPrefixCache } from '../../src/state/prefix-cache.ts'
import { decodeSession } from '../../src/state/saved-session.ts'
import type { Snapshot } from '../../src/state/snapshot.ts'
import { createTextModel } from '../../src/text.ts'
import { createBackend } from '../support/backends.ts'
import { expectSameBits } from '../support/compare.ts'
import { createNumbers } from '../support/numbers.ts'

const VOCAB = 24
const WIDTH = 16
const HEAD_DIM = 8
const CONTEXT = 90

function hybridProgram(): Program {
  const builder = new ProgramBuilder()
  const residual = builder.buffer('residual', WIDTH)
  const [q, key, value, mixed] = [builder.buffer('q', WIDTH), builder.buffer('key', HEAD_DIM), builder.buffer('value', HEAD_DIM), builder.buffer('mixed', WIDTH)]
  const weight = (name: string, ...shape: readonly number[]) => builder.parameter(name, shape)
  builder.add({ kind: 'embed', weight: weight('embedding', VOCAB, WIDTH), out: residual })
  builder.add({ kind: 'conv1d', x: residual, weight: weight('conv', WIDTH, 1, 4), bias: null, activation: 'silu', state: builder.state('conv', [WIDTH, 3]), out: mixed })
  builder.add({ kind: 'scaledAdd', x: mixed, factor: 1, accumulate: true, out: residual })
  for (const [view, name] of [[q, 'q'], [key, 'k'], [value, 'v']] as const) {
    builder.add({ kind: 'linear', x: residual, weight: weight(name, view.width, WIDTH), bias: null, out: view, accumulate: false })
  }
  builder.add({ kind: 'rotary', x: q, headDim: HEAD_DIM, rotaryDim: HEAD_DIM, theta: 10_000, out: q })
  builder.add({ kind: 'rotary', x: key, headDim: HEAD_DIM, rotaryDim: HEAD_DIM, theta: 10_000, out: key })
  const cache = builder.keyValue('attention', HEAD_DIM)
  builder.add({ kind: 'cacheKeyValue', key, value, cache, out: key })
  builder.add({ kind: 'attention', q, headDim: HEAD_DIM, scale: HEAD_DIM ** -0.5, cache, out: mixed })
  builder.add({ kind: 'scaledAdd', x: mixed, factor: 1, accumulate: true, out: residual })
  const [last, logits] = [builder.buffer('last', WIDTH, 'logit'), builder.buffer('logits', VOCAB, 'logit')]
  builder.add({ kind: 'gatherRows', x: residual, out: last })
  builder.add({ kind: 'linear', x: last, weight: weight('head', VOCAB, WIDTH), bias: null, out: logits, accumulate: false })
  return builder.build(logits, VOCAB)
}

// Not the reference backend: it computes in float64, and its state is rounded to float32 when it leaves a slot.
describe.each(['scalar', 'simd', '2 threads'] as const)('%s', (kind) => {
  let backend: SteppingBackend
  let engine: Engine
  const model = { fingerprint: new Uint8Array(16), vocabSize: VOCAB }
  const context = () => ({ ...model, engine, text: createTextModel(null, VOCAB, 'test'), eosTokenIds: [], prefixCache: null })
  const numbers = createNumbers(2)
  const IDS = Int32Array.from({ length: 70 }, () => numbers.integer(0, VOCAB - 1))

  beforeAll(async () => {
    backend = await createBackend(kind, hybridProgram(), { maxRows: 16, maxLogitRows: 16, nSlots: 2, contextLength: CONTEXT })
    for (const parameter of backend.program.parameters) backend.write(parameter, createNumbers(parameter.id + 1).floats(elementsOf(parameter.shape)), 0)
    engine = createEngine(backend)
  })
  afterAll(() => engine.dispose())

  const logitsAfter = async (...ids: readonly number[]): Promise<Float32Array> => {
    await using session = new Session(context())
    return session.forward(ids)
  }

  test('forks, of different lengths, in two slots', async () => {
    const session = new Session(context())
    const forks: Session[] = []
    for (let i = 0; i < 6; i++) {
      await session.append(IDS.subarray(10 * i, 10 * i + 10))
      forks.push(session.fork())
      await forks[i].append([i])
    }
    for (const [i, fork] of forks.entries()) {
      expectSameBits(await fork.forward([3]), await logitsAfter(...IDS.subarray(0, 10 * i + 10), i, 3), `fork ${i}`)
      await fork.dispose()
    }
    await session.dispose()
    expect(engine.snapshots.usage().nHeld).toBe(0)
  })

  test('rewound', async () => {
    await using session = new Session(context(), { checkpoints: { every: 9, keep: 4 } })
    await session.append(IDS)
    for (const [nTokens, end] of [[3, 67], [20, 47], [4, 43]] as const) {
      await session.rewind(nTokens)
      await using fork = session.fork()
      expectSameBits(await fork.forward([1]), await logitsAfter(...IDS.subarray(0, end), 1), `to ${end}`)
    }
  })

  test('saved and restored: the bytes grow with the text', async () => {
    const lengths: number[] = []
    for (const length of [1, 2, 30, 70]) {
      await using session = new Session(context())
      await session.append(IDS.subarray(0, length))
      const bytes = await session.save()
      const saved = decodeSession(bytes, model, (position) => stateElements(backend.program, position))
      expect(saved.state?.length ?? 0).toBe(length === 1 ? 0 : 3 * WIDTH + 2 * HEAD_DIM * (length - 1))
      await using restored = new Session(context(), {}, restoreText(bytes, context(), undefined))
      expectSameBits(await restored.forward([5]), await logitsAfter(...IDS.subarray(0, length), 5), `${length} tokens`)
      lengths.push(bytes.length)
    }
    expect(lengths[3] - lengths[2]).toBe(4 * 40 * 2 * HEAD_DIM)
  })

  test('from a prefix cache', async () => {
    const prefixCache = createPrefixCache<Snapshot>({ maxBytes: 20_000, letGo: (snapshot) => engine.snapshots.release(snapshot) })
    for (let i = 0; i < 30; i++) {
      await using session = new Session({ ...context(), prefixCache })
      const ids = [...IDS.subarray(0, 7 * (i % 9)), i % VOCAB, 2]
      expectSameBits(await session.forward(ids), await logitsAfter(...ids), `text ${i}`)
    }
    expect(prefixCache.metrics.hits).toBeGreaterThan(10)
    expect(prefixCache.metrics.evictions).toBeGreaterThan(0)
    prefixCache.clear()
    expect(engine.snapshots.usage().nHeld).toBe(0)
  })
})
