/** The likeliest tokens as the wasm core and the GPU find them, against the sampler's on the same logits. */
import { describe, expect, test } from 'vitest'
import type { Backend, Batch, Capacity } from '../../src/backend/backend.ts'
import { createWasmBackend } from '../../src/backend/wasm/wasm-backend.ts'
import { factsOf } from '../../src/backend/webgpu/device.ts'
import { createWebGpuBackend } from '../../src/backend/webgpu/webgpu-backend.ts'
import { platform } from '../../src/platform/node.ts'
import { ProgramBuilder } from '../../src/program/builder.ts'
import type { Parameter, Program } from '../../src/program/ops.ts'
import { createSampler, idOfBest } from '../../src/sampler.ts'
import { BUILDS } from '../support/backends.ts'
import { gpuDevice, GPUS, leastGpuDevice } from '../support/gpu.ts'
import { createNumbers } from '../support/numbers.ts'
import { segment } from '../support/op-rig.ts'

const capacity: Capacity = { maxRows: 40, maxLogitRows: 6, nSlots: 4, contextLength: 0 }
const numbers = createNumbers(3)

type Open = (program: Program, weight: Parameter, rows: Float32Array) => Promise<Backend>

/** Token t's logits are row t of the embedding. */
function lookup(open: Open, rows: readonly Float32Array[]): Promise<Backend> {
  const width = rows[0].length
  const builder = new ProgramBuilder()
  const [x, logits] = [builder.buffer('x', width), builder.buffer('logits', width, 'logit')]
  const weight = builder.parameter('weight', [rows.length, width])
  builder.add({ kind: 'embed', weight, out: x })
  builder.add({ kind: 'gatherRows', x, out: logits })
  return open(builder.build(logits, rows.length), weight, Float32Array.from(rows.flatMap((row) => [...row])))
}

function onGpu(openDevice: () => Promise<GPUDevice>, isSoftware: boolean): Open {
  return async (program, weight, rows) => {
    const device = await openDevice()
    const backend = await createWebGpuBackend(program, capacity, { device, ownsDevice: false, reason: 'test', facts: { ...factsOf(device), isSoftware } })
    await backend.write(weight, rows, 0)
    return backend
  }
}

function inWasm(build: typeof BUILDS[number]): Open {
  return async (program, weight, rows) => {
    const backend = await createWasmBackend(program, capacity, { module: await platform.wasmModule(build), build, nThreads: 1, reason: 'test' })
    backend.write(weight, rows, 0)
    return backend
  }
}

/** What comes of a row: an id, or the sampler's words on why there is none. */
function outcome(choose: () => number): number | string {
  try {
    return choose()
  } catch (error) {
    return String(error)
  }
}

/** Rows of a vocabulary, each another case. */
function casesOf(width: number): Float32Array[] {
  const random = (): Float32Array => numbers.floats(width, -9, 9)
  const at = (share: number): number => Math.floor(share * (width - 1))
  const changed = (...changes: readonly (readonly [index: number, value: number])[]): Float32Array => {
    const row = random()
    for (const [index, value] of changes) row[index] = value
    return row
  }
  return [
    random(), random().map((value) => -10 - Math.abs(value)),
    // Ties, at the ends and in different lanes and blocks.
    changed([0, 20], [width - 1, 20]), changed([at(0.3), 20], [at(0.31), 20], [at(0.9), 20]), changed([at(0.5), 20]), random().fill(-3),
    random().fill(-1).fill(0, at(0.6)).fill(-0, at(0.4), at(0.6)),
    random().fill(-Infinity), random().fill(-Infinity).fill(-3e38, at(0.7), at(0.7) + 1), changed([at(0.2), -Infinity], [at(0.8), 3e38]),
    changed([at(0.6), NaN], [at(0.9), Infinity]), changed([at(0.6), Infinity], [at(0.9), NaN], [at(0.5), -Infinity]), random().fill(NaN), changed([width - 1, -NaN])
  ]
}

const OPENERS: readonly (readonly [name: string, open: Open])[] = [
  ...BUILDS.map((build) => [`wasm ${build}`, inWasm(build)] as const),
  ...GPUS.flatMap(() => [['GPU, least', onGpu(leastGpuDevice, false)], ['GPU as it is', onGpu(gpuDevice, false)], ['GPU as software', onGpu(gpuDevice, true)]] as const)
]

describe.each(OPENERS)('%s', { timeout: 60_000 }, (_, open) => {
  // On a GPU 4 or 256 lanes, 2048 logits of a workgroup; in wasm 16 at a time.
  test.each([1, 2, 3, 5, 15, 16, 17, 255, 256, 257, 2047, 2048, 2049, 4097, 9000])('%i logits', async (width) => {
    const rows = casesOf(width)
    const backend = await lookup(open, rows)
    const sampler = createSampler({ temperature: 0 }, width)
    const want = rows.map((row) => outcome(() => sampler.sample(row)))
    const tokens = Int32Array.from(rows, (_row, token) => token)
    const found = await backend.forwardBest?.({ tokens, segments: [segment(0, 0, rows.length, 'all')] })
    expect(found?.map((best) => outcome(() => idOfBest(best)))).toEqual(want)
    // In one submission, and again with what was encoded meanwhile.
    for (const token of [0, 2, 7, 10, 1]) {
      const batch: Batch = { tokens: Int32Array.of(3, token), segments: [segment(1, 0, 2, 'last')] }
      const [best] = (await backend.forwardBest?.(batch)) ?? []
      expect(outcome(() => idOfBest(best)), `token ${token}`).toBe(want[token])
      const logits = new Float32Array(width)
      await backend.forward(batch, logits)
      expect(logits, `logits of token ${token}`).toEqual(rows[token])
      expect(Object.is(best.logit, logits[best.id])).toBe(true)
    }
    await backend.dispose()
  })

  test('rows of several sequences, and none', async () => {
    const rows = casesOf(300).slice(0, 6)
    const backend = await lookup(open, rows)
    const segments = [segment(2, 0, 3, 'last'), segment(0, 3, 2, 'none'), segment(1, 5, 4, 'all'), segment(3, 9, 0, 'last')]
    const tokens = Int32Array.of(5, 4, 3, 0, 1, 2, 2, 1, 0)
    const sampler = createSampler({ temperature: 0 }, 300)
    expect((await backend.forwardBest?.({ tokens, segments }))?.map(({ id }) => id)).toEqual([3, 2, 2, 1, 0].map((token) => sampler.sample(rows[token])))
    expect(await backend.forwardBest?.({ tokens: Int32Array.of(1), segments: [segment(0, 0, 1, 'none')] })).toEqual([])
    await backend.dispose()
  })
})
