/** The states that are kept while a text is read, as checkpoints and in the cache of prefixes, and how the text goes on from them. */

import type { Sequence } from './engine.ts'
import { checkInteger, messageOf } from './errors.ts'
import type { SpeculativeText } from './speculation.ts'
import { CheckpointRing } from './state/checkpoint-ring.ts'
import type { PrefixCache } from './state/prefix-cache.ts'
import type { Snapshot } from './state/snapshot.ts'
import { KNOWN_TOKENS, type Reading, type TextState } from './text-state.ts'

/** `text.read`, with a stop wherever a state is to be kept. */
export async function readAndKeep(text: TextState, { count, logits, onProgress, onLogits, ...options }: Reading): Promise<void> {
  const { engine, prefixCache } = text.context
  const ring = ringOf(text)
  const start = text.sequence.position
  const end = start + count
  const worthKeeping = await startFromCache(text, count, logits)
  while (text.sequence.position < end) {
    const from = text.sequence.position
    const nextStop = Math.min(end, ring?.nextAfter(from) ?? end, ...worthKeeping.filter((position) => position > from))
    await text.read({
      ...options,
      count: nextStop - from,
      logits: logits === 'last' && nextStop < end ? 'none' : logits,
      onProgress: onProgress && (({ doneTokens }) => onProgress({ doneTokens: from - start + doneTokens, totalTokens: count })),
      onLogits: onLogits && ((values, first) => onLogits(values, from - start + first))
    })
    if (nextStop === ring?.nextAfter(from)) ring.add({ position: nextStop, snapshot: await engine.snapshot(text.sequence) })
    if (worthKeeping.includes(nextStop)) await remember(text)
  }
  if (prefixCache === null || text.history.start > 0) text.history.forget(Math.min(text.sequence.position - KNOWN_TOKENS, ring?.oldest?.position ?? Infinity))
}

/** Puts the state as it is now into the cache. */
export async function remember(text: TextState): Promise<void> {
  const cache = cacheOf(text)
  const { position } = text.sequence
  if (cache === null || position === 0) return
  const snapshot = await text.context.engine.snapshot(text.sequence)
  if (snapshot !== null) cache.insert(text.history.slice(0, position), snapshot, snapshot.state.byteLength)
}

/** Takes the last `nTokens` back. RangeError where no state is kept from which the text before them can be gone on with. */
export async function rewind(text: TextState, nTokens: number): Promise<void> {
  checkInteger('rewind', nTokens, 0)
  if (nTokens === 0) return
  const ring = ringOf(text)
  const end = text.position - nTokens
  // Of the last token that stays the logits are needed: it must be pending again.
  const isRead = end <= text.sequence.position && text.sequence.position > 0
  const checkpoint = isRead ? ring?.before(end) : undefined
  if (end < 0 || (isRead && checkpoint === undefined)) {
    throw new RangeError(messageOf({ place: 'rewind', expected: `at most ${rewindable(text)} tokens: no state is kept before`, got: `${nTokens}` }))
  }
  if (checkpoint !== undefined) {
    await moveTo(text, checkpoint.snapshot && text.context.engine.snapshots.hold(checkpoint.snapshot))
    ring?.truncate(checkpoint.position)
  }
  text.history.truncate(end)
  for (const [id, first] of text.seen) if (first >= end) text.seen.delete(id)
  text.lastLogits = null
}

/** The text as a speculator needs it. */
export function speculative(text: TextState): SpeculativeText {
  const { sequence, context } = text
  return {
    sequence,
    pending: text.pending(),
    // Where a checkpoint is due the text is read as usual; drafts beyond the context are none.
    mostTokens: Math.min((ringOf(text)?.nextAfter(sequence.position) ?? Infinity) - 1, context.engine.maxLength) - sequence.position,
    adopt: (other) => replaceSequence(text, other)
  }
}

/** The text's checkpoints, the fresh state's among them from the start; null where there are to be none. */
function ringOf(text: TextState): CheckpointRing | null {
  if (text.ring === null && text.checkpoints !== undefined) {
    text.ring = new CheckpointRing(text.checkpoints, text.context.engine.snapshots)
    text.ring.add({ position: 0, snapshot: null })
  }
  return text.ring
}

/** Whether the text's tokens are known from its start on, and someone wants to know. */
function cacheOf({ history, context }: TextState): PrefixCache<Snapshot> | null {
  return history.start === 0 ? context.prefixCache : null
}

/**
 * The longest known beginning of a fresh text need not be read. Returns where states are to be kept on the way: where the text parts from a known
 * one, and at its end, before the token whose logits are wanted, so that the same text again finds it.
 */
async function startFromCache(text: TextState, count: number, logits: Reading['logits']): Promise<readonly number[]> {
  const cache = cacheOf(text)
  if (cache === null || count === 1) return []
  const start = text.sequence.position
  const last = start + count - (logits === 'last' ? 1 : 0)
  if (start > 0 || logits === 'all') return [last]
  const { value, length, sharedLength } = cache.find(text.pending(last))
  if (value !== null) {
    const { snapshots } = text.context.engine
    await moveTo(text, snapshots.hold(value))
    text.ring?.add({ position: length, snapshot: snapshots.hold(value) })
  }
  return sharedLength > length ? [sharedLength, last] : [last]
}

/** Goes on from another state of this text, whose hold it takes over. */
function moveTo(text: TextState, snapshot: Snapshot | null): Promise<void> {
  return replaceSequence(text, text.context.engine.sequence(snapshot))
}

async function replaceSequence(text: TextState, sequence: Sequence): Promise<void> {
  const before = text.sequence
  text.sequence = sequence
  await text.context.engine.release(before)
}

/** Tokens that `rewind` can take back. */
function rewindable({ position, sequence, ring }: TextState): number {
  const oldest = ring?.oldest?.position ?? sequence.position
  return Math.max(0, position - (oldest === 0 ? 0 : oldest + 1))
}
