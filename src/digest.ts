/**
 * A model's results as one number: the logits and the state after fixed prompts, and what comes next. Every engine with the same arithmetic has the same
 * one, bit for bit: any runtime, any number of threads, scalar or SIMD, any chunking, any batch. The reference backend (float64), the relaxed builds
 * (fused multiply-and-add where the machine has it) and Mamba-2 by chunks (`ssd: 'chunked'`, where the chunking and the batch count) have others.
 */

import type { Mamba } from './mamba.ts'
import { createRandom } from './random.ts'
import { createHasher, type Hasher, hexOf } from './state/hash.ts'

export interface DigestOptions {
  /** Tokens read at a time; by default as the engine likes. */
  readonly chunk?: number | undefined
  /** All prompts at once, in place of one after the other. Default false. */
  readonly isConcurrent?: boolean | undefined
  readonly signal?: AbortSignal | undefined
}

/** A token, a tile and one more, and more than a chunk of any model. */
const PROMPT_LENGTHS = [1, 5, 64, 300]
const COMPLETION = { maxTokens: 16, temperature: 0, ignoreEos: true, repetitionPenalty: 1.1 } as const

/** 32 hexadecimal digits (state/hash.ts). */
export async function digest(mamba: Mamba, { chunk = Infinity, isConcurrent = false, signal }: DigestOptions = {}): Promise<string> {
  const parts: Promise<Uint8Array>[] = []
  for (const [i, length] of PROMPT_LENGTHS.entries()) {
    const part = digestPrompt(mamba, promptOf(length, { seed: i, vocabSize: mamba.config.vocabSize }), chunk, signal)
    parts.push(part)
    if (!isConcurrent) await part
  }
  const whole = createHasher()
  for (const part of await Promise.all(parts)) whole.update(part)
  return hexOf(whole.digest())
}

function promptOf(length: number, { seed, vocabSize }: { readonly seed: number; readonly vocabSize: number }): Int32Array {
  const random = createRandom(seed)
  return Int32Array.from({ length }, () => Math.floor(random.next() * vocabSize))
}

async function digestPrompt(mamba: Mamba, ids: Int32Array, chunk: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
  const hasher = createHasher()
  const session = mamba.session()
  try {
    for (let first = 0; first < ids.length; first += chunk) {
      add(hasher, await session.forward(ids.subarray(first, first + chunk), { allLogits: true, signal }))
    }
    const { sessionPart } = await import('./state/saved-session.ts')
    hasher.update(sessionPart(await session.save()))
    const completion = await session.complete({ ...COMPLETION, signal })
    add(hasher, Int32Array.from(completion.ids))
    return hasher.digest()
  } finally {
    await session.dispose()
  }
}

function add(hasher: Hasher, { buffer, byteOffset, byteLength }: Float32Array | Int32Array): void {
  hasher.update(new Uint8Array(buffer, byteOffset, byteLength))
}
