/** From a checkpoint's tensors to a backend's parameters: checked first, then streamed to their places. */

import { exp } from '../elementary.ts'
import { CheckpointError } from '../errors.ts'
import type { Parameter } from '../program/ops.ts'
import type { Checkpoint } from './open-checkpoint.ts'
import type { TensorEntry } from './safetensors.ts'
import { readTensor } from './tensor-reader.ts'

/** What a model wants of a checkpoint. */
export interface Wanted {
  readonly parameters: readonly Parameter[]
  /** Tensors that may be there and must then equal another one. */
  readonly copies: ReadonlyMap<string, string>
}

export interface LoadProgress {
  readonly phase: 'weights'
  readonly loadedBytes: number
  readonly totalBytes: number
}

export interface LoadOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: LoadProgress) => void) | undefined
  /** Values of a parameter, row-major from element `first`, transformed; to be read before this returns. */
  readonly write: (parameter: Parameter, values: Float32Array, first: number) => void
}

/** Buffers that checkpoints carry and the reference ignores. */
const IGNORED = /(^|\.)(inv_freq|position_ids|num_batches_tracked)$/

const COMPARE_BYTES = 2 ** 22

/** Throws a CheckpointError for a tensor that is missing, of another shape, or that nothing asks for. Reads no tensor. */
export function checkTensors(checkpoint: Checkpoint, { parameters, copies }: Wanted): void {
  const wanted = new Map(parameters.map((parameter) => [parameter.name, parameter]))
  for (const { name, shape } of parameters) {
    const entry = checkpoint.tensors.get(name)
    const expected = `a tensor ${shapeText(shape)}`
    if (entry === undefined) throw new CheckpointError({ place: `${checkpoint.name}: ${name}`, expected, got: 'none of that name' })
    if (!sameShape(entry.shape, shape)) throw new CheckpointError({ place: `${entry.source.name}: ${name}`, expected, got: shapeText(entry.shape) })
  }
  for (const [name, entry] of checkpoint.tensors) {
    if (wanted.has(name) || copies.has(name) || IGNORED.test(name)) continue
    throw new CheckpointError({ place: `${entry.source.name}: ${name}`, expected: 'only tensors of this architecture', got: `one more ${shapeText(entry.shape)}` })
  }
}

/** Streams every parameter, in the order of the files. Memory beyond the backend's own: one slice. */
export async function loadParameters(checkpoint: Checkpoint, wanted: Wanted, options: LoadOptions): Promise<void> {
  const { signal, onProgress, write } = options
  const inFileOrder = [...wanted.parameters].sort((a, b) => comparePlaces(entryOf(checkpoint, a.name), entryOf(checkpoint, b.name)))
  const totalBytes = inFileOrder.reduce((sum, { name }) => sum + entryOf(checkpoint, name).byteLength, 0)
  let loadedBytes = 0
  const report = (): void => onProgress?.({ phase: 'weights', loadedBytes, totalBytes })
  report()
  for (const parameter of inFileOrder) {
    const entry = entryOf(checkpoint, parameter.name)
    const elements = parameter.shape.reduce((product, size) => product * size, 1)
    const scratch = parameter.transform === 'negExp' ? new Float32Array(elements) : undefined
    await readTensor(entry, {
      signal,
      onSlice(values, first) {
        write(parameter, scratch ? negExp(values, scratch) : values, first)
        loadedBytes += (entry.byteLength / elements) * values.length
        report()
      }
    })
  }
  for (const [copy, original] of wanted.copies) {
    const entry = checkpoint.tensors.get(copy)
    if (entry !== undefined) await checkCopy(entry, entryOf(checkpoint, original), signal)
  }
}

function entryOf(checkpoint: Checkpoint, name: string): TensorEntry {
  const entry = checkpoint.tensors.get(name)
  if (entry === undefined) throw new CheckpointError({ place: `${checkpoint.name}: ${name}`, expected: 'a tensor', got: 'none of that name' })
  return entry
}

function comparePlaces(a: TensorEntry, b: TensorEntry): number {
  if (a.source === b.source) return a.start - b.start
  return a.source.name < b.source.name ? -1 : 1
}

/** -exp(values), by the package's own exp: A = -exp(A_log), the same bits in every runtime. */
function negExp(values: Float32Array, scratch: Float32Array): Float32Array {
  for (let i = 0; i < values.length; i++) scratch[i] = -exp(values[i])
  return scratch.subarray(0, values.length)
}

/** A tied head that was saved all the same has the embedding's very bytes. */
async function checkCopy(copy: TensorEntry, original: TensorEntry, signal: AbortSignal | undefined): Promise<void> {
  const place = `${copy.source.name}: ${copy.name}`
  const expected = `the same as ${original.name}, to which the config ties it`
  if (copy.dtype !== original.dtype || !sameShape(copy.shape, original.shape)) {
    throw new CheckpointError({ place, expected, got: `${copy.dtype} ${shapeText(copy.shape)} beside ${original.dtype} ${shapeText(original.shape)}` })
  }
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

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i])
}

function shapeText(shape: readonly number[]): string {
  return `(${shape.join(', ')})`
}
