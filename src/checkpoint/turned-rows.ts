/** Queries and keys whose rows llama.cpp keeps in pairs, back in halves. Loaded for the files that have them. */
import { CheckpointError } from '../errors.ts'
import { type HeadRows, pairOrder } from './gguf-architectures/rows.ts'
import type { TensorEntry } from './safetensors.ts'
import { permutedRows } from './tensor-views.ts'

/** CheckpointError where the rows are no whole heads. */
export function withHalves(entry: TensorEntry, { headDim, rotaryDim }: HeadRows): TensorEntry {
  const nRows = entry.shape[0] ?? 0
  if (headDim < 1 || nRows % headDim !== 0 || rotaryDim > headDim || rotaryDim % 2 !== 0) {
    const got = `(${entry.shape.join(', ')})`
    throw new CheckpointError({ place: `${entry.source.name}, ${entry.name}`, expected: `heads of ${headDim} rows, an even number of ${rotaryDim} of which are turned`, got })
  }
  return permutedRows(entry, pairOrder({ headDim, rotaryDim }, 'fromGguf'))
}
