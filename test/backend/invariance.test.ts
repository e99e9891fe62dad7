/**
 * The promise: the same bits for prefill, chunks, steps and batches, in every build and with any number of threads. Random schedules of several sequences over
 * several forwards are compared with each sequence read alone, in one forward, by the scalar build.
 */
import * as fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { type Segment, stateElements, type SteppingBackend } from '../../src/backend/backend.ts'
import type { WeightFormat } from '../../src/program/formats.ts'
import { type Kind, type LoadedModel, openModel, WASM_KINDS } from '../support/backends.ts'
import { expectSameBits } from '../support/compare.ts'
import { fixtureModel, repositoryPath } from '../support/fixtures.ts'
import { createNumbers } from '../support/numbers.ts'

interface Case {
  readonly name: string
  readonly folder: string
  readonly format: WeightFormat
  /** Tokens of the longest sequence. */
  readonly longest: number
  readonly nRuns: number
}

const CASES: readonly Case[] = [
  { name: 'mamba', folder: fixtureModel('mamba'), format: 'f32', longest: 150, nRuns: 40 },
  ...(['bf16', 'q8_0', 'q4_0'] as const).map((format) => ({ name: 'mamba', folder: fixtureModel('mamba'), format, longest: 80, nRuns: 15 })),
  { name: 'mamba_bias_untied', folder: fixtureModel('mamba_bias_untied'), format: 'f32', longest: 80, nRuns: 15 },
  { name: 'falcon_mamba', folder: fixtureModel('falcon_mamba'), format: 'f32', longest: 80, nRuns: 10 },
  { name: 'mamba2', folder: fixtureModel('mamba2'), format: 'f32', longest: 100, nRuns: 20 },
  { name: 'mamba2_groups', folder: fixtureModel('mamba2_groups'), format: 'bf16', longest: 60, nRuns: 10 },
  // Sequences over more than two blocks of keys.
  ...['bamba', 'falcon_h1', 'granitemoehybrid', 'granitemoehybrid_moe', 'jamba', 'nemotron_h', 'zamba2'].map((name) => ({
    name, folder: fixtureModel(name), format: 'f32' as const, longest: 75, nRuns: 6
  })),
  ...(['q8_0', 'bf16'] as const).map((format) => ({ name: 'granitemoehybrid_moe', folder: fixtureModel('granitemoehybrid_moe'), format, longest: 75, nRuns: 6 })),
  { name: 'classics-8m', folder: repositoryPath('test/models/classics-8m'), format: 'f16', longest: 20, nRuns: 4 }
]
const MOST_SEQUENCES = 4
/** What the slot that nobody may touch has read; no more than any case's longest sequence. */
const BYSTANDER_TOKENS = 5

interface Alone {
  readonly tokens: Int32Array
  /** (nTokens, vocabSize) */
  readonly logits: Float32Array
  readonly state: Float32Array
}

/** One sequence's part in one forward. */
interface Turn {
  readonly nRows: number
  readonly logits: Segment['logits']
}

const turn: fc.Arbitrary<Turn> = fc.record({
  nRows: fc.oneof({ weight: 3, arbitrary: fc.nat(9) }, { weight: 1, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.nat(70) }),
  logits: fc.constantFrom('none', 'last', 'all')
})

interface Plan {
  readonly lengths: readonly number[]
  /** Turns of all sequences, round by round. */
  readonly turns: fc.Stream<Turn>
  /** Moves the slots, and the order of the segments. */
  readonly shift: number
}

function plans(longest: number): fc.Arbitrary<Plan> {
  return fc.record({
    lengths: fc.array(fc.integer({ min: 1, max: longest }), { minLength: 1, maxLength: MOST_SEQUENCES }),
    turns: fc.infiniteStream(turn),
    shift: fc.nat(MOST_SEQUENCES)
  })
}

function capacityFor(longest: number) {
  const maxRows = longest * MOST_SEQUENCES
  // One slot more than sequences: nobody may write to it.
  return { maxRows, maxLogitRows: maxRows, nSlots: MOST_SEQUENCES + 1, contextLength: longest }
}

function sequenceOf(length: number, seed: number, vocabSize: number): Int32Array {
  const numbers = createNumbers(seed)
  return Int32Array.from({ length }, () => numbers.integer(0, vocabSize - 1))
}

async function readAlone(backend: SteppingBackend, tokens: Int32Array): Promise<Alone> {
  const logits = new Float32Array(tokens.length * backend.program.vocabSize)
  await backend.clearState(0)
  await backend.forward({ tokens, segments: [{ slot: 0, position: 0, firstRow: 0, nRows: tokens.length, logits: 'all' }] }, logits)
  return { tokens, logits, state: await backend.readState(0, tokens.length) }
}

