/** This package's matrix product: a program of one linear op. */

import type { Batch } from '../../../src/backend/backend.ts'
import { createWasmBackend } from '../../../src/backend/wasm/wasm-backend.ts'
import { platform } from '../../../src/platform/node.ts'
import { ProgramBuilder } from '../../../src/program/builder.ts'
import { serve } from '../child-server.ts'
import { type MatmulCheck, type MatmulOptions, matmulNumbers, timeRuns } from '../matmul.ts'

let run: () => void

serve({
  async load({ shape: { nRows, nIn, nOut }, threads }: MatmulOptions): Promise<MatmulCheck> {
    const numbers = matmulNumbers({ nRows, nIn, nOut })
    const builder = new ProgramBuilder()
    const x = builder.buffer('x', nIn)
    const y = builder.buffer('y', nOut)
    const weight = builder.parameter('W', [nOut, nIn])
    builder.add({ kind: 'linear', x, out: y, bias: null, accumulate: false, weight })
    const program = builder.build(null, 0)
    const build = threads > 1 ? 'simd-threads' : 'simd'
    const backend = await createWasmBackend(program, { maxRows: nRows, maxLogitRows: 0, nSlots: 1, contextLength: 0 }, {
      module: await platform.wasmModule(build), build, nThreads: threads, reason: 'a benchmark', formatOf: () => 'f32'
    })
    backend.write(weight, numbers.W, 0)
    await backend.ready?.()
    const batch: Batch = { tokens: new Int32Array(nRows), segments: [{ slot: 0, position: 0, firstRow: 0, nRows, logits: 'none' }] }
    backend.begin(batch)
    backend.writeView(x, numbers.x)
    run = () => {
      backend.begin(batch)
      backend.run(0, 1)
    }
    run()
    const values = backend.readView(y)
    await timeRuns(run, WARM_UP_MS)
    return { value: values[values.length - 1], detail: build }
  },
  run: (sampleMs: number) => timeRuns(run, sampleMs)
})

const WARM_UP_MS = 300
