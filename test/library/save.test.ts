/** Sessions as bytes: the text goes on in another engine as if it had never moved, and no damaged or foreign bytes are ever taken. */
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CheckpointError, type LoadOptions, Mamba, type Session } from '../../src/index.ts'
import { encodeSession, decodeSession } from '../../src/state/saved-session.ts'
import { HASH_BYTES, hashOf } from '../../src/state/hash.ts'
import { reasonOf, untyped } from '../support/anything.ts'
import { expectSameBits, relativeError } from '../support/compare.ts'
import { filesOf, fixtureModel } from '../support/fixtures.ts'
import { createNumbers } from '../support/numbers.ts'

const numbers = createNumbers(5)
const IDS = Int32Array.from({ length: 60 }, () => numbers.integer(0, 159))
const OPTIONS = { maxTokens: 10, temperature: 0.9, seed: 4, ignoreEos: true, repetitionPenalty: 1.5 } as const

let mamba: Mamba
beforeAll(async () => {
  mamba = await Mamba.load(fixtureModel('mamba'))
})
afterAll(() => mamba.dispose())

async function savedAfter(ids: ArrayLike<number>, model = mamba): Promise<Uint8Array> {
  await using session = model.session()
  await session.append(ids)
  return session.save()
}

describe('a saved session goes on', () => {
  const states: Readonly<Record<string, (session: Session) => Promise<unknown>>> = {
    'fresh': async () => {},
    'with pending tokens': (session) => session.append(IDS, { defer: true }),
    'read, but for the last token': (session) => session.append(IDS),
    'read whole, its logits known': (session) => session.forward(IDS),
    'after a completion': async (session) => {
      await session.append(IDS)
      await session.complete(OPTIONS)
    }
  }

  test.each(Object.entries(states))('%s', async (_name, prepare) => {
    const stayed = mamba.session()
    await prepare(stayed)
    const bytes = await stayed.save()
    // Shared memory and odd places are fine.
    const moved = new Uint8Array(new SharedArrayBuffer(bytes.length + 1)).subarray(1)
    moved.set(bytes)
    const restored = await mamba.restore(moved)
    expect(restored.position).toBe(stayed.position)
    expect(await restored.save()).toEqual(bytes)
    if (stayed.position > 0) expect((await restored.complete(OPTIONS)).ids).toEqual((await stayed.complete(OPTIONS)).ids)
    expectSameBits(await restored.forward([9]), await stayed.forward([9]), 'logits')
    await Promise.all([stayed.dispose(), restored.dispose()])
  })

  const engines: readonly (readonly [string, LoadOptions])[] = [
    ['scalar', { build: 'scalar', threads: 1 }], ['simd', { build: 'simd', threads: 1 }], ['two threads', { threads: 2 }], ['one slot', { maxBatch: 1 }], ['a cache', { prefixCache: { maxBytes: 1e6 } }]
  ]
  test.each(['mamba', 'mamba2_groups', 'falcon_mamba', 'bamba', 'jamba', 'zamba2'])('%s, from any engine in any other', async (name) => {
    const saved = new Map<string, Uint8Array>()
    let expected: readonly number[] | undefined
    for (const [engine, options] of engines) {
      await using model = await Mamba.load(fixtureModel(name), options)
      const ids = IDS.map((id) => id % model.config.vocabSize)
      saved.set(engine, await savedAfter(ids, model))
      for (const [from, bytes] of saved) {
        expect(bytes, `${from} and ${engine}`).toEqual(saved.get(engine))
        await using session = await model.restore(bytes)
        const { ids: tokens } = await session.complete(OPTIONS)
        expected ??= (await model.complete(ids, OPTIONS)).ids
        expect(tokens, `from ${from} in ${engine}`).toEqual(expected)
      }
    }
  })

  test('is of constant size, and has what the format says', async () => {
    const [short, long] = [await savedAfter(IDS.subarray(0, 2)), await savedAfter(IDS)]
    expect(short.length).toBe(long.length)
    const { nLayers, vocabSize, ...config } = mamba.config
    if (config.modelType !== 'mamba') throw new Error('another model')
    const stateSize = nLayers * config.dInner * (config.dState + config.dConv - 1)
    // Seal, fields, one pending id, seen ids, state.
    expect(long.length).toBe(36 + 36 + 4 + 4 * Math.ceil(vocabSize / 32) + 4 * stateSize)
    const view = new DataView(long.buffer)
    expect(new TextDecoder().decode(long.subarray(0, 8))).toBe('MAMBASES')
    expect([view.getUint32(8, true), view.getUint32(44, true), view.getUint32(48, true), view.getInt32(56, true)]).toEqual([1, 59, 1, IDS[59]])
    expect(Buffer.from(long.subarray(20, 36)).toString('hex')).toBe(mamba.fingerprint)
  })

  test('after the calls made before it', async () => {
    await using session = mamba.session()
    const appended = session.append(IDS)
    const bytes = await session.save()
    await appended
    expect(bytes).toEqual(await session.save())
  })

  test('rewinds as far as its own checkpoints reach', async () => {
    await using session = await mamba.restore(await savedAfter(IDS), { checkpoints: { every: 8, keep: 4 } })
    await session.append([1, 2, 3, 4])
    await session.rewind(4)
    expectSameBits(await session.forward([5]), await mamba.forward([...IDS, 5]), 'logits')
    await expect(session.rewind(30)).rejects.toThrow(RangeError)
  })
})

