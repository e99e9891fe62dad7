/**
 * Everything at once, for a while: actors append, generate, fork, abort, leave, dispose and score on one model, whose threads, slots and limits change
 * from epoch to epoch, and which is disposed of under way. Every answer is compared with what must come: tokens and bits of the scalar build, read alone,
 * by a loop of ten lines that knows neither engine nor session.
 */
import { expect, test } from 'vitest'
import type { SteppingBackend } from '../../src/backend/backend.ts'
import { BusyError, createSampler, Mamba, type SamplerOptions, type Session } from '../../src/index.ts'
import { createLock } from '../../src/lock.ts'
import { openModel } from '../support/backends.ts'
import { firstDifference } from '../support/compare.ts'
import { fixtureModel } from '../support/fixtures.ts'
import { createNumbers } from '../support/numbers.ts'

const BUDGET_MS = 75_000
const EPOCH_MS = 5000
const N_ACTORS = 12
const MODELS = ['mamba', 'mamba2']
const LONGEST = 250
const SEED = Number(process.env['STRESS_SEED'] ?? Date.now() % 1e6)
const ABORTED = new Error('aborted by the test')

/** What is right. */
interface Oracle {
  /** Logits (nTokens − first, vocabSize) of the tokens of a text from `first` on. */
  logits(text: readonly number[], first: number): Promise<Float32Array>
  /** What generation goes on with. */
  next(text: readonly number[], count: number, options: SamplerOptions): Promise<number[]>
}

function createOracle(backend: SteppingBackend): Oracle {
  const { vocabSize } = backend.program
  const lock = createLock()
  const read = async (ids: readonly number[], position: number): Promise<Float32Array> => {
    const logits = new Float32Array(ids.length * vocabSize)
    if (position === 0) await backend.clearState(0)
    await backend.forward({ tokens: Int32Array.from(ids), segments: [{ slot: 0, position, firstRow: 0, nRows: ids.length, logits: 'all' }] }, logits)
    return logits
  }
  return {
    logits: (text, first) => lock.run(async () => (await read(text, 0)).slice(first * vocabSize)),
    next: (text, count, options) =>
      lock.run(async () => {
        const sampler = createSampler(options, vocabSize)
        sampler.observe([...new Set(text)])
        const ids: number[] = []
        let logits = await read(text, 0)
        while (ids.length < count) {
          ids.push(sampler.sample(logits.slice(-vocabSize)))
          sampler.observe(ids[ids.length - 1])
          if (ids.length < count) logits = await read(ids.slice(-1), text.length + ids.length - 1)
        }
        return ids
      })
  }
}

class Tally {
  /** Told with every mismatch. */
  place = ''
  readonly counts = new Map<string, number>()
  readonly mismatches: string[] = []
  mismatch(what: string): void {
    this.mismatches.push(`${this.place}: ${what}`)
  }
  count(name: string): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1)
  }
  bits(name: string, got: Float32Array, want: Float32Array): void {
    this.count(name)
    if (firstDifference(got, want) >= 0) this.mismatch(`${name}: element ${firstDifference(got, want)} of ${want.length}`)
  }
  ids(name: string, got: readonly number[], want: readonly number[]): void {
    this.count(name)
    if (got.join() !== want.join()) this.mismatch(`${name}: ${got.join()} for ${want.join()}`)
  }
}

interface Text {
  readonly session: Session
  ids: number[]
}

interface Stage {
  readonly mamba: Mamba
  readonly oracle: Oracle
  readonly tally: Tally
  /** The model is disposed of, or about to be. */
  isOver: boolean
}

