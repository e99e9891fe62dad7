/** Damages the tiny checkpoint's files at random and loads them: whatever comes must be an answer or one of this package's errors. */
import * as fc from 'fast-check'
import { expect } from 'vitest'
import { Mamba } from '../../src/mamba.ts'
import { configText, tinyConfig, tinyFiles } from './tiny-checkpoint.ts'

type Files = ReturnType<typeof tinyFiles>

/** One change of one file. */
export interface Mutation {
  readonly name: string
  apply(files: Files): Files
}

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)
const utf8 = (value: string): Uint8Array => new TextEncoder().encode(value)

const odd: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom(0, -1, 1, 2, 3, 31, 33, 64, 2 ** 16, 2 ** 20, 2 ** 31, 2 ** 32, 2 ** 53, 1e9, 1e300, -1e300, 0.5, NaN, Infinity, null, true, false, '', 'auto', 'mamba', 'gelu', '32'),
  fc.array(fc.integer(), { maxLength: 3 }), fc.dictionary(fc.string({ maxLength: 4 }), fc.integer(), { maxKeys: 2 }), fc.integer({ min: -5, max: 200 }), fc.double()
)

function withConfigBytes(name: string, change: (bytes: Uint8Array) => Uint8Array): Mutation {
  return { name, apply: (files) => ({ ...files, 'config.json': change(files['config.json']) }) }
}

function withWeights(name: string, change: (bytes: Uint8Array) => Uint8Array): Mutation {
  return { name, apply: (files) => ({ ...files, 'model.safetensors': change(files['model.safetensors']) }) }
}

const headerBytes = (bytes: Uint8Array): number => Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true))

/** A header in place of the file's own; the data stays. */
function withHeader(bytes: Uint8Array, change: (header: string) => string): Uint8Array {
  const dataStart = 8 + headerBytes(bytes)
  const header = utf8(change(text(bytes.subarray(8, dataStart))))
  const file = new Uint8Array(8 + header.length + bytes.length - dataStart)
  new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true)
  file.set(header, 8)
  file.set(bytes.subarray(dataStart), 8 + header.length)
  return file
}

function flip(bytes: Uint8Array, place: number, value: number): Uint8Array {
  const changed = bytes.slice()
  if (changed.length > 0) changed[Math.floor(place * changed.length)] ^= value
  return changed
}

const unit = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
const byte = fc.integer({ min: 1, max: 255 })
const configKeys = fc.constantFrom(...Object.keys(tinyConfig()), 'ssm_cfg', 'd_model', 'n_layer')