describe('bytes that are refused', () => {
  const expectRefused = async (bytes: Uint8Array, place: string, model = mamba): Promise<CheckpointError> => {
    const error = await reasonOf(() => model.restore(bytes))
    if (!(error instanceof CheckpointError)) throw new Error(`${place}: expected a CheckpointError, got ${String(error)}`)
    expect(error.message).toBe(`${error.place}: expected ${error.expected}, got ${error.got}`)
    return error
  }

  test('every byte changed', async () => {
    const model = { fingerprint: numbersBytes(HASH_BYTES), vocabSize: 40 }
    const state = createNumbers(1).floats(50)
    const bytes = encodeSession({ position: 5, pending: Int32Array.of(3, 39), seen: [0, 3, 39], lastLogits: createNumbers(2).floats(40), state }, model)
    expectSameBits(decodeSession(bytes, model, () => 50).state ?? new Float32Array(), state, 'unchanged')
    for (let at = 0; at < bytes.length; at++) {
      for (const flip of [1, 0x80, 0xff, numbers.integer(1, 255)]) {
        const changed = bytes.slice()
        changed[at] ^= flip
        expect(() => decodeSession(changed, model, () => 50), `byte ${at} ^ ${flip}`).toThrow(CheckpointError)
      }
    }
  })

  test('every byte of a real one, and every length', async () => {
    const bytes = await savedAfter(IDS)
    const step = Math.ceil(bytes.length / 700)
    for (let at = 0; at < bytes.length; at += at < 80 ? 1 : step) {
      const changed = bytes.slice()
      changed[at] ^= 1 << numbers.integer(0, 7)
      await expectRefused(changed, `byte ${at}`)
      await expectRefused(bytes.subarray(0, at), `${at} bytes`)
    }
    await expectRefused(Uint8Array.of(...bytes, 0), 'a byte more')
  })

  test('anything else', async () => {
    await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => void (await expectRefused(bytes, 'random bytes'))), { numRuns: 100, seed: 1 })
    expect(await reasonOf(() => mamba.restore(untyped('text')))).toBeInstanceOf(TypeError)
  })

  /** With a checksum that holds: the fields are checked by themselves. */
  const resealed = (bytes: Uint8Array, change: (view: DataView) => void): Uint8Array => {
    const changed = bytes.slice()
    change(new DataView(changed.buffer))
    changed.set(hashOf(changed.subarray(0, -HASH_BYTES)), changed.length - HASH_BYTES)
    return changed
  }

  test('a newer version, another model, and fields that do not fit, each by its name', async () => {
    const bytes = await savedAfter(IDS)
    const cases: readonly (readonly [string, (view: DataView) => void])[] = [
      ['saved session: version', (view) => view.setUint32(8, 2, true)],
      ['saved session: model', (view) => view.setUint8(20, view.getUint8(20) ^ 1)],
      ['saved session: precision', (view) => view.setUint32(36, 3, true)],
      ['saved session: vocabSize', (view) => view.setUint32(40, 161, true)],
      ['saved session: position', (view) => view.setUint32(44, 2 ** 31, true)],
      // Lengths far beyond the bytes: refused before anything is allocated.
      ['saved session: nPending', (view) => view.setUint32(48, 2 ** 32 - 1, true)],
      ['saved session', (view) => view.setUint32(48, 2 ** 31 - 1, true)],
      ['saved session', (view) => view.setUint32(48, 2, true)],
      ['saved session', (view) => view.setUint32(52, 1, true)],
      ['saved session: hasLogits', (view) => view.setUint32(52, 2, true)],
      ['saved session: pending[0]', (view) => view.setInt32(56, 160, true)],
      ['saved session: state, element 3', (view) => view.setFloat32(56 + 4 + 20 + 12, NaN, true)]
    ]
    for (const [place, change] of cases) expect((await expectRefused(resealed(bytes, change), place)).place).toBe(place)
  })

  test('of another model, dtype or arithmetic', async () => {
    const bytes = await savedAfter(IDS)
    for (const [source, options] of [
      [fixtureModel('mamba_bias_untied'), {}], [fixtureModel('mamba'), { dtype: 'q8_0' }], [fixtureModel('mamba'), { dtype: 'bf16' }],
      [fixtureModel('mamba'), { backend: 'reference' }], [fixtureModel('mamba'), { relaxed: true }]
    ] as const) {
      await using other = await Mamba.load(source, options)
      expect((await expectRefused(bytes, source, other)).place).toBe('saved session: model')
    }
  })

  test('a disposed session has none', async () => {
    const session = mamba.session()
    await session.dispose()
    expect(await reasonOf(() => session.save())).toBeInstanceOf(TypeError)
  })

  test('a precision that is none', async () => {
    await using session = mamba.session()
    expect(await reasonOf(() => session.save({ precision: untyped('f64') }))).toBeInstanceOf(RangeError)
  })
})

