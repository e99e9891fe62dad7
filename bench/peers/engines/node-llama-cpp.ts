/**
 * node-llama-cpp with the binary of its platform package, which picks the library of this processor among several. Its low-level
 * sequence is what costs least: no chat, no text, one sampler (greedy).
 */

import { getLlama, type LlamaContextSequence, LlamaLogLevel, type Token } from 'node-llama-cpp'
import type { EngineOptions, LoadTimes, Prompt, Task, TaskTimes } from '../engine.ts'
import { serve } from '../child-server.ts'

let sequence: LlamaContextSequence

serve({
  async load({ path, threads, contextLength, first }: EngineOptions): Promise<LoadTimes> {
    let library = ''
    const logger = (_: LlamaLogLevel, message: string): void => {
      library ||= /loaded CPU backend from .*\/(\S+)/.exec(message)?.[1] ?? ''
    }
    // maxThreads 0: the context's number is the one that is used, whatever else runs.
    const llama = await getLlama({ gpu: false, build: 'never', skipDownload: true, logLevel: LlamaLogLevel.debug, logger, maxThreads: 0 })
    const startMs = performance.now()
    const model = await llama.loadModel({ modelPath: path, useMmap: true, ignoreMemorySafetyChecks: true })
    const context = await model.createContext({ contextSize: contextLength, batchSize: 512, threads, flashAttention: false, ignoreMemorySafetyChecks: true })
    const loadMs = performance.now() - startMs
    // Copies of the state to go back to are not needed here.
    sequence = context.getSequence({ checkpoints: { interval: false } })
    const { prefillMs } = await run({ prompt: first, nDecode: 0 })
    return { loadMs, firstTokenMs: prefillMs, detail: JSON.stringify({ library, threads: context.currentThreads, batchSize: context.batchSize, llamaCpp: llama.llamaCppRelease.release }) }
  },
  run,
  async top({ ids }: Prompt): Promise<number> {
    await sequence.clearHistory()
    const tokens = [...ids] as Token[]
    const last = tokens.pop() as Token
    const results = await sequence.controlledEvaluate([...tokens, [last, { generateNext: { totalLogitWeight: true } }]])
    // The sum of exp(logit - largest logit).
    return -Math.log(results[tokens.length]?.next.totalLogitWeight ?? Number.NaN)
  }
})

async function run({ prompt, nDecode }: Task): Promise<TaskTimes> {
  await sequence.clearHistory()
  const startMs = performance.now()
  let firstMs = 0
  const tokens: Token[] = []
  for await (const token of sequence.evaluate([...prompt.ids] as Token[], { temperature: 0, yieldEogToken: true })) {
    if (tokens.length === 0) firstMs = performance.now()
    tokens.push(token)
    if (tokens.length > nDecode) break
  }
  const endMs = performance.now()
  if (tokens.length !== nDecode + 1) throw new Error(`${tokens.length} tokens in place of ${nDecode + 1}`)
  return { prefillMs: firstMs - startMs, decodeMs: endMs - firstMs, wallMs: endMs - startMs }
}
