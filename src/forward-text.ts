/** Logits of a text that goes on, for whoever chooses tokens by themselves. */

import { readAndKeep } from './kept-states.ts'
import type { ReadOptions, TextState } from './text-state.ts'

/** Adds and reads `ids` (nTokens): logits of the last, (1, vocabSize), or of all, (nTokens, vocabSize). Throws as `session.forward`. */
export async function forwardText(text: TextState, ids: Int32Array, { allLogits = false, signal, onProgress }: ReadOptions & { readonly allLogits?: boolean | undefined }): Promise<Float32Array> {
  const { engine } = text.context
  const vocabSize = engine.backend.program.logits?.width ?? 1
  engine.checkLength(text.position + ids.length)
  const result = new Float32Array((allLogits ? ids.length : Math.min(1, ids.length)) * vocabSize)
  if (ids.length === 0) return result
  if (text.nPending > 0) await readAndKeep(text, { count: text.nPending, logits: 'none', signal, onProgress })
  text.add(ids)
  await readAndKeep(text, {
    count: ids.length,
    logits: allLogits ? 'all' : 'last',
    signal,
    onProgress,
    onLogits: (logits, first) => result.set(logits, allLogits ? first * vocabSize : 0)
  })
  text.lastLogits = result.slice(-vocabSize)
  return result
}