export const mutations: fc.Arbitrary<Mutation> = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(configKeys, odd).map(([key, value]) => withConfigBytes(`${key} is ${configText({ value })}`, (bytes) => utf8(configText({ ...JSON.parse(text(bytes)), [key]: value })))) },
  { weight: 1, arbitrary: configKeys.map((key) => withConfigBytes(`without ${key}`, (bytes) => utf8(text(bytes).replace(`"${key}"`, '"gone"')))) },
  { weight: 2, arbitrary: fc.tuple(unit, byte).map(([place, value]) => withConfigBytes(`config byte at ${place} ^ ${value}`, (bytes) => flip(bytes, place, value))) },
  { weight: 1, arbitrary: unit.map((place) => withConfigBytes(`config cut at ${place}`, (bytes) => bytes.subarray(0, Math.floor(place * bytes.length)))) },
  { weight: 4, arbitrary: fc.tuple(unit, byte).map(([place, value]) => withWeights(`header byte at ${place} ^ ${value}`, (bytes) => {
    const end = 8 + headerBytes(bytes)
    return Uint8Array.from([...flip(bytes.subarray(0, end), place, value), ...bytes.subarray(end)])
  })) },
  { weight: 3, arbitrary: fc.tuple(unit, odd).map(([place, value]) => withWeights(`a number of the header at ${place} is ${configText({ value })}`, (bytes) => withHeader(bytes, (header) => {
    const found = [...header.matchAll(/\d+/g)]
    const { 0: digits, index } = found[Math.floor(place * found.length)]
    return header.slice(0, index) + configText({ value }).slice(9, -1) + header.slice(index + digits.length)
  }))) },
  { weight: 2, arbitrary: fc.tuple(unit, fc.constantFrom('F64', 'I32', 'BF16', 'F16', 'U8', 'F4', 'Q', '')).map(([place, dtype]) => withWeights(`a type at ${place} is ${dtype}`, (bytes) => withHeader(bytes, (header) => {
    const found = [...header.matchAll(/"F32"/g)]
    const { index } = found[Math.floor(place * found.length)]
    return `${header.slice(0, index)}"${dtype}"${header.slice(index + 5)}`
  }))) },
  { weight: 3, arbitrary: fc.tuple(unit, byte).map(([place, value]) => withWeights(`data byte at ${place} ^ ${value}`, (bytes) => flip(bytes, 1 - (1 - place) * 0.9, value))) },
  { weight: 2, arbitrary: unit.map((place) => withWeights(`weights cut at ${place}`, (bytes) => bytes.subarray(0, Math.floor(place * bytes.length)))) },
  { weight: 1, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 20 }).map((more) => withWeights(`${more.length} bytes more`, (bytes) => Uint8Array.from([...bytes, ...more]))) },
  { weight: 1, arbitrary: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((length) => withWeights(`header length ${length}`, (bytes) => {
    const changed = bytes.slice()
    new DataView(changed.buffer).setBigUint64(0, length, true)
    return changed
  })) }
)

/** A change may find nothing to change in what another one left. */
function applyIfPossible(files: Files, mutation: Mutation): Files {
  try {
    return mutation.apply(files)
  } catch {
    return files
  }
}

const OUR_ERRORS = new Set(['CheckpointError', 'UnsupportedError'])

/** What came of it: 'loaded' or the error's name. Any other error fails the test. */
export async function outcomeOf(applied: readonly Mutation[]): Promise<string> {
  const files = applied.reduce(applyIfPossible, tinyFiles())
  try {
    await using mamba = await Mamba.load(files, { threads: 1 })
    // What loads must run: with finite weights logits may overflow, but nothing may trap or hang.
    const logits = await mamba.forward([1 % mamba.config.vocabSize])
    expect(logits.length).toBe(mamba.config.vocabSize)
    return 'loaded'
  } catch (error) {
    if (!(error instanceof Error)) throw new Error('what was thrown is no error', { cause: error })
    const isTooLarge = error instanceof RangeError && error.message.startsWith('wasm memory:')
    if (!OUR_ERRORS.has(error.name) && !isTooLarge) throw new Error(`after ${applied.map(({ name }) => name).join(' and ')}`, { cause: error })
    return isTooLarge ? 'RangeError' : error.name
  }
}

/** Runs many, within a bound of memory; prints what came of them. */
export async function checkMutations(numRuns: number, seed: number): Promise<void> {
  const outcomes = new Map<string, number>()
  const before = process.memoryUsage()
  await fc.assert(fc.asyncProperty(fc.array(mutations, { minLength: 1, maxLength: 3 }), async (applied) => {
    const outcome = await outcomeOf(applied)
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
  }), { numRuns, seed })
  console.log(`${numRuns} mutations: ${[...outcomes].map(([outcome, count]) => `${count} ${outcome}`).join(', ')}`)
  // Changes that leave the file valid come to be loaded, others do not: the mutations reach both.
  expect(outcomes.get('loaded')).toBeGreaterThan(numRuns / 50)
  expect(outcomes.get('CheckpointError')).toBeGreaterThan(numRuns / 3)
  // Garbage may wait to be collected, but not without bound.
  const after = process.memoryUsage()
  expect((after.heapUsed + after.arrayBuffers + after.external - before.heapUsed - before.arrayBuffers - before.external) / 2 ** 20).toBeLessThan(500)
}
