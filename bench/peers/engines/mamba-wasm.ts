/** This package, through its public API. */

import { Mamba } from '../../../src/index.ts'
import type { EngineOptions, LoadTimes, Prompt, Task, TaskTimes } from '../engine.ts'
import { serve } from '../child-server.ts'

let mamba: Mamba

serve({
  async load({ path, threads, first }: EngineOptions): Promise<LoadTimes> {
    const startMs = performance.now()
    // The dtype is the file's.
    mamba = await Mamba.load(path, { threads })
    const loadMs = performance.now() - startMs
    const { prefillMs } = await run({ prompt: first, nDecode: 0 })
    const { name, build, threads: nThreads, memoryBytes } = mamba.backend
    return { loadMs, firstTokenMs: prefillMs, detail: JSON.stringify({ name, build, threads: nThreads, memoryBytes }) }
  },
  run,
  async top({ ids }: Prompt): Promise<number> {
    const logits = await mamba.forward(ids)
    const most = logits.reduce((a, b) => Math.max(a, b))
    return -Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0))
  }
})

async function run({ prompt, nDecode }: Task): Promise<TaskTimes> {
  const startMs = performance.now()
  const { timings, usage } = await mamba.complete(prompt.ids, { temperature: 0, ignoreEos: true, maxTokens: nDecode + 1 })
  if (usage.completionTokens !== nDecode + 1) throw new Error(`${usage.completionTokens} tokens in place of ${nDecode + 1}`)
  return { prefillMs: timings.promptMs, decodeMs: timings.generateMs, wallMs: performance.now() - startMs }
}
