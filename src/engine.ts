/**
 * Sequences on a backend: state slots and who holds them, calls and how many of them at once. Whose tokens a forward reads says the scheduler.
 * A sequence that is not in a slot is parked: its canonical state in an array that nobody changes, so forks may share it.
 */

import { type Backend, stateElements } from './backend/backend.ts'
import { BusyError, messageOf } from './errors.ts'
import { createLock } from './lock.ts'
import { createScheduler, type RunOptions } from './scheduler.ts'
import { createSnapshotPool, type Snapshot, type SnapshotPool } from './state/snapshot.ts'

export type { RunOptions }

/** A sequence's state, in a slot, parked, or (neither) still fresh. */
export interface Sequence {
  slot: number | null
  /** Its state outside the slots; beside a slot it may be an earlier one. */
  parked: Snapshot | null
  /** Tokens read. */
  position: number
}

/** How busy a model is. */
export interface EngineStats {
  /** Calls that have begun and not ended. A generation in pieces begins with the first piece asked for. */
  readonly calls: number
  /** Calls that were refused with a BusyError. */
  readonly refusedCalls: number
  /** Sequences in the forward under way. */
  readonly running: number
  /** Sequences that wait for a turn. */
  readonly waiting: number
  /** Sequences whose state is in the engine's memory, `maxBatch` at most. */
  readonly seated: number
  /** States moved out of the engine's memory to make room, since loading. */
  readonly moves: number
  /** Tokens read since loading. */
  readonly tokens: number
  /** Forwards since loading. */
  readonly turns: number
  /** `batchSizes[n]` forwards had n sequences. */
  readonly batchSizes: readonly number[]
  /** Why it answers no calls any more; null while it does. */
  readonly failure: Error | null
}

export interface Engine {
  readonly backend: Backend
  readonly stats: EngineStats
  readonly snapshots: SnapshotPool
  /** A new sequence: fresh, or from a snapshot, of which it takes over the caller's hold. */
  sequence(snapshot?: Snapshot | null): Sequence
  /** The sequence's state as it is now, held for the caller; null for a fresh one. */
  snapshot(sequence: Sequence): Promise<Snapshot | null>
  /** Tokens that a sequence may have: the context of a model with attention; Infinity without attention. */
  readonly maxLength: number
  /** RangeError where a sequence of `length` tokens would go beyond `maxLength`. */
  checkLength(length: number): void
  /** Gives the sequence's slot and memory back. */
  release(sequence: Sequence): Promise<void>
  /** `task` as one: `dispose` waits for it, and it is refused (TypeError) after that. */
  operation<T>(task: () => Promise<T>): Promise<T>
  /** Counts a call in, until the function returned is called, once; throws a BusyError where there are as many as there may be. */
  admit(): () => void
  /** `task` as a call counted in, within an operation. */
  counted<T>(task: () => Promise<T>): Promise<T>
  /** `task` as an operation and a call counted in. */
  call<T>(task: () => Promise<T>): Promise<T>
  /**
   * Reads tokens, together with those of other sequences that are asked for meanwhile. Logits go to `onLogits`: of all tokens, of the last, or of none.
   * When it rejects (an abort comes between turns) the tokens before `sequence.position` have been read, and no others; after an EngineError none may count.
   * RangeError beyond the context, before anything is read.
   */
  run(sequence: Sequence, ids: Int32Array, logits: 'none' | 'last' | 'all', options?: RunOptions): Promise<void>
  dispose(): Promise<void>
}

export interface QueueOptions {
  /** Calls that may wait beside the `maxBatch` that run. */
  readonly maxQueue?: number | undefined
}

export const DEFAULT_MAX_QUEUE = 1024

