/** One op over one sequence on a GPU, its activations filled with numbers that JavaScript can make, too. */

import type { Capacity, SsdForm } from '../../src/backend/backend.ts'
import { factsOf, openDevice } from '../../src/backend/webgpu/device.ts'
import { BATCH_HEADER_WORDS, type Kernel, type KernelContext, prelude, SEGMENT_WORDS } from '../../src/backend/webgpu/kernel.ts'
import { layOutViews } from '../../src/backend/webgpu/memory.ts'
import { elementsOf, type Program } from '../../src/program/ops.ts'
import { createTimer, type Dispatch, type Timer } from './timer.ts'

export interface Bench {
  readonly device: GPUDevice
  readonly timer: Timer
  readonly buffer: (bytes: number) => GPUBuffer
}

/** Kept for good: Dawn ends with this object. */
let gpu: GPU | undefined

export async function openBench(): Promise<Bench> {
  // Not a literal: the types of this package are another edition of TypeScript's.
  const dawn: string = 'webgpu'
  const { create } = await import(dawn) as { create: (options: string[]) => GPU }
  gpu = create(['enable-dawn-features=disable_workgroup_init', 'disable-dawn-features=timestamp_quantization'])
  const device = await openDevice(gpu)
  device.addEventListener('uncapturederror', ({ error }) => console.error(error.message))
  return { device, timer: createTimer(device), buffer: (size) => device.createBuffer({ size, usage: 0x80 | 0x8 | 0x4 }) }
}

export interface OpOnGpu {
  readonly context: KernelContext
  readonly activations: GPUBuffer
  /** Kernels that run over such a sequence, in their order. */
  record(kernels: readonly Kernel[]): Promise<Dispatch[]>
  /** The same for code that has no Kernel: it is bound to these buffers from binding 2 on. */
  compile(code: string, buffers: readonly GPUBuffer[], workgroups: Dispatch['workgroups']): Promise<Dispatch>
  parameter(name: string): GPUBuffer
  /** Of the program's only state part. */
  readonly state: GPUBuffer
  destroy(): void
}

/** Null where the device does not allow a binding of that size. */
export async function placeOp({ device, timer, buffer }: Bench, program: Program, { length, ssd = 'recurrent', parameters }: {
  length: number; ssd?: SsdForm; parameters: Readonly<Record<string, Float32Array<ArrayBuffer>>>
}): Promise<OpOnGpu | null> {
  const capacity: Capacity = { maxRows: length, maxLogitRows: 0, nSlots: 1, contextLength: 0 }
  const { view, bytes } = layOutViews(program, capacity)
  const context: KernelContext = { device: factsOf(device), capacity, ssd, view, formatOf: () => 'f32' }
  if (bytes > context.device.maxBindingBytes) {
    console.log(`${length}: ${bytes} bytes are more than a binding may have, ${context.device.maxBindingBytes}`)
    return null
  }
  const activations = buffer(bytes)
  const batch = buffer(4 * (BATCH_HEADER_WORDS + SEGMENT_WORDS + 2 * length))
  device.queue.writeBuffer(batch, 0, new Uint32Array([length, 0, 1, 0, 0, 0, 0, length]))
  const states = buffer(4 * elementsOf(program.states[0].shape))
  const ofName = new Map(Object.entries(parameters).map(([name, values]) => {
    const made = buffer(values.byteLength)
    device.queue.writeBuffer(made, 0, values)
    return [name, made]
  }))
  const others: GPUBuffer[] = []
  const nGroups = Math.ceil(bytes / 1024)
  timer.run([{ ...await timer.compile(FILL, [activations]), workgroups: [Math.min(nGroups, 65535), Math.ceil(nGroups / 65535), 1] }])
  const parameter = (name: string): GPUBuffer => {
    const found = ofName.get(name)
    if (found === undefined) throw new Error(`no values for parameter ${name}`)
    return found
  }
  const compile = async (code: string, buffers: readonly GPUBuffer[], workgroups: Dispatch['workgroups']): Promise<Dispatch> => (
    { ...await timer.compile(code, [activations, batch, ...buffers]), workgroups })
  return {
    context, activations, parameter, state: states,
    compile: (code, buffers, workgroups) => compile(`${prelude(capacity)}${code}`, buffers, workgroups),
    async record(kernels) {
      const counts = { nTokens: length, nLogitRows: 0, nSegments: 1, maxSegmentRows: length, maxPositions: 0 }
      const scratchBytes = Math.max(0, ...kernels.flatMap(({ bindings }) => bindings.map((binding) => (binding.kind === 'scratch' ? binding.bytes : 0))))
      const scratch = buffer(Math.max(4, scratchBytes))
      others.push(scratch)
      const dispatches = await Promise.all(kernels.map(async (kernel): Promise<Dispatch[]> => {
        const { code, enables = [], bindings } = kernel
        const groups = kernel.workgroups(counts)
        if (groups === null) return []
        const buffers = bindings.map((binding) => (binding.kind === 'parameters' ? parameter(binding.parameters[0].name) : binding.kind === 'state' ? states : scratch))
        return [await compile(`${enables.map((name) => `enable ${name};\n`).join('')}${prelude(capacity)}${code}`, buffers, groups)]
      }))
      return dispatches.flat()
    },
    destroy() {
      for (const made of [activations, batch, states, ...ofName.values(), ...others]) made.destroy()
    }
  }
}

/** The i-th of uniform numbers in [-1, 1); the shader below makes the same bits. */
export function uniform(i: number): number {
  let bits = Math.imul(i, 747796405) + 2891336453
  bits = Math.imul((bits >>> ((bits >>> 28) + 4)) ^ bits, 277803737)
  bits = (bits >>> 22) ^ bits
  return (bits >>> 8) / 2 ** 23 - 1
}

const FILL = `
@group(0) @binding(0) var<storage, read_write> values: array<f32>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 256u + id.x;
  if (i >= arrayLength(&values)) { return; }
  var bits = i * 747796405u + 2891336453u;
  bits = ((bits >> ((bits >> 28u) + 4u)) ^ bits) * 277803737u;
  bits = (bits >> 22u) ^ bits;
  values[i] = f32(bits >> 8u) / 8388608.0 - 1.0;
}`
