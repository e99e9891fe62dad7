/** Kernels made ready: pipelines, shared by all that have the same code, and bind groups. */

import { checkLimit } from './device.ts'
import type { BatchCounts, Kernel } from './kernel.ts'
import type { GpuMemory } from './memory.ts'

export interface Recording {
  /** What an entry runs for such a batch, in order; undefined where a pipeline is missing, until `compile` has made it. */
  dispatches(entry: number, counts: BatchCounts): readonly Dispatch[] | undefined
  /** Makes all pipelines that entries need for such a batch. A shader that does not compile is an error of this package: its message has the compiler's words. */
  compile(entries: readonly number[], counts: BatchCounts): Promise<void>
}

export interface Dispatch {
  readonly pipeline: GPUComputePipeline
  readonly bindGroup: GPUBindGroup
  readonly workgroups: readonly [x: number, y: number, z: number]
}

interface Source {
  readonly label: string
  readonly code: string
  readonly layout: GPUBindGroupLayout
  /** Null until it is compiled: of the many kernels of a program few are ever used. */
  pipeline: GPUComputePipeline | null
  /** While it is compiled. */
  pending: Promise<void> | null
}

interface ReadyKernel {
  readonly source: Source
  readonly bindGroup: GPUBindGroup
  readonly kernel: Kernel
}

type Access = 'read-only-storage' | 'storage'

/** What a device has compiled, for whoever comes next with the same shapes. */
interface Known {
  /** By their code. */
  readonly sources: Map<string, Source>
  readonly layouts: Map<string, GPUBindGroupLayout>
}

const known = new WeakMap<GPUDevice, Known>()

function knownOf(device: GPUDevice): Known {
  const found = known.get(device) ?? { sources: new Map(), layouts: new Map() }
  known.set(device, found)
  return found
}

/** `kernels`: of each entry, an op or several in one. Throws a RangeError for a kernel with more bindings than the device allows. */
export function record(device: GPUDevice, { kernels, prelude, memory }: { kernels: readonly (readonly Kernel[])[]; prelude: string; memory: GpuMemory }): Recording {
  const { sources, layouts } = knownOf(device)
  const layoutOf = (accesses: readonly Access[]): GPUBindGroupLayout => {
    const key = accesses.join()
    let layout = layouts.get(key)
    if (layout === undefined) {
      layout = device.createBindGroupLayout({ entries: accesses.map((type, binding) => ({ binding, visibility: COMPUTE, buffer: { type } })) })
      layouts.set(key, layout)
    }
    return layout
  }
  const makeReady = (kernel: Kernel): ReadyKernel => {
    const { label, bindings } = kernel
    const code = [...(kernel.enables ?? []).map((name) => `enable ${name};\n`), prelude, kernel.code].join('')
    let source = sources.get(code)
    if (source === undefined) {
      const accesses = accessesIn(code, label)
      checkLimit('maxStorageBuffersPerShaderStage', { needed: accesses.length, has: device.limits.maxStorageBuffersPerShaderStage, what: label })
      source = { label, code, layout: layoutOf(accesses), pipeline: null, pending: null }
      sources.set(code, source)
    }
    const buffers = [memory.activations, memory.batch, ...bindings.map((binding) => memory.bufferOf(binding))]
    return { source, kernel, bindGroup: device.createBindGroup({ label, layout: source.layout, entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })) }) }
  }
  const ready = kernels.map((ofEntry) => ofEntry.map(makeReady))
  return {
    dispatches(entry, counts) {
      const found: Dispatch[] = []
      for (const { source: { pipeline }, bindGroup, kernel } of ready[entry]) {
        const workgroups = kernel.workgroups(counts)
        if (isIdle(workgroups)) continue
        if (pipeline === null) return undefined
        found.push({ pipeline, bindGroup, workgroups })
      }
      return found
    },
    async compile(entries, counts) {
      const needed = new Set<Source>()
      for (const { source, kernel } of entries.flatMap((entry) => ready[entry])) {
        if (source.pipeline === null && !isIdle(kernel.workgroups(counts))) needed.add(source)
      }
      await Promise.all([...needed].map((source) => (source.pending ??= compileInto(device, source))))
    }
  }
}

/** GPUShaderStage.COMPUTE */
const COMPUTE = 0x4

function isIdle(workgroups: Dispatch['workgroups'] | null): workgroups is null {
  return workgroups === null || workgroups.includes(0)
}

/** How the code declares its bindings, from 0 on. */
function accessesIn(code: string, label: string): Access[] {
  const accesses: Access[] = []
  for (const [, index, access] of code.matchAll(/@binding\((\d+)\)\s*var<storage,\s*(read|read_write)>/g)) accesses[Number(index)] = access === 'read' ? 'read-only-storage' : 'storage'
  for (let i = 0; i < accesses.length; i++) if (accesses[i] === undefined) throw new TypeError(`kernel ${label}: no declaration of binding ${i}`)
  return accesses
}

async function compileInto(device: GPUDevice, source: Source): Promise<void> {
  try {
    source.pipeline = await compile(device, source)
  } finally {
    source.pending = null
  }
}

async function compile(device: GPUDevice, { label, code, layout }: Source): Promise<GPUComputePipeline> {
  const module = device.createShaderModule({ label, code })
  try {
    return await device.createComputePipelineAsync({ label, layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }), compute: { module, entryPoint: 'main' } })
  } catch (cause) {
    const { messages } = await module.getCompilationInfo()
    const lines = code.split('\n')
    const said = messages.map(({ type, lineNum, message }) => `${type}: ${message}\n  ${lines[lineNum - 1] ?? ''}`)
    throw new TypeError([`kernel ${label}: ${cause instanceof Error ? cause.message : String(cause)}`, ...said].join('\n'), { cause })
  }
}
