/** What each kernel of a forward takes: all of its dispatches of all layers, by themselves, over and over in one submission. */

import type { Batch } from '../../src/backend/backend.ts'
import { countsOf } from '../../src/backend/webgpu/batch.ts'
import { factsOf } from '../../src/backend/webgpu/device.ts'
import { type Kernel, type KernelContext, prelude } from '../../src/backend/webgpu/kernel.ts'
import { OP_KERNELS } from '../../src/backend/webgpu/kernels/index.ts'
import { layOutViews } from '../../src/backend/webgpu/memory.ts'
import { type Dispatch, record } from '../../src/backend/webgpu/recording.ts'
import type { WebGpuBackend } from '../../src/backend/webgpu/webgpu-backend.ts'
import type { Op } from '../../src/program/ops.ts'
import { medianSeconds } from './gpu-limits.ts'

export interface KernelTime {
  readonly label: string
  /** In one forward. */
  readonly dispatches: number
  /** Of all of them. */
  readonly ms: number
}

const SAMPLES = 5

/** Of a batch that the backend has begun. Kernels that other kernels wait for wait for nothing here but their like: the sum is a bound for what a forward takes. */
export async function kernelTimes(backend: WebGpuBackend, batch: Batch, nLogitRows: number, repeats = 10): Promise<KernelTime[]> {
  const { device, program, capacity, memory, formatOf, info } = backend
  const { view } = layOutViews(program, capacity)
  const context: KernelContext = { device: factsOf(device), capacity, ssd: info.ssd ?? 'recurrent', view, formatOf }
  const kernels = program.ops.map((op) => (OP_KERNELS[op.kind] as (op: Op, context: KernelContext) => readonly Kernel[])(op, context))
  // Each kernel as an op of its own, since dispatches have no labels.
  const flat = kernels.flat()
  const recording = record(device, { kernels: flat.map((kernel) => [kernel]), prelude: prelude(capacity), memory })
  const counts = countsOf(batch, nLogitRows)
  await recording.compile(counts)
  const byLabel = new Map<string, Dispatch[]>()
  flat.forEach(({ label }, i) => byLabel.set(label, [...(byLabel.get(label) ?? []), ...(recording.dispatches(i, counts) ?? [])]))
  const times: KernelTime[] = []
  for (const [label, dispatches] of byLabel) {
    if (dispatches.length === 0) continue
    const run = (): Promise<void> => {
      const encoder = device.createCommandEncoder()
      const pass = encoder.beginComputePass()
      for (let i = 0; i < repeats; i++) {
        for (const { pipeline, bindGroup, workgroups } of dispatches) {
          pass.setPipeline(pipeline)
          pass.setBindGroup(0, bindGroup)
          pass.dispatchWorkgroups(...workgroups)
        }
      }
      pass.end()
      device.queue.submit([encoder.finish()])
      return device.queue.onSubmittedWorkDone().then(() => {})
    }
    await run()
    times.push({ label, dispatches: dispatches.length, ms: (1000 * (await medianSeconds(SAMPLES, run))) / repeats })
  }
  return times.sort((a, b) => b.ms - a.ms)
}