/** One user: a few texts of its own, one action after the other until the model is gone. */
async function act(stage: Stage, seed: number): Promise<void> {
  const { mamba, oracle, tally } = stage
  const numbers = createNumbers(seed)
  const idsOf = (most: number): number[] => Array.from({ length: numbers.integer(1, most) }, () => numbers.integer(0, 95))
  const ticks = async (most: number): Promise<void> => {
    for (let tick = numbers.integer(0, most); tick > 0; tick--) await Promise.resolve()
  }
  const optionsOf = (): SamplerOptions => ({ seed: numbers.integer(0, 1000), temperature: numbers.integer(0, 3) / 2, topK: numbers.integer(0, 20), repetitionPenalty: numbers.integer(0, 1) ? 1 : 1.2 })
  const speculationOf = () => ({ speculation: numbers.integer(0, 1) === 0 ? { maxDraft: numbers.integer(1, 9), minMatch: numbers.integer(1, 2) } : undefined })
  /** A signal that comes sooner or later, or never. */
  const signalOf = (): AbortSignal => {
    const controller = new AbortController()
    void (numbers.integer(0, 1) === 0 ? ticks(400) : new Promise((resolve) => setTimeout(resolve, numbers.integer(0, 12)))).then(() => controller.abort(ABORTED))
    return controller.signal
  }
  /** The call's answer; null where it was aborted. */
  const abortable = async <T>(call: Promise<T>): Promise<T | null> => {
    try {
      return await call
    } catch (error) {
      if (error === ABORTED) return null
      throw error
    }
  }
  const texts: Text[] = []
  const begin = (): Text => {
    const text = { session: mamba.session(), ids: [] }
    texts.push(text)
    return text
  }
  const leave = async (text: Text): Promise<void> => {
    texts.splice(texts.indexOf(text), 1)
    await text.session.dispose()
  }
  const filled = async (text: Text): Promise<void> => {
    if (text.ids.length > 0) return
    const ids = idsOf(9)
    text.ids.push(...ids)
    await text.session.append(ids)
  }

  const actions: { readonly [name: string]: (text: Text) => Promise<void> } = {
    async append(text) {
      const ids = idsOf(numbers.integer(0, 5) === 0 ? 300 : 12)
      text.ids.push(...ids)
      await text.session.append(ids, { defer: numbers.integer(0, 2) === 0 })
      tally.count('append')
    },
    async appendAborted(text) {
      const ids = idsOf(300)
      // The tokens belong to the text, read or not.
      text.ids.push(...ids)
      await abortable(text.session.append(ids, { signal: signalOf() }))
      tally.ids('append, aborted', [text.session.position], [text.ids.length])
    },
    async forward(text) {
      const ids = idsOf(8)
      const allLogits = numbers.integer(0, 1) === 0
      const first = text.ids.length + (allLogits ? 0 : ids.length - 1)
      text.ids.push(...ids)
      tally.bits('forward', await text.session.forward(ids, { allLogits }), await oracle.logits(text.ids, first))
    },
    async complete(text) {
      await filled(text)
      const options = optionsOf()
      const maxTokens = numbers.integer(0, 25)
      const want = await oracle.next(text.ids, maxTokens, options)
      tally.ids('complete', (await text.session.complete({ ...options, ...speculationOf(), maxTokens, ignoreEos: true })).ids, want)
      text.ids.push(...want)
    },
    async completeAborted(text) {
      await filled(text)
      const [before, options, maxTokens] = [text.ids.length, optionsOf(), numbers.integer(1, 25)]
      const want = await oracle.next(text.ids, maxTokens, options)
      await abortable(text.session.complete({ ...options, ...speculationOf(), maxTokens, ignoreEos: true, signal: signalOf() }))
      const count = text.session.position - before
      tally.ids('complete, aborted', [Number(count >= 0 && count <= maxTokens)], [1])
      // The next comparison tells whether it was these.
      text.ids.push(...want.slice(0, count))
    },
    async pieces(text) {
      await filled(text)
      const [options, maxTokens] = [optionsOf(), numbers.integer(1, 25)]
      const want = await oracle.next(text.ids, maxTokens, options)
      const stopAfter = numbers.integer(1, 30)
      const got: number[] = []
      for await (const chunk of text.session.generate({ ...options, ...speculationOf(), maxTokens, ignoreEos: true })) {
        got.push(...chunk.ids)
        if (numbers.integer(0, 5) === 0) await new Promise((resolve) => setImmediate(resolve))
        if (got.length >= stopAfter) break
      }
      tally.ids('generate in pieces', got, want.slice(0, stopAfter))
      text.ids.push(...got)
    },
    async burst(text) {
      // Not one of them is awaited before the next is asked for.
      const calls: Promise<Float32Array | void>[] = []
      const wants: (readonly number[])[] = []
      for (let i = numbers.integer(2, 5); i > 0; i--) {
        const ids = idsOf(40)
        text.ids.push(...ids)
        wants.push([...text.ids])
        calls.push(i % 2 === 0 ? text.session.append(ids) : text.session.forward(ids))
        await ticks(10)
      }
      // Where one of them was refused the text is not known.
      for (const [i, logits] of (await Promise.all(calls)).entries()) {
        if (logits) tally.bits('forward in a burst', logits, await oracle.logits(wants[i], wants[i].length - 1))
      }
    },
    async fork(text) {
      if (texts.length > 3) await leave(texts[numbers.integer(0, texts.length - 1)])
      if (!texts.includes(text)) return
      const reading = numbers.integer(0, 1) === 0 ? actions['append'](text) : undefined
      const twin = { session: text.session.fork(), ids: [...text.ids] }
      texts.push(twin)
      try {
        await reading
        // After what the parent was asked for before.
        await twin.session.append([])
      } catch (error) {
        await leave(twin)
        throw error
      }
      tally.ids('fork', [twin.session.position], [twin.ids.length])
    },
    async drop(text) {
      const calls = Promise.all([abortable(text.session.append(idsOf(200), { signal: signalOf() })), text.session.append(idsOf(60))])
      const [ended] = await Promise.all([Promise.allSettled([calls]), ticks(30).then(() => leave(text))])
      if (ended[0].status === 'rejected') throw ended[0].reason
      tally.count('dispose')
    },
    async fresh() {
      const [ids, options, maxTokens] = [idsOf(250), optionsOf(), numbers.integer(0, 20)]
      const want = await oracle.next(ids, maxTokens, options)
      const done = await abortable(mamba.complete(ids, { ...options, ...speculationOf(), maxTokens, ignoreEos: true, signal: signalOf() }))
      tally.ids('complete of the model', done?.ids ?? want, want)
    },
    async score() {
      const ids = idsOf(120)
      const { logProbabilities } = await mamba.score(ids)
      const logits = await oracle.logits(ids.slice(0, -1), 0)
      const vocabSize = logits.length / Math.max(1, ids.length - 1)
      tally.count('score')
      logProbabilities.forEach((value, i) => {
        const row = logits.subarray(i * vocabSize, (i + 1) * vocabSize)
        const want = row[ids[i + 1]] - Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0))
        if (!(Math.abs(value - want) < 1e-9)) tally.mismatch(`score: ${value} for ${want}`)
      })
    }
  }
  const names = Object.keys(actions)
  while (!stage.isOver) {
    const text = texts.length > 0 ? texts[numbers.integer(0, texts.length - 1)] : begin()
    const name = names[numbers.integer(0, names.length - 1)]
    try {
      await actions[name](text)
    } catch (error) {
      if (stage.isOver && error instanceof TypeError && error.message.includes('disposed')) return
      if (error instanceof BusyError) {
        // What had been asked for and was refused is not known of a burst.
        tally.count('refused')
        if (texts.includes(text)) await leave(text)
      } else {
        tally.mismatch(`${name}: ${String(error)}`)
      }
    }
    if (text.ids.length > LONGEST && texts.includes(text)) await leave(text)
    if (texts.length === 0 || numbers.integer(0, 9) === 0) begin()
  }
}

