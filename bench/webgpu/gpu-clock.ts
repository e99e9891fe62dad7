/** Times of dispatches by the GPU's own clock: what the host takes to encode and submit them is not in them. */

import { BUFFER_USAGE, MAP_READ } from '../../src/backend/webgpu/device.ts'
import type { Dispatch } from '../../src/backend/webgpu/recording.ts'
import { encodeDispatches } from '../../src/backend/webgpu/steps.ts'

/** Milliseconds of all dispatches, one after the other, of so many repeats in one submission. Dawn rounds the clock to 65 µs: a submission should take milliseconds. */
export type GpuClock = (dispatches: readonly Dispatch[], repeats: number) => Promise<number>

export function createGpuClock(device: GPUDevice): GpuClock {
  if (!device.features.has('timestamp-query')) throw new Error('expected a device with timestamp-query')
  const querySet = device.createQuerySet({ type: 'timestamp', count: 2 })
  const resolved = device.createBuffer({ size: 16, usage: BUFFER_USAGE.queryResolve | BUFFER_USAGE.copySource })
  const staging = device.createBuffer({ size: 16, usage: BUFFER_USAGE.mapRead | BUFFER_USAGE.copyTarget })
  return async (dispatches, repeats) => {
    const encoder = device.createCommandEncoder()
    const pass = encoder.beginComputePass({ timestampWrites: { querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 } })
    for (let i = 0; i < repeats; i++) encodeDispatches(pass, dispatches)
    pass.end()
    encoder.resolveQuerySet(querySet, 0, 2, resolved, 0)
    encoder.copyBufferToBuffer(resolved, 0, staging, 0, 16)
    device.queue.submit([encoder.finish()])
    await staging.mapAsync(MAP_READ)
    const [start, end] = new BigUint64Array(staging.getMappedRange().slice(0))
    staging.unmap()
    return Number(end - start) / 1e6 / repeats
  }
}

/** The median of some times, after such a while: a GPU's clock falls while it waits, and takes some 100 ms of work to rise. */
export async function medianMs(time: () => Promise<number>, { warmUpMs, samples }: { warmUpMs: number; samples: number }): Promise<number> {
  for (const startMs = performance.now(); performance.now() - startMs < warmUpMs; ) await time()
  const times: number[] = []
  for (let i = 0; i < samples; i++) times.push(await time())
  return times.sort((a, b) => a - b)[samples >> 1]
}
