/** Weights rounded while loading. Loaded where the option dtype asks for another format than the file has. */

import { CheckpointError } from '../errors.ts'
import type { WeightFormat } from '../program/formats.ts'
import type { Parameter } from '../program/ops.ts'
import { encoderFor } from './quantize.ts'
import type { SliceMemory } from './tensor-reader.ts'
import type { TensorEntry } from './safetensors.ts'

/** Slices of a tensor in the bytes of a format; good until the next. CheckpointError for a value beyond the format's range. */
export function createRounding(
  entry: TensorEntry, parameter: Parameter, { format, memory }: { readonly format: WeightFormat; readonly memory: SliceMemory }
): (values: Float32Array, first: number) => Uint8Array {
  const encoder = encoderFor(format)
  if (encoder === undefined) throw new TypeError(`${parameter.name}: ${format} is read as it is stored, not made of ${entry.dtype}`)
  return (values, first) => {
    const bytes = memory.bytes((values.length / encoder.blockElements) * encoder.blockBytes)
    const index = encoder.encode(values, bytes)
    if (index < 0) return bytes
    throw new CheckpointError({
      place: `${entry.source.name}: ${entry.name}, element ${first + index}`, expected: `a value within the range of ${format}`, got: String(values[index])
    })
  }
}
