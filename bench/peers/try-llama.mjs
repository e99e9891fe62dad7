import { getLlama, LlamaLogLevel } from 'node-llama-cpp'
import { cpuUsage } from 'node:process'
const threads = Number(process.argv[3] ?? 1)
const logs = []
const llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.debug, maxThreads: 0, skipDownload: true, logger: (l, m) => logs.push(m) })
console.log(llama.systemInfo, llama.cpuMathCores, llama.buildType, llama.llamaCppRelease)
let t = performance.now()
const model = await llama.loadModel({ modelPath: `/tmp/mamba-wasm-peers-1/mamba-130m-random-${process.argv[2]}.gguf`, useMmap: true, ignoreMemorySafetyChecks: true })
const context = await model.createContext({ contextSize: 8704, batchSize: 512, threads, flashAttention: false, ignoreMemorySafetyChecks: true })
console.log('load', performance.now() - t, context.currentThreads, context.batchSize)
console.log(logs.filter((m) => /cpu|CPU|load_backend|ubatch|repack|n_threads|type|buffer/i.test(m)).join('\n').slice(0, 4000))
const sequence = context.getSequence({ checkpoints: { interval: false } })
async function run(n, d) {
  await sequence.clearHistory()
  const ids = Array.from({ length: n }, () => Math.floor(Math.random() * 50000) + 2)
  const t0 = performance.now(); let t1 = 0, c = 0
  const c0 = process.cpuUsage()
  for await (const id of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) { if (c === 0) t1 = performance.now(); c++; if (c > d) break }
  const t2 = performance.now(); const u = process.cpuUsage(c0)
  console.log(n, d, 'prefill tok/s', (1000 * n / (t1 - t0)).toFixed(1), 'decode tok/s', (1000 * d / (t2 - t1)).toFixed(1), 'cpu', ((u.user + u.system) / 1000 / (t2 - t0)).toFixed(2))
}
await run(16, 4)
for (const [n, d] of [[1, 32], [16, 0], [128, 16], [512, 16], [1, 32]]) await run(n, d)
const c = process.cpuUsage(); await new Promise((r) => setTimeout(r, 1000)); console.log('idle', process.cpuUsage(c))
await context.dispose(); await model.dispose()