test(`random actions of ${N_ACTORS} users at once, seed ${SEED}`, { timeout: BUDGET_MS + 60_000 }, async () => {
  const tally = new Tally()
  const oracles = new Map<string, Oracle>()
  for (const name of MODELS) {
    const backend = await (await openModel(fixtureModel(name))).load('scalar', { maxRows: 1500, maxLogitRows: 64, nSlots: 1, contextLength: 0 })
    oracles.set(name, createOracle(backend))
  }
  const numbers = createNumbers(SEED)
  const startMs = performance.now()
  let mostTogether = 0
  let nMoves = 0
  let epoch = 0
  for (; performance.now() - startMs < BUDGET_MS; epoch++) {
    const name = MODELS[epoch % MODELS.length]
    const oracle = oracles.get(name)
    if (oracle === undefined) throw new Error(name)
    const maxBatch = numbers.integer(1, 6)
    // Now and then there is no room for everybody.
    const maxQueue = epoch % 3 === 2 ? 4 : undefined
    const threads = numbers.integer(1, 2)
    const mamba = await Mamba.load(fixtureModel(name), { maxBatch, maxQueue, threads })
    tally.place = `epoch ${epoch}, ${name}, maxBatch ${maxBatch}, maxQueue ${maxQueue}, ${threads} threads`
    const stage: Stage = { mamba, oracle, tally, isOver: false }
    const actors = Array.from({ length: N_ACTORS }, (_, i) => act(stage, SEED + 1000 * epoch + i))
    await new Promise((resolve) => setTimeout(resolve, EPOCH_MS))
    // While they are at it.
    stage.isOver = true
    await mamba.dispose()
    await Promise.all(actors)
    const { batchSizes, moves, ...stats } = mamba.stats
    expect(stats).toMatchObject({ calls: 0, running: 0, waiting: 0, seated: 0 })
    mostTogether = Math.max(mostTogether, batchSizes.findLastIndex((count) => count > 0))
    nMoves += moves
  }
  const nActions = [...tally.counts.values()].reduce((sum, count) => sum + count, 0)
  console.log(`${nActions} actions in ${epoch} epochs, ${nMoves} states moved, up to ${mostTogether} sequences in a forward, ${tally.mismatches.length} mismatches`)
  console.log([...tally.counts].map(([name, count]) => `${name} ${count}`).join(', '))
  expect(tally.mismatches.slice(0, 5)).toEqual([])
  expect(tally.counts.size).toBeGreaterThanOrEqual(12)
  expect(nActions).toBeGreaterThan(1000)
  expect([mostTogether > 2, nMoves > 100]).toEqual([true, true])
})