export function createEngine(backend: Backend, { maxQueue = DEFAULT_MAX_QUEUE }: QueueOptions = {}): Engine {
  const { nSlots } = backend.capacity
  const maxCalls = nSlots + maxQueue
  const lock = createLock()
  const snapshots = createSnapshotPool((position) => stateElements(backend.program, position))
  /** Sequences in slots, the one used longest ago first. All changes are made under the lock. */
  const residents = new Set<Sequence>()
  const freeSlots = Array.from({ length: nSlots }, (_, i) => nSlots - 1 - i)
  let nMoves = 0
  let nCalls = 0
  let nRefused = 0
  let nOperations = 0
  let onIdle = (): void => {}
  /** Takes no further calls; those under way go on until the backend is gone. */
  let isClosing = false
  /** The one end that every call of `dispose` waits for. */
  let closed: Promise<void> | undefined

  /** Lets go of what is parked, which is no longer needed. */
  const unpark = (sequence: Sequence): void => {
    if (sequence.parked !== null) snapshots.release(sequence.parked)
    sequence.parked = null
  }
  /** Copies a resident's state, unless that was done since it last changed. */
  const copyOut = async (sequence: Sequence): Promise<void> => {
    const { slot, position } = sequence
    if (slot === null || position === 0 || sequence.parked?.position === position) return
    unpark(sequence)
    const snapshot = snapshots.take(position)
    try {
      await backend.readState(slot, position, snapshot.state)
    } catch (error) {
      snapshots.release(snapshot)
      throw error
    }
    sequence.parked = snapshot
  }
  /** Moves a resident out and returns its slot. */
  const park = async (sequence: Sequence): Promise<number> => {
    const slot = sequence.slot ?? 0
    await copyOut(sequence)
    sequence.slot = null
    residents.delete(sequence)
    nMoves++
    return slot
  }
  /** Puts the sequence into a slot, where need be in place of the one used longest ago. */
  const seat = async (sequence: Sequence): Promise<number> => {
    if (sequence.slot === null) {
      const [oldest] = residents
      const slot = freeSlots.pop() ?? (await park(oldest))
      sequence.slot = slot
      if (sequence.parked === null) await backend.clearState(slot)
      else await backend.writeState(slot, sequence.position, sequence.parked.state)
    }
    unpark(sequence)
    residents.delete(sequence)
    residents.add(sequence)
    return sequence.slot
  }
  const maxLength = backend.program.keyValues.length === 0 ? Infinity : backend.capacity.contextLength
  const checkLength = (length: number): void => {
    if (length <= maxLength) return
    throw new RangeError(messageOf({ place: 'contextLength', expected: `at most ${maxLength} tokens in a sequence, as the option contextLength of load allows`, got: `${length}` }))
  }
  const scheduler = createScheduler({ backend, lock, seat })
  const disposedError = (): TypeError => new TypeError(messageOf({ place: 'mamba', expected: 'a model in use', got: 'one that was disposed' }))
  const admit = (): (() => void) => {
    if (nCalls >= maxCalls) {
      nRefused++
      throw new BusyError({ place: 'mamba', expected: `at most ${maxCalls} calls at once (maxBatch ${nSlots} and maxQueue ${maxQueue})`, got: 'one more' })
    }
    nCalls++
    return () => {
      nCalls--
    }
  }
  const operation = async <T>(task: () => Promise<T>): Promise<T> => {
    if (isClosing) throw disposedError()
    nOperations++
    try {
      return await task()
    } finally {
      nOperations--
      if (nOperations === 0) onIdle()
    }
  }

  const counted = async <T>(task: () => Promise<T>): Promise<T> => {
    const leave = admit()
    try {
      return await task()
    } finally {
      leave()
    }
  }

  const close = async (): Promise<void> => {
    isClosing = true
    if (nOperations > 0) await new Promise<void>((resolve) => (onIdle = resolve))
    await lock.run(async () => {
      scheduler.stop(disposedError())
      residents.clear()
      await backend.dispose()
    })
  }

  return {
    backend,
    snapshots,
    sequence: (snapshot = null) => ({ slot: null, parked: snapshot, position: snapshot?.position ?? 0 }),
    snapshot: (sequence) =>
      lock.run(async () => {
        if (scheduler.refusal) throw scheduler.refusal
        await copyOut(sequence)
        return sequence.parked && snapshots.hold(sequence.parked)
      }),
    maxLength,
    checkLength,
    release: (sequence) =>
      lock.run(async () => {
        scheduler.forget(sequence)
        if (sequence.slot !== null) freeSlots.push(sequence.slot)
        sequence.slot = null
        unpark(sequence)
        residents.delete(sequence)
      }),
    operation,
    admit,
    counted,
    call: (task) => operation(() => counted(task)),
    async run(sequence, ids, logits, options = {}) {
      checkLength(sequence.position + ids.length)
      await scheduler.run(sequence, ids, logits, options)
    },
    get stats() {
      const { nRunning, nWaiting, nTokens, nTurns, batchSizes } = scheduler.counts
      return {
        calls: nCalls, refusedCalls: nRefused, running: nRunning, waiting: nWaiting, seated: residents.size, moves: nMoves,
        tokens: nTokens, turns: nTurns, batchSizes, failure: scheduler.refusal
      }
    },
    dispose() {
      closed ??= close()
      return closed
    }
  }
}
