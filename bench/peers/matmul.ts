/** The f32 matrix product alone, against onnxruntime-web's on its wasm backend in Node: each in a process of its own, in turns. */

import { createNumbers } from '../numbers.ts'
import { startChild } from './child-client.ts'
import type { MatrixShape } from './onnx-matmul.ts'
import { pairOf, type Pair } from './statistics.ts'

export interface MatmulOptions {
  readonly shape: MatrixShape
  readonly threads: number
}

/** Of one element of the result, to see that both have calculated the same. */
export interface MatmulCheck {
  readonly value: number
  readonly detail: string
}

export interface MatmulResult extends MatmulOptions {
  /** GFLOP/s */
  readonly ours: Pair['ours']
  readonly theirs: Pair['theirs']
  readonly ratio: Pair['ratio']
  readonly detail: string
}

/** What both take, uniform in [-1, 1): x is (nRows, nIn), W (nOut, nIn). */
export function matmulNumbers({ nRows, nIn, nOut }: MatrixShape): { readonly x: Float32Array; readonly W: Float32Array } {
  const numbers = createNumbers(5)
  const x = new Float32Array(nRows * nIn)
  const W = new Float32Array(nOut * nIn)
  numbers.uniform(x, 1)
  numbers.uniform(W, 1)
  return { x, W }
}

/** A sample is as many products as last this long. */
const SAMPLE_MS = 250

export async function compareMatmul(options: MatmulOptions, rounds: number): Promise<MatmulResult> {
  const children = [startChild('matmul-mamba-wasm'), startChild('matmul-ort')]
  try {
    const checks: MatmulCheck[] = []
    for (const child of children) checks.push(await child.call<MatmulCheck>('load', options))
    const [ours, theirs] = checks
    if (Math.abs(ours.value - theirs.value) > 1e-3) throw new Error(`matrix product: ${ours.value} against ${theirs.value}`)
    const flop = 2 * options.shape.nRows * options.shape.nIn * options.shape.nOut
    const rates: number[][] = [[], []]
    for (let round = 0; round < rounds; round++) {
      for (const [i, child] of children.entries()) rates[i].push((flop / 1e6) / (await child.call<number>('run', SAMPLE_MS)))
    }
    return { ...options, ...pairOf(rates[0], rates[1]), detail: theirs.detail }
  } finally {
    for (const child of children) await child.close()
  }
}

/** Milliseconds of one run, of as many as last `sampleMs`. */
export async function timeRuns(run: () => void | Promise<void>, sampleMs: number): Promise<number> {
  const startMs = performance.now()
  let count = 0
  do {
    await run()
    count++
  } while (performance.now() - startMs < sampleMs)
  return (performance.now() - startMs) / count
}
