/**
 * Sequences on a backend: chunks of prompts, state slots and who holds them, one forward at a time.
 * A sequence that is not in a slot is parked: its canonical state in an array that nobody changes, so forks may share it.
 */

import { type Backend, stateElements } from './backend/backend.ts'
import { messageOf } from './errors.ts'
import { createLock } from './lock.ts'
import { createSnapshotPool, type Snapshot, type SnapshotPool } from './state/snapshot.ts'

/** A sequence's state, in a slot, parked, or (neither) still fresh. */
export interface Sequence {
  slot: number | null
  /** Its state outside the slots; beside a slot it may be an earlier one. */
  parked: Snapshot | null
  /** Tokens read. */
  position: number
}

export interface RunOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: { readonly doneTokens: number; readonly totalTokens: number }) => void) | undefined
  /** Takes the logits (nRows, vocabSize) of tokens [firstToken, firstToken + nRows); to be read before it returns. */
  readonly onLogits?: ((logits: Float32Array, firstToken: number) => void) | undefined
}

export interface Engine {
  readonly backend: Backend
  readonly snapshots: SnapshotPool
  /** A new sequence: fresh, or from a snapshot, of which it takes over the caller's hold. */
  sequence(snapshot?: Snapshot | null): Sequence
  /** The sequence's state as it is now, held for the caller; null for a fresh one. */
  snapshot(sequence: Sequence): Promise<Snapshot | null>
  /** RangeError where a sequence of `length` tokens would go beyond the context of a model with attention. */
  checkLength(length: number): void
  /** Gives the sequence's slot and memory back. */
  release(sequence: Sequence): Promise<void>
  /** `task` as one call: `dispose` waits for it, and it is refused (TypeError) after that. */
  operation<T>(task: () => Promise<T>): Promise<T>
  /**
   * Reads tokens. Logits go to `onLogits`: of all tokens, of the last, or of none. Others get their turn between chunks.
   * When it throws (an abort comes between chunks) the tokens before `sequence.position` have been read, and no others.
   * RangeError beyond the context, before anything is read.
   */
  run(sequence: Sequence, ids: Int32Array, logits: 'none' | 'last' | 'all', options?: RunOptions): Promise<void>
  dispose(): Promise<void>
}

/** Logits of a chunk, where those of all tokens are wanted. */
const MAX_LOGIT_BYTES = 2 ** 22

export function createEngine(backend: Backend): Engine {
  const { maxRows, nSlots } = backend.capacity
  const vocabSize = backend.program.logits?.width ?? 1
  const maxLogits = Math.max(1, Math.min(maxRows, Math.floor(MAX_LOGIT_BYTES / 4 / vocabSize)))
  /** Grows to what is asked for: one row, or the logits of a chunk. */
  let logitBuffer = new Float32Array(vocabSize)
  const lock = createLock()
  const snapshots = createSnapshotPool((position) => stateElements(backend.program, position))
  /** Sequences in slots, the one used longest ago first. All changes are made under the lock. */
  const residents = new Set<Sequence>()
  const freeSlots = Array.from({ length: nSlots }, (_, i) => nSlots - 1 - i)
  let nOperations = 0
  let onIdle = (): void => {}
  /** Takes no further calls; those under way go on until the backend is gone. */
  let isClosing = false
  let isDisposed = false
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
  const checkLength = (length: number): void => {
    const { contextLength } = backend.capacity
    if (backend.program.keyValues.length === 0 || length <= contextLength) return
    throw new RangeError(messageOf({ place: 'contextLength', expected: `at most ${contextLength} tokens in a sequence, as the option contextLength of load allows`, got: `${length}` }))
  }
  const checkInUse = (isRefused: boolean): void => {
    if (isRefused) throw new TypeError(messageOf({ place: 'mamba', expected: 'a model in use', got: 'one that was disposed' }))
  }

  const close = async (): Promise<void> => {
    isClosing = true
    if (nOperations > 0) await new Promise<void>((resolve) => (onIdle = resolve))
    await lock.run(async () => {
      isDisposed = true
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
        checkInUse(isDisposed)
        await copyOut(sequence)
        return sequence.parked && snapshots.hold(sequence.parked)
      }),
    checkLength,
    release: (sequence) =>
      lock.run(async () => {
        if (sequence.slot !== null) freeSlots.push(sequence.slot)
        sequence.slot = null
        unpark(sequence)
        residents.delete(sequence)
      }),
    async operation(task) {
      checkInUse(isClosing)
      nOperations++
      try {
        return await task()
      } finally {
        nOperations--
        if (nOperations === 0) onIdle()
      }
    },
    async run(sequence, ids, logits, { signal, onProgress, onLogits } = {}) {
      checkLength(sequence.position + ids.length)
      const chunkRows = logits === 'all' ? maxLogits : maxRows
      for (let first = 0; first < ids.length; first += chunkRows) {
        await lock.run(async () => {
          checkInUse(isDisposed)
          signal?.throwIfAborted()
          const tokens = ids.subarray(first, first + chunkRows)
          const isLast = first + tokens.length === ids.length
          const wanted = logits === 'last' && !isLast ? 'none' : logits
          const nLogits = wanted === 'all' ? tokens.length * vocabSize : vocabSize
          if (logitBuffer.length < nLogits) logitBuffer = new Float32Array(nLogits)
          const slot = await seat(sequence)
          await backend.forward({ tokens, segments: [{ slot, position: sequence.position, firstRow: 0, nRows: tokens.length, logits: wanted }] }, logitBuffer)
          sequence.position += tokens.length
          if (wanted === 'all') onLogits?.(logitBuffer.subarray(0, tokens.length * vocabSize), first)
          if (wanted === 'last') onLogits?.(logitBuffer.subarray(0, vocabSize), ids.length - 1)
          onProgress?.({ doneTokens: first + tokens.length, totalTokens: ids.length })
        })
      }
    },
    dispose() {
      closed ??= close()
      return closed
    }
  }
}