async function follow(backend: SteppingBackend, sequences: readonly Alone[], { turns, shift }: Plan): Promise<void> {
  const { vocabSize } = backend.program
  const slotOf = (i: number): number => (i + shift) % (MOST_SEQUENCES + 1)
  const bystander = slotOf(MOST_SEQUENCES)
  const guard = createNumbers(1).floats(stateElements(backend.program, BYSTANDER_TOKENS))
  await backend.writeState(bystander, BYSTANDER_TOKENS, guard)
  for (let i = 0; i < sequences.length; i++) await backend.clearState(slotOf(i))

  const done = sequences.map(() => 0)
  const logits = new Float32Array(backend.capacity.maxLogitRows * vocabSize)
  while (done.some((count, i) => count < sequences[i].tokens.length)) {
    const segments: (Segment & { readonly sequence: number })[] = []
    const tokens: number[] = []
    for (let k = 0; k < sequences.length; k++) {
      const sequence = (k + shift) % sequences.length
      const { nRows, logits }: Turn = turns.next().value
      const left = sequences[sequence].tokens.length - done[sequence]
      // The last in line reads a token where nobody else would: a round of nothing would never end.
      const count = Math.min(left, k === sequences.length - 1 && tokens.length === 0 ? Math.max(1, nRows) : nRows)
      if (count === 0) continue
      segments.push({ sequence, slot: slotOf(sequence), position: done[sequence], firstRow: tokens.length, nRows: count, logits })
      tokens.push(...sequences[sequence].tokens.subarray(done[sequence], done[sequence] + count))
    }
    if (segments.length === 0) continue
    await backend.forward({ tokens: Int32Array.from(tokens), segments }, logits)
    let row = 0
    for (const { sequence, nRows, logits: wanted } of segments) {
      const last = done[sequence] + nRows
      const first = wanted === 'all' ? done[sequence] : wanted === 'last' ? last - 1 : last
      const got = logits.subarray(row * vocabSize, (row + last - first) * vocabSize)
      expectSameBits(got, sequences[sequence].logits.subarray(first * vocabSize, last * vocabSize), `logits of sequence ${sequence}, tokens ${first} to ${last - 1}`)
      row += last - first
      done[sequence] = last
    }
  }
  for (const [i, { state, tokens }] of sequences.entries()) expectSameBits(await backend.readState(slotOf(i), tokens.length), state, `state of sequence ${i}`)
  expectSameBits(await backend.readState(bystander, BYSTANDER_TOKENS), guard, 'the state of a slot that no segment names')
}

describe.each(CASES)('$name, $format', ({ folder, format, longest, nRuns }) => {
  const backends = new Map<Kind, Promise<SteppingBackend>>()
  let opened: Promise<LoadedModel> | undefined
  const backendOf = (kind: Kind): Promise<SteppingBackend> => {
    opened ??= openModel(folder)
    const backend = backends.get(kind) ?? opened.then((model) => model.load(kind, capacityFor(longest), format))
    backends.set(kind, backend)
    return backend
  }

  /** The oracle's answers: the same for every kind, since the plans are. */
  const answers = new Map<string, Alone>()
  const oracleOf = async (length: number, seed: number): Promise<Alone> => {
    const oracle = await backendOf('scalar')
    const key = `${length} ${seed}`
    const alone = answers.get(key) ?? (await readAlone(oracle, sequenceOf(length, seed, oracle.program.vocabSize)))
    answers.set(key, alone)
    return alone
  }
  afterAll(async () => {
    for (const backend of backends.values()) await (await backend).dispose()
  })

  test.each(WASM_KINDS)('any schedule gives the same bits, %s', async (kind) => {
    const backend = await backendOf(kind)
    await fc.assert(fc.asyncProperty(plans(longest), async (plan) => {
      const alone: Alone[] = []
      for (const [i, length] of plan.lengths.entries()) alone.push(await oracleOf(length, i))
      await follow(backend, alone, plan)
    }), { numRuns: nRuns, seed: 20_241 })
  })

  test.each(WASM_KINDS)('token by token gives the same bits, %s', async (kind) => {
    const backend = await backendOf(kind)
    const { vocabSize } = backend.program
    const { tokens, logits, state } = await oracleOf(longest, 3)
    await backend.clearState(2)
    const row = new Float32Array(vocabSize)
    for (let t = 0; t < tokens.length; t++) {
      const segments: Segment[] = [{ slot: 2, position: t, firstRow: 0, nRows: 1, logits: 'last' }]
      await backend.forward({ tokens: tokens.subarray(t, t + 1), segments }, row)
      expectSameBits(row, logits.subarray(t * vocabSize, (t + 1) * vocabSize), `logits of token ${t}`)
    }
    expectSameBits(await backend.readState(2, tokens.length), state, 'state')
  })

  test('the sequences tell apart: other tokens give other logits', async () => {
    const backend = await backendOf('scalar')
    const [a, b] = [sequenceOf(8, 1, backend.program.vocabSize), sequenceOf(8, 2, backend.program.vocabSize)]
    expect((await readAlone(backend, a)).logits).not.toEqual((await readAlone(backend, b)).logits)
  })
})
