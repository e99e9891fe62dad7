/**
 * Random weights for models that would take long to make number by number: of each kind of matrix its first million of values is made as
 * random-model.ts has it, encoded, and repeated over all rows by copies on the GPU. The small parameters are made in full.
 */

import { BUFFER_USAGE } from '../../src/backend/webgpu/device.ts'
import type { WebGpuBackend } from '../../src/backend/webgpu/webgpu-backend.ts'
import { createWeightWriter, layoutBytes, type MatrixLayout, type WeightLayout } from '../../src/backend/webgpu/weights.ts'
import type { Parameter } from '../../src/program/ops.ts'
import { encodeWeights, type RandomModel, transformedValues } from '../random-model.ts'

export async function writeRandomWeights(model: RandomModel, backend: WebGpuBackend, layouts: ReadonlyMap<Parameter, WeightLayout>): Promise<void> {
  const { device } = backend
  /** Rows of a kind of matrix, ready to be copied. */
  const pools = new Map<string, GPUBuffer>()
  for (const parameter of model.program.parameters) {
    const layout = layouts.get(parameter)
    if (layout === undefined || layout.kind === 'plain') {
      for (const { values, first } of transformedValues(model, parameter)) await backend.write(parameter, values, first)
      continue
    }
    const kind = `${parameter.name.replace(/\.\d+\./, '.')} ${parameter.shape.join(' ')} ${layout.format}`
    const pool = pools.get(kind) ?? createPool(device, model, parameter, layout)
    pools.set(kind, pool)
    await repeat(backend, parameter, pool)
  }
  await device.queue.onSubmittedWorkDone()
  for (const pool of pools.values()) pool.destroy()
}

function createPool(device: GPUDevice, model: RandomModel, parameter: Parameter, layout: MatrixLayout): GPUBuffer {
  const [{ values }] = transformedValues(model, parameter)
  const { bytes } = createWeightWriter(layout)(encodeWeights(layout.format, values), 0)
  const pool = device.createBuffer({ label: `random ${parameter.name}`, size: bytes.byteLength, usage: BUFFER_USAGE.copySource | BUFFER_USAGE.copyTarget })
  device.queue.writeBuffer(pool, 0, bytes)
  return pool
}

async function repeat({ device, memory }: WebGpuBackend, parameter: Parameter, pool: GPUBuffer): Promise<void> {
  const encoder = device.createCommandEncoder()
  for (const { buffer, firstByte, start, end } of memory.placesOf(parameter)) {
    for (let at = start; at < end; ) {
      const count = Math.min(pool.size - (at % pool.size), end - at)
      encoder.copyBufferToBuffer(pool, at % pool.size, buffer, firstByte + at, count)
      at += count
    }
  }
  device.queue.submit([encoder.finish()])
}

/** Bytes of the weights that a token reads: all but an embedding that is nothing else, of which it takes a row. */
export function bytesOfToken({ program }: RandomModel, layouts: ReadonlyMap<Parameter, WeightLayout>): number {
  const looked = new Set(program.ops.flatMap((op) => (op.kind === 'embed' ? [op.weight] : [])))
  for (const op of program.ops) if (op.kind === 'linear') looked.delete(op.weight)
  let bytes = 0
  for (const [parameter, layout] of layouts) if (!looked.has(parameter)) bytes += layoutBytes(layout)
  return bytes
}
