/** What each kernel of a forward takes, all of its dispatches of all layers by themselves, and what all take together: over and over in one submission. */

import type { Batch } from '../../src/backend/backend.ts'
import { countsOf } from '../../src/backend/webgpu/batch.ts'
import { factsOf } from '../../src/backend/webgpu/device.ts'
import { entriesFor, findFusions } from '../../src/backend/webgpu/fusions.ts'
import { type Kernel, type KernelContext, prelude } from '../../src/backend/webgpu/kernel.ts'
import { OP_KERNELS } from '../../src/backend/webgpu/kernels/index.ts'
import { layOutViews } from '../../src/backend/webgpu/memory.ts'
import { type Dispatch, record } from '../../src/backend/webgpu/recording.ts'
import type { WebGpuBackend } from '../../src/backend/webgpu/webgpu-backend.ts'
import type { Op } from '../../src/program/ops.ts'
import { createGpuClock, medianMs } from './gpu-clock.ts'

export interface KernelTime {
  readonly label: string
  /** In one forward. */
  readonly dispatches: number
  /** Of all of them. */
  readonly ms: number
}

export interface StepTimes {
  /** Of all kernels in their order. */
  readonly ms: number
  readonly kernels: readonly KernelTime[]
}

const SAMPLES = 5
const WARM_UP_MS = 200

/** By the GPU's own clock, of a batch that the backend has begun. Kernels by themselves wait for their like alone, and the weights of some stay in a cache: their sum need not be the whole. */
export async function kernelTimes(backend: WebGpuBackend, batch: Batch, nLogitRows: number, repeats = 10): Promise<StepTimes> {
  const { device, program, capacity, memory, formatOf, info } = backend
  const { view } = layOutViews(program, capacity)
  const context: KernelContext = { device: factsOf(device), capacity, ssd: info.ssd ?? 'recurrent', view, formatOf }
  const fusions = findFusions(program, context)
  const entries = [...program.ops.map((op) => (OP_KERNELS[op.kind] as (op: Op, context: KernelContext) => readonly Kernel[])(op, context)), ...fusions.map(({ kernels }) => kernels)]
  const counts = countsOf(batch, nLogitRows)
  // Each kernel as an entry of its own, since dispatches have no labels.
  const flat = entriesFor(program.ops.length, fusions, counts).flatMap((entry) => entries[entry])
  const recording = record(device, { kernels: flat.map((kernel) => [kernel]), prelude: prelude(capacity), memory })
  await recording.compile([...flat.keys()], counts)
  const dispatchesOf = (i: number): readonly Dispatch[] => recording.dispatches(i, counts) ?? []
  const byLabel = new Map<string, number[]>()
  flat.forEach(({ label }, i) => byLabel.set(label, [...(byLabel.get(label) ?? []), i]))
  const clock = createGpuClock(device)
  const timeOf = (dispatches: readonly Dispatch[]): Promise<number> => medianMs(() => clock(dispatches, repeats), { warmUpMs: WARM_UP_MS, samples: SAMPLES })
  const kernels: KernelTime[] = []
  for (const [label, indices] of byLabel) {
    const dispatches = indices.flatMap(dispatchesOf)
    if (dispatches.length > 0) kernels.push({ label, dispatches: dispatches.length, ms: await timeOf(dispatches) })
  }
  return { ms: await timeOf([...flat.keys()].flatMap(dispatchesOf)), kernels: kernels.sort((a, b) => b.ms - a.ms) }
}
