/** The part of op-rig.ts that is a GPU's: its buffers are read whole before and after a run. */
import { expect } from 'vitest'
import type { Segment } from '../../src/backend/backend.ts'
import { factsOf } from '../../src/backend/webgpu/device.ts'
import { layOutViews } from '../../src/backend/webgpu/memory.ts'
import { createReadback } from '../../src/backend/webgpu/readback.ts'
import { createWebGpuBackend } from '../../src/backend/webgpu/webgpu-backend.ts'
import type { WeightFormat } from '../../src/program/formats.ts'
import { elementsOf, type Op, type Parameter, type Program } from '../../src/program/ops.ts'
import { firstDifference } from './compare.ts'
import { gpuDevice, leastGpuDevice } from './gpu.ts'
import { type Core, isWeight, type OpSpec, type Ranges, type RigKind, rowsOf } from './op-rig.ts'

export async function createGpuCore(kind: RigKind, program: Program, { capacity, format = 'f32', facts }: OpSpec): Promise<Core> {
  const device = await (kind.startsWith('webgpu least') ? leastGpuDevice() : gpuDevice())
  const formatOf = (parameter: Parameter): WeightFormat => (isWeight(parameter) ? format : 'f32')
  const backend = await createWebGpuBackend(program, capacity, {
    device, ownsDevice: false, reason: 'test', formatOf, ssd: kind.endsWith('chunked') ? 'chunked' : 'recurrent',
    // The kernels that a GPU would get.
    facts: { ...factsOf(device), isSoftware: false, ...facts }
  })
  const { memory } = backend
  const { view } = layOutViews(program, capacity)
  const caches = program.keyValues.map((part) => ({ part, ...memory.keyValueOf(part) }))
  /** What a kernel may write, but for the scratch, and which elements of it an op does. */
  const writable = [
    { buffer: memory.activations, owned: (op: Op, segments: readonly Segment[]): Ranges => {
      if (op.kind === 'cacheKeyValue') return []
      const { offset, stride } = view(op.out)
      return Array.from({ length: rowsOf(op.out, segments) }, (_, row) => [offset + row * stride, offset + row * stride + op.out.width])
    } },
    ...program.states.map((part) => ({ buffer: memory.stateOf(part), owned: (op: Op, segments: readonly Segment[]): Ranges => {
      const count = elementsOf(part.shape)
      return 'state' in op && op.state === part ? segments.map(({ slot }) => [slot * count, (slot + 1) * count]) : []
    } })),
    ...caches.flatMap(({ part, keys, values }) => [keys, values].map((buffer) => ({ buffer, owned: (op: Op, segments: readonly Segment[]): Ranges => {
      const first = (slot: number): number => slot * capacity.contextLength * part.width
      const isOwner = op.kind === 'cacheKeyValue' && op.cache === part
      return isOwner ? segments.map(({ slot, position, nRows }) => [first(slot) + position * part.width, first(slot) + (position + nRows) * part.width]) : []
    } })))
  ]
  const readback = createReadback(device)
  const contentsOf = (buffer: GPUBuffer): Promise<Float32Array> => readback.read([{ buffer, first: 0, count: buffer.size / 4 }], new Float32Array(buffer.size / 4))
  return {
    backend,
    spoil() {
      const buffers = [...writable.map(({ buffer }) => buffer), ...(memory.scratch ? [memory.scratch] : [])]
      for (const buffer of buffers) device.queue.writeBuffer(buffer, 0, new Float32Array(buffer.size / 4).fill(NaN))
    },
    async guard(op, segments, task) {
      const before = await Promise.all(writable.map(({ buffer }) => contentsOf(buffer)))
      device.pushErrorScope('validation')
      await task()
      const error = await device.popErrorScope()
      if (error !== null) expect.fail(`${kind}: ${error.message}`)
      for (const [i, { buffer, owned }] of writable.entries()) {
        const after = await contentsOf(buffer)
        for (const [start, end] of owned(op, segments)) before[i].set(after.subarray(start, end), start)
        const index = firstDifference(after, before[i])
        if (index >= 0) expect.fail(`${kind}: element ${index} of ${buffer.label} changed, which is not the op's`)
      }
    }
  }
}
