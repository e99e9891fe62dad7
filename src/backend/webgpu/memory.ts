/**
 * The buffers of a program in GPU memory:
 *
 *   activations   all buffers of the program, one after the other, each at a multiple of 256 bytes, rows padded to four elements
 *   batch         what is known of one forward alone (kernel.ts draws it)
 *   parameters    one for each set of parameters that kernels bind together, or for each part of one that is too large (weights.ts draws them)
 *   states        one for each part: (nSlots + 1, elements), canonical; a place more than there are slots, for a step that may not count
 *   keys, values  two for each part: (nSlots, contextLength, width)
 *   angles        one for each kind of rotary positions: (maxRows, rotaryDim)
 *   scratch       one, as large as the kernel that wants most
 */

import { messageOf } from '../../errors.ts'
import { elementsOf, type KeyValuePart, type Parameter, type Program, type RowSpace, type StatePart, type View } from '../../program/ops.ts'
import type { Capacity, MemoryBytes } from '../backend.ts'
import { BUFFER_USAGE, checkLimit } from './device.ts'
import { type Binding, type Kernel, type KernelContext, tokensAt } from './kernel.ts'
import { boundBytes, type ByteRange, layoutBytes, type WeightLayout } from './weights.ts'

/** Where a parameter lies: its bytes from `start` to `end`, byte 0 of it at `firstByte` (which is below 0 where another buffer has it). */
export interface Place {
  readonly buffer: GPUBuffer
  readonly firstByte: number
  readonly start: number
  readonly end: number
}

export interface GpuMemory {
  readonly activations: GPUBuffer
  readonly batch: GPUBuffer
  /** What a kernel is bound to. */
  bufferOf(binding: Binding): GPUBuffer
  /** More than one where kernels bind it in several sets; none where no kernel reads it. */
  placesOf(parameter: Parameter): readonly Place[]
  stateOf(part: StatePart): GPUBuffer
  keyValueOf(part: KeyValuePart): { readonly keys: GPUBuffer; readonly values: GPUBuffer }
  /** Angles that the kernels read. */
  readonly rotaries: readonly { readonly theta: number; readonly rotaryDim: number; readonly buffer: GPUBuffer }[]
  readonly scratch: GPUBuffer | null
  readonly bytes: MemoryBytes
  destroy(): void
}

/** Where the rows of views lie in `activations`, and how large it is. */
export function layOutViews({ buffers }: Program, { maxRows, maxLogitRows }: Capacity): { readonly view: KernelContext['view']; readonly bytes: number } {
  const rowsOf = (space: RowSpace): number => (space === 'token' ? maxRows : maxLogitRows)
  const strides = buffers.map(({ width }) => Math.ceil(width / 4) * 4)
  let end = 0
  const firsts = buffers.map(({ rows }, i) => {
    const first = end
    end += Math.ceil((rowsOf(rows) * strides[i]) / 64) * 64
    return first
  })
  return {
    view: ({ buffer, offset }: View) => ({ offset: firsts[buffer.id] + offset, stride: strides[buffer.id] }),
    bytes: 4 * end
  }
}

interface Wanted {
  readonly label: string
  readonly bytes: number
}

