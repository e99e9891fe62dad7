/** Weights on their way to the buffers of the GPU. */

import type { WeightData } from '../../program/formats.ts'
import type { Parameter } from '../../program/ops.ts'
import type { GpuMemory } from './memory.ts'
import { createWeightWriter, type WeightLayout, type WeightWriter } from './weights.ts'

/** The driver keeps a copy of what it has not sent. */
const MOST_UNSENT_BYTES = 2 ** 26

/** Writes values of a parameter from element `first` on. True when so much is under way that the queue should be waited for. */
export function createUpload(
  queue: GPUQueue, layoutOf: (parameter: Parameter) => WeightLayout, { placesOf }: Pick<GpuMemory, 'placesOf'>
): (parameter: Parameter, values: WeightData, first: number) => boolean {
  const writers = new Map<Parameter, WeightWriter>()
  let nUnsentBytes = 0
  return (parameter, values, first) => {
    const writer = writers.get(parameter) ?? createWeightWriter(layoutOf(parameter))
    writers.set(parameter, writer)
    const { offset, bytes } = writer(values, first)
    for (const { buffer, firstByte, start, end } of placesOf(parameter)) {
      const piece = bytes.subarray(Math.max(0, start - offset), Math.max(0, end - offset))
      if (piece.length > 0) queue.writeBuffer(buffer, firstByte + Math.max(start, offset), piece)
    }
    nUnsentBytes += bytes.byteLength
    if (nUnsentBytes < MOST_UNSENT_BYTES) return false
    nUnsentBytes = 0
    return true
  }
}
