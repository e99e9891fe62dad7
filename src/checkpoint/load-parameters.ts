/** From a checkpoint's tensors to a backend's parameters: checked first, then streamed to their places. */

import { exp } from '../elementary.ts'
import { CheckpointError } from '../errors.ts'
import { createPace } from '../pace.ts'
import { FORMATS, type WeightData, type WeightFormat } from '../program/formats.ts'
import type { Parameter } from '../program/ops.ts'
import type { Checkpoint } from './open-checkpoint.ts'
import type { TensorEntry } from './safetensors.ts'
import { createSliceMemory, readTensor, type SliceMemory } from './tensor-reader.ts'

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
  /** The format in which `write` takes a parameter. */
  readonly formatOf: (parameter: Parameter) => WeightFormat
  /** Values of a parameter, row-major from element `first`, transformed; to be read before this returns, be it a promise, which is waited for. */
  readonly write: (parameter: Parameter, values: WeightData, first: number) => void | Promise<void>
  /** The same slice as it is stored. */
  readonly onBytes?: ((name: string, bytes: Uint8Array) => void) | undefined
}

/** Buffers that checkpoints carry and the reference ignores. */
const IGNORED = /(^|\.)(inv_freq|position_ids|num_batches_tracked)$/

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

/** Streams every parameter, in the order of the files. Memory beyond the backend's own: one slice, as it is stored, in f32 and as it is written. */
export async function loadParameters(checkpoint: Checkpoint, wanted: Wanted, options: LoadOptions): Promise<void> {
  const { signal, onProgress, write } = options
  const inFileOrder = [...wanted.parameters].sort((a, b) => comparePlaces(entryOf(checkpoint, a.name), entryOf(checkpoint, b.name)))
  const totalBytes = inFileOrder.reduce((sum, { name }) => sum + entryOf(checkpoint, name).byteLength, 0)
  let loadedBytes = 0
  const pace = createPace()
  const memory = createSliceMemory()
  const encoded = createSliceMemory()
  const report = (): void => onProgress?.({ phase: 'weights', loadedBytes, totalBytes })
  report()
  for (const parameter of inFileOrder) {
    const entry = entryOf(checkpoint, parameter.name)
    const format = options.formatOf(parameter)
    const asStored = keepsBytes(entry, parameter, format)
    const convert = asStored ? storedAs(format) : await createConverter(entry, parameter, { format, memory: encoded })
    await readTensor(entry, {
      signal, asStored, memory,
      async onSlice(values, first, bytes) {
        await write(parameter, convert(values, first, bytes), first)
        options.onBytes?.(parameter.name, bytes)
        loadedBytes += bytes.byteLength
        report()
        await pace.pause()
      }
    })
  }
  for (const [copy, original] of wanted.copies) {
    const entry = checkpoint.tensors.get(copy)
    if (entry !== undefined) await (await import('./tied-copies.ts')).checkCopy(entry, entryOf(checkpoint, original), signal)
  }
}

function entryOf(checkpoint: Checkpoint, name: string): TensorEntry {
  const entry = checkpoint.tensors.get(name)
  if (entry === undefined) throw new CheckpointError({ place: `${checkpoint.name}: ${name}`, expected: 'a tensor', got: 'none of that name' })
  return entry
}

function comparePlaces(a: TensorEntry, b: TensorEntry): number {
  // By name: a view of a file has a source of its own.
  if (a.source.name === b.source.name) return a.start - b.start
  return a.source.name < b.source.name ? -1 : 1
}

type Converter = (values: Float32Array, first: number, bytes: Uint8Array) => WeightData

/** Whether the slices go to their places as they are stored. */
function keepsBytes({ dtype }: TensorEntry, { transform }: Parameter, format: WeightFormat): boolean {
  return transform !== 'negExp' && format !== 'f32' && dtype === format.toUpperCase()
}

function storedAs(format: WeightFormat): Converter {
  return (_values, _first, bytes) => (FORMATS[format].blockElements === 1 ? new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2) : bytes)
}

/** Slices of a tensor in the format that is wanted. */
async function createConverter(entry: TensorEntry, parameter: Parameter, { format, memory }: { format: WeightFormat; memory: SliceMemory }): Promise<Converter> {
  if (parameter.transform === 'negExp') return negExp
  if (format === 'f32') return (values) => values
  const round = (await import('./rounding.ts')).createRounding(entry, parameter, { format, memory })
  const asFormat = storedAs(format)
  return (values, first) => asFormat(values, first, round(values, first))
}

/** -exp(values), by the package's own exp: A = -exp(A_log), the same bits in every runtime. */
function negExp(values: Float32Array): Float32Array {
  const result = new Float32Array(values.length)
  for (let i = 0; i < values.length; i++) result[i] = -exp(values[i])
  return result
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i])
}

export function shapeText(shape: readonly number[]): string {
  return `(${shape.join(', ')})`
}
