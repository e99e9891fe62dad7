/** A text and its state as bytes, and back. */

import { stateElements } from './backend/backend.ts'
import type { CheckpointOptions } from './state/checkpoint-options.ts'
import { CheckpointRing } from './state/checkpoint-ring.ts'
import { decodeSession, encodeSession, type SavedModel, type SaveOptions } from './state/saved-session.ts'
import { TokenHistory } from './state/token-history.ts'
import { TextState, type TextStateContext } from './text-state.ts'

/** The bytes of `session.save()`. */
export async function saveText(text: TextState, model: SavedModel, options: SaveOptions): Promise<Uint8Array<ArrayBuffer>> {
  const { context: { engine }, sequence, lastLogits } = text
  const { position } = sequence
  const snapshot = await engine.snapshot(sequence)
  try {
    const seen = [...text.seen].filter(([, first]) => first < position).map(([id]) => id)
    return encodeSession({ position, pending: text.pending(), seen, lastLogits, state: snapshot?.state ?? null }, model, options)
  } finally {
    if (snapshot !== null) engine.snapshots.release(snapshot)
  }
}

/** The text of such bytes. Throws as `mamba.restore`. */
export function restoreText(bytes: Uint8Array, context: TextStateContext & SavedModel, checkpoints: CheckpointOptions | undefined): TextState {
  const { engine } = context
  const { position, pending, seen, lastLogits, state } = decodeSession(bytes, context, (length) => stateElements(engine.backend.program, length))
  // The last token of a generation may stand behind a full context: it is given out, not read.
  engine.checkLength(position + Math.max(0, pending.length - 1))
  const text = new TextState(context, checkpoints)
  const snapshot = state === null ? null : engine.snapshots.take(position)
  snapshot?.state.set(state ?? [])
  text.sequence = engine.sequence(snapshot)
  text.history = new TokenHistory(position)
  text.seen = new Map(seen.map((id) => [id, 0]))
  text.add(pending)
  text.lastLogits = lastLogits
  if (checkpoints !== undefined) {
    text.ring = new CheckpointRing(checkpoints, engine.snapshots)
    text.ring.add({ position, snapshot: snapshot && engine.snapshots.hold(snapshot) })
  }
  return text
}