describe('the fingerprint', () => {
  test('is the same from one file and from shards, in any engine', async () => {
    await using sharded = await Mamba.load(fixtureModel('mamba_sharded'), { threads: 2 })
    await using scalar = await Mamba.load(filesOf(fixtureModel('mamba')), { build: 'scalar' })
    expect(sharded.fingerprint).toBe(mamba.fingerprint)
    expect(scalar.fingerprint).toBe(mamba.fingerprint)
    expect(mamba.fingerprint).toMatch(/^[0-9a-f]{32}$/)
  })

  test('differs for every tensor’s bytes, and for the config', async () => {
    const files = filesOf(fixtureModel('mamba'))
    const seen = new Set([mamba.fingerprint])
    const weights = files['model.safetensors']
    const dataStart = 8 + Number(new DataView(weights.buffer).getBigUint64(0, true))
    const header: Record<string, { data_offsets?: [number, number] }> = JSON.parse(new TextDecoder().decode(weights.subarray(8, dataStart)))
    const tensors = Object.values(header).flatMap(({ data_offsets: offsets }) => (offsets ? [offsets] : []))
    for (const [start, end] of tensors) {
      const changed = weights.slice()
      // The lowest bit of a number in it.
      changed[dataStart + start + 4 * numbers.integer(0, (end - start) / 4 - 1)] ^= 1
      await using model = await Mamba.load({ ...files, 'model.safetensors': changed })
      seen.add(model.fingerprint)
    }
    const config = JSON.parse(new TextDecoder().decode(files['config.json']))
    await using other = await Mamba.load({ ...files, 'config.json': new TextEncoder().encode(JSON.stringify({ ...config, layer_norm_epsilon: 2e-5 })) })
    seen.add(other.fingerprint)
    expect(seen.size).toBe(tensors.length + 2)
  })
})

describe('precision', () => {
  test('f16 and q8 take a half and a quarter of the room, and the logits are near', async () => {
    await using session = mamba.session()
    await session.append(IDS)
    const exact = await session.save()
    await using fork = session.fork()
    const logits = await fork.forward([9])
    for (const [precision, share, bound] of [['f16', 0.5, 2e-3], ['q8', 34 / 128, 5e-2]] as const) {
      const bytes = await session.save({ precision })
      expect(bytes.length / exact.length).toBeGreaterThan(share - 0.01)
      expect(bytes.length / exact.length).toBeLessThan(share + 0.01)
      await using restored = await mamba.restore(bytes)
      const error = relativeError(await restored.forward([9]), logits)
      expect(error).toBeGreaterThan(0)
      expect(error).toBeLessThan(bound)
    }
  })

  test('a state beyond the range of halves is a RangeError', () => {
    const model = { fingerprint: numbersBytes(HASH_BYTES), vocabSize: 4 }
    const session = { position: 1, pending: new Int32Array(0), seen: [], lastLogits: null, state: Float32Array.of(1, 70_000, 2) }
    expect(() => encodeSession(session, model, { precision: 'f16' })).toThrow('state, element 1')
    expect(decodeSession(encodeSession(session, model), model, () => 3).state).toEqual(session.state)
  })
})

function numbersBytes(length: number): Uint8Array {
  return Uint8Array.from({ length }, () => numbers.integer(0, 255))
}
