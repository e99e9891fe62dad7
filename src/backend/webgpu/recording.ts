/** Kernels made ready: pipelines, shared by all that have the same code, and bind groups. */

import { checkLimit } from './device.ts'
import type { BatchCounts, Kernel } from './kernel.ts'
import type { GpuMemory } from './memory.ts'

/** A kernel that can be dispatched. */
export interface ReadyKernel {
  readonly label: string
  readonly pipeline: GPUComputePipeline
  readonly bindGroup: GPUBindGroup
  workgroups(counts: BatchCounts): readonly [x: number, y: number, z: number] | null
}

type Access = 'read-only-storage' | 'storage'

/** By op. A shader that does not compile is an error of this package: its message has the kernel's label and the compiler's words. */
export async function makeReady(device: GPUDevice, { kernels, prelude, memory }: {
  kernels: readonly (readonly Kernel[])[]; prelude: string; memory: GpuMemory
}): Promise<(readonly ReadyKernel[])[]> {
  const pipelines = new Map<string, Promise<GPUComputePipeline>>()
  const layouts = new Map<string, GPUBindGroupLayout>()
  const layoutOf = (accesses: readonly Access[]): GPUBindGroupLayout => {
    const key = accesses.join()
    let layout = layouts.get(key)
    if (layout === undefined) {
      layout = device.createBindGroupLayout({ entries: accesses.map((type, binding) => ({ binding, visibility: COMPUTE, buffer: { type } })) })
      layouts.set(key, layout)
    }
    return layout
  }
  const makeOne = async (kernel: Kernel): Promise<ReadyKernel> => {
    const { label, bindings } = kernel
    const code = [...(kernel.enables ?? []).map((name) => `enable ${name};\n`), prelude, kernel.code].join('')
    const accesses = accessesIn(code, label)
    if (accesses.length !== bindings.length + 2) throw new Error(`kernel ${label}: it declares ${accesses.length - 2} bindings, and names ${bindings.length}`)
    checkLimit('maxStorageBuffersPerShaderStage', { needed: accesses.length, has: device.limits.maxStorageBuffersPerShaderStage, what: label })
    const layout = layoutOf(accesses)
    let pipeline = pipelines.get(code)
    if (pipeline === undefined) {
      pipeline = compile(device, { label, code, layout })
      pipelines.set(code, pipeline)
    }
    const buffers = [memory.activations, memory.batch, ...bindings.map((binding) => memory.bufferOf(binding))]
    return {
      label,
      pipeline: await pipeline,
      bindGroup: device.createBindGroup({ label, layout, entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })) }),
      workgroups: (counts) => kernel.workgroups(counts)
    }
  }
  return Promise.all(kernels.map((ofOp) => Promise.all(ofOp.map(makeOne))))
}

/** GPUShaderStage.COMPUTE */
const COMPUTE = 0x4

/** How the code declares its bindings, from 0 on. */
function accessesIn(code: string, label: string): Access[] {
  const accesses: Access[] = []
  for (const [, index, access] of code.matchAll(/@binding\((\d+)\)\s*var<storage,\s*(read|read_write)>/g)) accesses[Number(index)] = access === 'read' ? 'read-only-storage' : 'storage'
  for (let i = 0; i < accesses.length; i++) if (accesses[i] === undefined) throw new Error(`kernel ${label}: no declaration of binding ${i}`)
  return accesses
}

async function compile(device: GPUDevice, { label, code, layout }: { label: string; code: string; layout: GPUBindGroupLayout }): Promise<GPUComputePipeline> {
  const module = device.createShaderModule({ label, code })
  try {
    return await device.createComputePipelineAsync({ label, layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }), compute: { module, entryPoint: 'main' } })
  } catch (cause) {
    const { messages } = await module.getCompilationInfo()
    const lines = code.split('\n')
    const said = messages.map(({ type, lineNum, message }) => `${type}: ${message}\n  ${lines[lineNum - 1] ?? ''}`)
    throw new Error([`kernel ${label}: ${cause instanceof Error ? cause.message : String(cause)}`, ...said].join('\n'), { cause })
  }
}
