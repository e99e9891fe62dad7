/** onnxruntime-web's matrix product, in Node. */

import * as ort from 'onnxruntime-web'
import { serve } from '../child-server.ts'
import { type MatmulCheck, type MatmulOptions, matmulNumbers, timeRuns } from '../matmul.ts'
import { matmulModel } from '../onnx-matmul.ts'

let run: () => Promise<Float32Array>

serve({
  async load({ shape, threads }: MatmulOptions): Promise<MatmulCheck> {
    const { nRows, nIn, nOut } = shape
    const { x, W } = matmulNumbers(shape)
    const transposed = new Float32Array(W.length)
    for (let i = 0; i < nOut; i++) for (let k = 0; k < nIn; k++) transposed[k * nOut + i] = W[i * nIn + k]
    ort.env.wasm.numThreads = threads
    const session = await ort.InferenceSession.create(matmulModel(shape, transposed), { executionProviders: ['wasm'] })
    const feeds = { x: new ort.Tensor('float32', x, [nRows, nIn]) }
    run = async () => (await session.run(feeds)).y.data as Float32Array
    const y = await run()
    await timeRuns(async () => void (await run()), WARM_UP_MS)
    return { value: y[y.length - 1], detail: JSON.stringify({ version: ort.env.versions.web, threads: ort.env.wasm.numThreads }) }
  },
  run: (sampleMs: number) => timeRuns(async () => void (await run()), sampleMs)
})

const WARM_UP_MS = 300
