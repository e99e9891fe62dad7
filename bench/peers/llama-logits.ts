/** A process of its own, since llama.cpp ends it where it cannot go on: the logits of a GGUF file after each token, and what follows by greed. */

import { getLlama, LlamaLogLevel, type Token } from 'node-llama-cpp'

/** What ./proof.ts asks, as JSON in the first argument. */
export interface Question {
  readonly path: string
  readonly ids: readonly number[]
  /** Tokens to follow. */
  readonly count: number
}

/** In JSON, the last line of what is printed. */
export interface Answer {
  /** (ids.length, vocabSize) */
  readonly logits: readonly (readonly number[])[]
  readonly greedy: readonly number[]
  readonly release: string
}

const { path, ids, count } = JSON.parse(process.argv[2]) as Question
const llama = await getLlama({ gpu: false, build: 'never', skipDownload: true, logLevel: LlamaLogLevel.warn, logger: (_, message) => console.error(message) })
const model = await llama.loadModel({ modelPath: path, ignoreMemorySafetyChecks: true })
// Its keys and values are half floats else.
const context = await model.createContext({
  contextSize: 256, batchSize: 64, threads: 1, flashAttention: false, ignoreMemorySafetyChecks: true, experimentalKvCacheKeyType: 'F32', experimentalKvCacheValueType: 'F32'
})
const sequence = context.getSequence({ checkpoints: { interval: false } })
const results = await sequence.controlledEvaluate(ids.map((id) => [id as Token, { generateNext: { logits: true } }]))
const logits = results.map((result) => [...(result?.next.logits ?? [])].toSorted(([a], [b]) => a - b).map(([, logit]) => logit))
await sequence.clearHistory()
const greedy: number[] = []
for await (const token of sequence.evaluate([...ids] as Token[], { temperature: 0, yieldEogToken: true })) {
  greedy.push(token)
  if (greedy.length === count) break
}
const answer: Answer = { logits, greedy, release: llama.llamaCppRelease.release }
console.log(`\n${JSON.stringify(answer)}`)
process.exit(0)
