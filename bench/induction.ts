/**
 * `npm run induction`: the paper's induction heads (section 4.1.2, table 2) by length, to 2^20 tokens: 4096 times the length of training.
 * The state has a constant size, and so has the memory. `-- 18` stops at 2^18.
 */

import { Mamba } from '../src/index.ts'
import { indexOfLargest, inductionExample } from '../test/support/induction.ts'

const MODEL = new URL('../test/models/induction', import.meta.url)
/** Examples of a length: 32, fewer where that is more than this many tokens. */
const MAX_TOKENS = 2 ** 22

const maxPower = Number(process.argv[2] ?? 20)
const mamba = await Mamba.load(MODEL)
console.log(`${mamba.backend.build}, ${mamba.backend.threads} thread; trained at length 256\n`)
console.log('   length  examples  accuracy   tokens/s   wasm MB   process MB')
for (let power = 6; power <= maxPower; power++) {
  const length = 2 ** power
  const nExamples = Math.min(32, MAX_TOKENS / length)
  const startMs = performance.now()
  let nRight = 0
  for (let i = 0; i < nExamples; i++) {
    const { ids, answer } = inductionExample(length, 1000 * length + i)
    if (indexOfLargest(await mamba.forward(ids)) === answer) nRight++
  }
  const tokensPerSecond = (1000 * nExamples * length) / (performance.now() - startMs)
  const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1)
  const columns = [
    [length, 9], [nExamples, 10], [(nRight / nExamples).toFixed(4), 10], [tokensPerSecond.toFixed(0), 11],
    [megabytes(mamba.backend.memoryBytes.total), 10], [megabytes(process.memoryUsage().rss), 13]
  ] as const
  console.log(columns.map(([value, width]) => String(value).padStart(width)).join(''))
}
await mamba.dispose()