/** Makes all buffers. Throws a RangeError that names the limit where one is too large, and one with the bytes where the device has not that much. */
export async function createMemory(device: GPUDevice, { program, capacity, kernels, activationBytes, layoutOf, maxBindingBytes }: {
  program: Program; capacity: Capacity; kernels: readonly Kernel[]; activationBytes: number; layoutOf: (parameter: Parameter) => WeightLayout; maxBindingBytes: number
}): Promise<GpuMemory> {
  const { maxRows, maxLogitRows, nSlots, contextLength } = capacity
  const bindings = kernels.flatMap((kernel) => kernel.bindings)
  const rangeOf = ({ parameters, part }: ParametersBinding): ByteRange => boundBytes(parameters.map(layoutOf), part, maxBindingBytes)
  const scratchBytes = Math.max(0, ...bindings.map((binding) => (binding.kind === 'scratch' ? binding.bytes : 0)))
  const wanted = new Map<string, Wanted>()
  const want = (key: string, bytes: number, label = key): void => void wanted.set(key, { label, bytes })
  want('activations', activationBytes)
  want('batch', 4 * (tokensAt(capacity) + 2 * maxRows + maxLogitRows))
  for (const part of program.states) want(`state ${part.offset}`, 4 * (nSlots + 1) * elementsOf(part.shape), `state ${part.name}`)
  for (const part of program.keyValues) {
    for (const kind of ['keys', 'values']) want(`${kind} ${part.offset}`, 4 * nSlots * contextLength * part.width, `${kind} ${part.name}`)
  }
  for (const binding of bindings) {
    if (binding.kind === 'parameters') {
      const { start, end } = rangeOf(binding)
      want(keyOf(binding), end - start, binding.parameters[0].name)
    }
    if (binding.kind === 'angles') want(keyOf(binding), 4 * maxRows * binding.rotary.rotaryDim)
  }
  if (scratchBytes > 0) want('scratch', scratchBytes)

  const buffers = await createBuffers(device, wanted)
  const bufferAt = (key: string): GPUBuffer => buffers.get(key) as GPUBuffer
  const places = placesOfParameters(bindings, (binding) => ({ buffer: bufferAt(keyOf(binding)), ...rangeOf(binding) }), layoutOf)
  const rotaries = new Map(bindings.flatMap((binding) => (binding.kind === 'angles' ? [[keyOf(binding), binding.rotary] as const] : [])))
  const bytesOf = (pattern: RegExp): number => [...wanted].reduce((sum, [key, { bytes }]) => sum + (pattern.test(key) ? bytes : 0), 0)
  const bytes = { weights: bytesOf(/^parameters/), state: bytesOf(/^(state|keys|values)/), activations: bytesOf(/^(activations|batch|angles|scratch)/) }
  return {
    activations: bufferAt('activations'),
    batch: bufferAt('batch'),
    bufferOf: (binding) => bufferAt(keyOf(binding)),
    placesOf: ({ id }) => places.get(id) ?? [],
    stateOf: ({ offset }) => bufferAt(`state ${offset}`),
    keyValueOf: ({ offset }) => ({ keys: bufferAt(`keys ${offset}`), values: bufferAt(`values ${offset}`) }),
    rotaries: [...rotaries].map(([key, { theta, rotaryDim }]) => ({ theta, rotaryDim, buffer: bufferAt(key) })),
    scratch: buffers.get('scratch') ?? null,
    bytes: { ...bytes, statePerToken: 4 * nSlots * program.keyValueWidth, total: bytes.weights + bytes.state + bytes.activations },
    destroy() {
      for (const buffer of buffers.values()) buffer.destroy()
    }
  }
}

function keyOf(binding: Binding): string {
  switch (binding.kind) {
    case 'parameters': return `parameters ${binding.parameters.map(({ id }) => id).join(' ')} part ${binding.part ?? 'all'}`
    case 'state': return `state ${binding.state.offset}`
    case 'keys':
    case 'values': return `${binding.kind} ${binding.cache.offset}`
    case 'angles': return `angles ${binding.rotary.theta} ${binding.rotary.rotaryDim}`
    case 'scratch': return 'scratch'
  }
}

type ParametersBinding = Extract<Binding, { kind: 'parameters' }>

function placesOfParameters(
  bindings: readonly Binding[], boundOf: (binding: ParametersBinding) => ByteRange & { readonly buffer: GPUBuffer }, layoutOf: (parameter: Parameter) => WeightLayout
): Map<number, Place[]> {
  const places = new Map<number, Place[]>()
  const groups = new Map(bindings.flatMap((binding) => (binding.kind === 'parameters' ? [[keyOf(binding), binding] as const] : [])))
  for (const binding of groups.values()) {
    const bound = boundOf(binding)
    let first = 0
    for (const parameter of binding.parameters) {
      const bytes = layoutBytes(layoutOf(parameter))
      const place = { buffer: bound.buffer, firstByte: first - bound.start, start: Math.max(0, bound.start - first), end: Math.min(bytes, bound.end - first) }
      if (place.start < place.end) places.set(parameter.id, [...(places.get(parameter.id) ?? []), place])
      first += bytes
    }
  }
  return places
}

async function createBuffers(device: GPUDevice, wanted: ReadonlyMap<string, Wanted>): Promise<Map<string, GPUBuffer>> {
  for (const { label, bytes } of wanted.values()) {
    checkLimit('maxStorageBufferBindingSize', { needed: bytes, has: device.limits.maxStorageBufferBindingSize, what: `${label}, in bytes` })
    checkLimit('maxBufferSize', { needed: bytes, has: device.limits.maxBufferSize, what: `${label}, in bytes` })
  }
  const usage = BUFFER_USAGE.storage | BUFFER_USAGE.copySource | BUFFER_USAGE.copyTarget
  device.pushErrorScope('out-of-memory')
  const buffers = new Map<string, GPUBuffer>()
  for (const [key, { label, bytes }] of wanted) buffers.set(key, device.createBuffer({ label, usage, size: Math.max(4, Math.ceil(bytes / 4) * 4) }))
  const error = await device.popErrorScope()
  if (error === null) return buffers
  for (const buffer of buffers.values()) buffer.destroy()
  const total = [...wanted.values()].reduce((sum, { bytes }) => sum + bytes, 0)
  throw new RangeError(messageOf({ place: 'memory of the GPU', expected: `${total} bytes`, got: `a device that does not give them: ${error.message}` }))
}
