/**
 * Continuous batching: requests of many sequences meet in one forward, so that the weights are read once for all of them. Between two
 * turns sequences join and leave; long prompts are read in parts beside the steps of the others.
 */

import type { Backend, Best, Segment } from './backend/backend.ts'
import { EngineError } from './errors.ts'
import type { Lock } from './lock.ts'
import { opCost } from './program/ops.ts'
import { joinParts } from './turn.ts'
import { platform } from '#platform'

/** How much of a text has been read. */
export interface ReadProgress {
  readonly doneTokens: number
  readonly totalTokens: number
}

export interface RunOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: ReadProgress) => void) | undefined
  /** Takes the logits (nRows, vocabSize) of tokens [firstToken, firstToken + nRows); to be read before it returns. */
  readonly onLogits?: ((logits: Float32Array, firstToken: number) => void) | undefined
  /** Of the last token alone: takes the best one in place of the logits, where the backend finds it by itself and nobody else in the turn wants logits. */
  readonly onBest?: ((best: Best) => void) | undefined
  /** Whether the best token, as far as is known, will be read next. */
  readonly goesOn?: boolean | undefined
}

/** What a turn knows of a sequence. */
export interface Seatable {
  readonly slot: number | null
  /** Tokens read. */
  position: number
}

export interface Scheduler<S extends Seatable> {
  /** `Engine.run`. */
  run(sequence: S, ids: Int32Array, logits: Segment['logits'], options: RunOptions): Promise<void>
  /** Nobody waits for further requests of this sequence. */
  forget(sequence: S): void
  /** Rejects what waits, and what comes, with this error. */
  stop(error: Error): void
  /** Why it takes no requests. */
  readonly refusal: Error | null
  readonly counts: TurnCounts
}

export interface TurnCounts {
  /** Sequences in the forward under way. */
  readonly nRunning: number
  /** Sequences that wait for a turn. */
  readonly nWaiting: number
  /** Forwards so far; `batchSizes[n]` of them had n sequences. */
  readonly nTurns: number
  readonly batchSizes: readonly number[]
  /** Tokens read so far. */
  readonly nTokens: number
}

export interface SchedulerOptions<S extends Seatable> {
  readonly backend: Backend
  /** Whoever moves states holds it; a turn does. */
  readonly lock: Lock
  /** Gives a sequence its slot, where need be in place of the one used longest ago. Called under the lock. */
  readonly seat: (sequence: S) => Promise<number>
}

interface Request<S extends Seatable> {
  readonly sequence: S
  readonly ids: Int32Array
  readonly logits: Segment['logits']
  readonly options: RunOptions
  readonly resolve: () => void
  readonly reject: (reason: unknown) => void
  /** Tokens read. */
  nDone: number
  /** When the sequence got its slot; null without one. */
  seatedMs: number | null
}

/** Logits of a turn, where those of all tokens are wanted. */
const MAX_LOGIT_BYTES = 2 ** 22
/** A turn with somebody's step in it lasts about so long, whoever reads a prompt beside it. */
const TURN_MS = 50
/** Requests of so few tokens are steps of a generation, which must not wait for prompts. */
const STEP_ROWS = 16
/** A sequence that had a step so long ago is about to have the next one. */
const STREAM_MS = 100
/** While others wait a sequence gives its slot up after so long: a hundred times what moving states of mamba-130m takes (1 ms). */
const TENANCY_MS = 100
/** Turns of the microtask queue in which whoever got logits may draw a token and ask again: a generation in pieces, read by a loop, takes some 30. */
const GATHER_TICKS = 64
/** What an operation takes before anything was measured: 20 GFLOP/s. */
const MS_PER_COST = 5e-8

