/** Lines of a whole model: reading a prompt, and one token after the other, as the library does it. */

import type { Backend } from '../src/backend/backend.ts'
import { createEngine } from '../src/engine.ts'
import { type Work, worksOf } from '../src/profile.ts'
import { createNumbers } from './numbers.ts'
import { type Line, tokens } from './suite.ts'

export interface ModelLines {
  /** Of the weights in memory. */
  readonly weightBytes: number
  /** Reads a prompt of `nTokens` from a fresh state, in chunks, and gives the last token's logits. */
  readonly prefill: (nTokens: number, name: string) => Line
  /** Reads `nSteps` tokens, one at a time, with logits; a few in one run for models so small that the clock would count. */
  readonly decode: (nSteps: number, name: string) => Line
  readonly dispose: () => Promise<void>
}

export function createModelLines(backend: Backend): ModelLines {
  const engine = createEngine(backend)
  const { vocabSize } = backend.program
  const { maxRows } = backend.capacity
  const { threads } = backend.info
  const numbers = createNumbers(11)
  const randomIds = (count: number): Int32Array => Int32Array.from({ length: count }, () => numbers.below(vocabSize))
  const ignore = { onLogits() {} }
  const works = (ids: Int32Array, hasLogits: boolean): Work[] =>
    worksOf(backend, { tokens: ids, segments: [{ slot: 0, position: 0, firstRow: 0, nRows: ids.length, logits: hasLogits ? 'last' : 'none' }] })
  const decoding = engine.sequence()
  return {
    weightBytes: backend.info.memoryBytes.weights,
    prefill(nTokens, name) {
      const ids = randomIds(nTokens)
      const chunks = Array.from({ length: Math.ceil(nTokens / maxRows) }, (_, i) => ids.subarray(i * maxRows, (i + 1) * maxRows))
      return {
        name, threads, isAsync: true, amounts: [tokens(nTokens)],
        works: chunks.flatMap((chunk, i) => works(chunk, i === chunks.length - 1)),
        async run() {
          const sequence = engine.sequence()
          await engine.run(sequence, ids, 'last', ignore)
          await engine.release(sequence)
        }
      }
    },
    decode(nSteps, name) {
      const ids = randomIds(nSteps)
      const steps = Array.from(ids, (id) => Int32Array.of(id))
      return {
        name, threads, isAsync: true, amounts: [tokens(nSteps)],
        works: steps.flatMap((step) => works(step, true)),
        async run() {
          for (const step of steps) await engine.run(decoding, step, 'last', ignore)
        }
      }
    },
    dispose: () => engine.dispose()
  }
}

/** `decode, 2 threads` */
export function threadsLabel(kind: string, threads: number): string {
  return `${kind}, ${threads} ${threads === 1 ? 'thread' : 'threads'}`
}
