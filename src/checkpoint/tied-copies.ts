/** Tensors that a checkpoint has twice. Loaded for those alone that have one. */

import { CheckpointError } from '../errors.ts'
import { sameShape, shapeText } from './load-parameters.ts'
import type { TensorEntry } from './safetensors.ts'

/** Compared at once. */
const COMPARE_BYTES = 2 ** 22

/** A tied head that was saved all the same has the embedding's very bytes. */
export async function checkCopy(copy: TensorEntry, original: TensorEntry, signal: AbortSignal | undefined): Promise<void> {
  const place = `${copy.source.name}: ${copy.name}`
  const expected = `the same as ${original.name}, to which the config ties it`
  if (copy.dtype !== original.dtype || !sameShape(copy.shape, original.shape)) {
    throw new CheckpointError({ place, expected, got: `${copy.dtype} ${shapeText(copy.shape)} beside ${original.dtype} ${shapeText(original.shape)}` })
  }
  // Two views of one storage, as torch.save keeps what is tied.
  if (copy.source === original.source && copy.start === original.start) return
  for (let offset = 0; offset < copy.byteLength; offset += COMPARE_BYTES) {
    const end = Math.min(copy.byteLength, offset + COMPARE_BYTES)
    const [a, b] = [
      await copy.source.read(copy.start + offset, copy.start + end, signal),
      await original.source.read(original.start + offset, original.start + end, signal)
    ]
    const difference = a.findIndex((byte, i) => byte !== b[i])
    if (difference >= 0) throw new CheckpointError({ place, expected, got: `another value in byte ${offset + difference}` })
  }
}