export function createScheduler<S extends Seatable>({ backend, lock, seat }: SchedulerOptions<S>): Scheduler<S> {
  const { maxRows, nSlots } = backend.capacity
  const vocabSize = backend.program.logits?.width ?? 1
  const maxLogits = Math.max(nSlots, Math.min(maxRows, Math.floor(MAX_LOGIT_BYTES / 4 / vocabSize)))
  /** Grows to what is asked for: a row for each sequence, or the logits of a chunk. */
  let logitBuffer = new Float32Array(vocabSize)
  let msPerRow = MS_PER_COST * backend.program.ops.reduce((sum, op) => sum + opCost(op), 0)
  /** In the order in which they came to wait. */
  let queue: Request<S>[] = []
  /** Sequences that got their logits in the turn before and are about to ask again. */
  const expected = new Set<S>()
  /** When each generation under way had its last step. */
  const streams = new Map<S, number>()
  const seatedMs = new WeakMap<S, number>()
  /** Loaded with the first turn that several sequences ask for. */
  let seats: typeof import('./seats.ts') | undefined
  let isAwake = false
  let refusal: Error | null = null
  let nRunning = 0
  let nTurns = 0
  let nTokens = 0
  const batchSizes = Array.from({ length: nSlots + 1 }, () => 0)

  const stop = (error: Error): void => {
    refusal ??= error
    expected.clear()
    for (const { reject } of queue.splice(0)) reject(refusal)
  }
  const remove = (request: Request<S>): void => {
    queue = queue.filter((other) => other !== request)
  }
  /** For what is the request's own: the others go on. */
  const refuse = (request: Request<S>, reason: unknown): void => {
    remove(request)
    request.reject(reason)
  }

  /**
   * Waits until those expected have asked again, so that a turn has them all; a lone sequence never waits longer than it takes itself.
   * Some come a turn of the event loop later, e.g. when they write to a stream.
   */
  const gather = async (leastTicks: number): Promise<void> => {
    for (let tick = 0; tick < leastTicks || (tick < GATHER_TICKS && expected.size > 0); tick++) await Promise.resolve()
    if (expected.size === 0 || queue.length === 0) return
    expected.clear()
    await platform.yieldToEventLoop()
  }

  /** Rows of a turn: all that fit where prompts alone are read, few where a generation's step is in it, or about to come. */
  const rowsFor = (chosen: readonly Request<S>[], nowMs: number): number => {
    for (const [sequence, lastMs] of streams) if (nowMs - lastMs > STREAM_MS) streams.delete(sequence)
    const nOthers = chosen.reduce((count, { sequence }) => count - Number(streams.has(sequence)), streams.size)
    const hasStep = nOthers > 0 || chosen.some(isStep)
    // The kernels take four rows at a time.
    const few = 4 * Math.max(1, Math.floor(TURN_MS / msPerRow / 4))
    return hasStep ? Math.min(maxRows, Math.max(chosen.length, few)) : maxRows
  }

  /** Whose requests are in this turn: in their slots, one request of a sequence, those in seats before the ones who take one. */
  const seatAll = async (nowMs: number): Promise<Request<S>[]> => {
    const firsts = new Map<S, Request<S>>()
    for (const request of queue) if (!firsts.has(request.sequence)) firsts.set(request.sequence, request)
    for (const request of firsts.values()) request.seatedMs = request.sequence.slot === null ? null : (seatedMs.get(request.sequence) ?? nowMs)
    const asking = [...firsts.values()]
    const taken = seats?.takeSeats(asking, { nSlots, tenancyMs: TENANCY_MS, nowMs })
    // Behind all who wait, with what else is asked for the same sequence.
    if (seats && taken?.displaced.length) queue = seats.moveBack(queue, taken.displaced)
    const seated: Request<S>[] = []
    for (const request of taken?.chosen ?? asking.slice(0, 1)) {
      try {
        if (request.seatedMs === null) seatedMs.set(request.sequence, nowMs)
        await seat(request.sequence)
        seated.push(request)
      } catch (reason) {
        // E.g. no memory for the state that had to make room; both sequences are as they were.
        refuse(request, reason)
      }
    }
    return seated
  }

  const turn = async (): Promise<void> => {
    const others = queue.filter(({ sequence }) => sequence !== queue[0].sequence)
    try {
      if (others.length > 0) seats ??= await import('./seats.ts')
    } catch (reason) {
      // It did not come: the first has its turn all the same.
      for (const request of others) refuse(request, reason)
    }
    for (const request of queue.filter(({ options }) => options.signal?.aborted)) refuse(request, request.options.signal?.reason)
    if (queue.length === 0) return
    const startMs = performance.now()
    const requests = await seatAll(startMs)
    if (requests.length === 0) return
    const demands = requests.map(({ ids, nDone, logits }) => ({ nLeft: ids.length - nDone, isAll: logits === 'all' }))
    const limits = { maxRows: rowsFor(requests, startMs), maxLogits }
    const rows = seats?.shareRows(demands, limits) ?? demands.map(({ nLeft, isAll }) => Math.min(nLeft, limits.maxRows, isAll ? maxLogits : Infinity))
    const { batch, nLogits, nAllLogits } = joinParts(requests.map(({ sequence, ids, nDone, logits }, i) => ({
      slot: sequence.slot ?? 0,
      position: sequence.position,
      tokens: ids.subarray(nDone, nDone + rows[i]),
      logits: logits === 'last' && nDone + rows[i] < ids.length ? 'none' : logits
    })))
    nRunning = requests.length
    const best = nAllLogits > 0 && requests.every(isGreedy) ? await backend.forwardBest?.(batch, queue.length === 1 && queue[0].options.goesOn) : undefined
    if (best === undefined) {
      if (logitBuffer.length < nAllLogits * vocabSize) logitBuffer = new Float32Array(nAllLogits * vocabSize)
      await backend.forward(batch, logitBuffer)
    }
    nRunning = 0
    const endMs = performance.now()
    if (batch.tokens.length >= 4) msPerRow += ((endMs - startMs) / batch.tokens.length - msPerRow) / 2
    nTurns++
    batchSizes[requests.length]++
    nTokens += batch.tokens.length
    let row = 0
    requests.forEach((request, i) => {
      const endRow = row + nLogits[i]
      request.sequence.position += rows[i]
      request.nDone += rows[i]
      if (isStep(request)) streams.set(request.sequence, endMs)
      answer(request, rows[i], best?.slice(row, endRow) ?? logitBuffer.subarray(row * vocabSize, endRow * vocabSize))
      row = endRow
    })
  }

  /** `nRead` more tokens are read; `found`: the logits of them, or of the last, where they are due, or its best token. */
  const answer = (request: Request<S>, nRead: number, found: Float32Array | readonly Best[]): void => {
    const { sequence, ids, nDone, options } = request
    try {
      if (found instanceof Float32Array) {
        if (found.length > 0) options.onLogits?.(found, request.logits === 'all' ? nDone - nRead : nDone - 1)
      } else for (const best of found) options.onBest?.(best)
      options.onProgress?.({ doneTokens: nDone, totalTokens: ids.length })
    } catch (reason) {
      refuse(request, reason)
      return
    }
    if (nDone < ids.length) return
    remove(request)
    if (request.logits !== 'none') expected.add(sequence)
    request.resolve()
  }

  /** Turns while there are requests. */
  const work = async (firstTicks: number): Promise<void> => {
    isAwake = true
    for (let leastTicks = firstTicks; queue.length > 0; leastTicks = 0) {
      await gather(leastTicks)
      expected.clear()
      try {
        await lock.run(turn)
      } catch (error) {
        // Nobody knows which states are half a step on.
        stop(error instanceof EngineError ? error : new EngineError({ place: 'engine', expected: 'a forward that ends', got: error instanceof Error ? error.message : String(error) }, { cause: error }))
        nRunning = 0
      }
    }
    isAwake = false
  }

  return {
    run: (sequence, ids, logits, options) =>
      new Promise((resolve, reject) => {
        if (refusal !== null) return reject(refusal)
        if (ids.length === 0) return resolve()
        const isExpected = expected.delete(sequence)
        queue.push({ sequence, ids, logits, options, resolve, reject, nDone: 0, seatedMs: null })
        // New calls made at once ask at about the same time; a lone generation need not wait for anybody.
        if (!isAwake) void work(isExpected ? 0 : GATHER_TICKS)
      }),
    forget(sequence) {
      expected.delete(sequence)
      streams.delete(sequence)
    },
    stop,
    get refusal() {
      return refusal
    },
    get counts() {
      return { nRunning, nWaiting: queue.length - nRunning, nTurns, batchSizes: [...batchSizes], nTokens }
    }
  }
}

/** Whether the best token is all that is asked for. */
function isGreedy({ logits, options }: Request<Seatable>): boolean {
  return logits === 'none' || (logits === 'last' && options.onBest !== undefined)
}

function isStep({ ids, logits }: Request<Seatable>): boolean {
  return ids.length <= STEP_ROWS && logits !== 'none'
}
