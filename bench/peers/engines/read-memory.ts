/** What a core reads from memory by wasm: decoding cannot be faster than that. */

import { createLimitKernels, rateOf } from '../../../src/limits.ts'
import { platform } from '../../../src/platform/node.ts'
import { serve } from '../child-server.ts'

/** In each round every kernel reads for some ms, so that cores that read at once do so with the same kernel. */
const ROUNDS = 40

const kernels = createLimitKernels({ core: await platform.wasmModule('simd'), isShared: false, workingBytes: 192e6 }).filter(({ limit }) => limit === 'byte')

serve({
  async warmUp(): Promise<void> {
    kernels.forEach(rateOf)
  },
  /** Bytes a second: of the best kernel the median. */
  async read(): Promise<number> {
    const rates: number[][] = kernels.map(() => [])
    for (let round = 0; round < ROUNDS; round++) kernels.forEach((kernel, i) => rates[i].push(rateOf(kernel)))
    return Math.max(...rates.map((own) => own.sort((a, b) => a - b)[ROUNDS / 2]))
  }
})
