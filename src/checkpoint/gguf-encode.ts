/** A checkpoint's tensor as bytes of another type, in slices: what `GgufTensor.bytes` gives for a converted one. */
import { CheckpointError } from '../errors.ts'
import { blockFormatOf } from '../ggml-blocks.ts'
import { createPace } from '../pace.ts'
import { ENCODERS, type EncodedType } from './quantize.ts'
import type { TensorEntry } from './safetensors.ts'
import { readTensor } from './tensor-reader.ts'

/** Changes values in place: those from element `first` on, in row-major order. */
export type Transform = (values: Float32Array, first: number) => void

export interface EncodeTensorOptions {
  readonly type: EncodedType
  /** Before they are encoded. */
  readonly transform?: Transform | undefined
  readonly signal?: AbortSignal | undefined
}

/** Whole blocks of every type; 4 MiB of float32. */
const SLICE_ELEMENTS = 2 ** 20
const COPY_BYTES = 2 ** 22

/**
 * The tensor's values rounded to `type`, at most 2^20 elements at once; pieces share memory. Quantized tensors that stay of their type are
 * copied, since quantizing again would change them. Throws a CheckpointError at a value that is not finite or too large for the type.
 */
export async function* encodeTensor(entry: TensorEntry, { type, transform, signal }: EncodeTensorOptions): AsyncGenerator<Uint8Array, void, undefined> {
  if (entry.dtype === type && transform === undefined && blockFormatOf(type) !== undefined) {
    yield* copyBytes(entry, signal)
    return
  }
  const { blockElements, blockBytes, encode } = ENCODERS[type]
  const nElements = entry.shape.reduce((product, length) => product * length, 1)
  const pace = createPace()
  const out = new Uint8Array((Math.min(SLICE_ELEMENTS, nElements) / blockElements) * blockBytes)
  for (let first = 0; first < nElements; first += SLICE_ELEMENTS) {
    const count = Math.min(SLICE_ELEMENTS, nElements - first)
    const piece = out.subarray(0, (count / blockElements) * blockBytes)
    await readTensor(sliceOf(entry, { first, count, nElements }), {
      signal,
      onSlice(values, offset) {
        const changed = transform === undefined ? values : values.slice()
        transform?.(changed, first + offset)
        const failed = encode(changed, piece.subarray((offset / blockElements) * blockBytes))
        if (failed >= 0) throw encodeError(entry, { type, element: first + offset + failed, value: changed[failed] })
      }
    })
    yield piece
    await pace.pause()
  }
}

async function* copyBytes({ source, start, byteLength }: TensorEntry, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array, void, undefined> {
  for (let offset = 0; offset < byteLength; offset += COPY_BYTES) {
    yield await source.read(start + offset, start + Math.min(byteLength, offset + COPY_BYTES), signal)
  }
}

/** Elements in a row of a tensor as one of their own: both ends are at whole blocks. */
function sliceOf(entry: TensorEntry, { first, count, nElements }: { first: number; count: number; nElements: number }): TensorEntry {
  const bytesTo = (element: number): number => (entry.byteLength / nElements) * element
  return {
    ...entry,
    name: first === 0 ? entry.name : `${entry.name}, from element ${first} on`,
    shape: [count],
    start: entry.start + bytesTo(first),
    byteLength: bytesTo(first + count) - bytesTo(first)
  }
}

function encodeError({ name, source }: TensorEntry, { type, element, value }: { type: EncodedType; element: number; value: number }): CheckpointError {
  return new CheckpointError({ place: `${source.name}, ${name}, element ${element}`, expected: `a number that ${type} can hold`, got: String(value) })
}
