/** From a host's WebGPU to a device with all that its adapter can give. */

import { describe, messageOf, UnsupportedError } from '../../errors.ts'
import type { DeviceFacts } from './kernel.ts'

/** WebGPU's own numbers: Node's package does not make them global. */
export const BUFFER_USAGE = { mapRead: 0x1, copySource: 0x4, copyTarget: 0x8, storage: 0x80, queryResolve: 0x200 } as const
export const MAP_READ = 0x1

/** Of devices whose halves were probed (halves.ts). */
export const UNPACKS_HALVES = new WeakMap<GPUDevice, boolean>()

/** Devices of hosts whose WGSL has products of bytes. */
const DOTS_BYTES = new WeakSet<GPUDevice>()

/** Limits of which the adapter's own are asked for; without asking a device has the least that WebGPU allows. */
const LIMITS = [
  'maxBufferSize', 'maxStorageBufferBindingSize', 'maxStorageBuffersPerShaderStage', 'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupSizeX', 'maxComputeWorkgroupsPerDimension'
] as const

const FEATURES = ['subgroups', 'timestamp-query'] as const

/** Throws an UnsupportedError where there is no adapter, or one that does not work. */
export async function openDevice(gpu: GPU): Promise<GPUDevice> {
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' })
  const expected = 'a host with a WebGPU adapter'
  if (adapter === null) throw new UnsupportedError({ place: 'backend webgpu', expected, got: 'none: no GPU, or no driver of it' })
  try {
    const device = await adapter.requestDevice({
      requiredFeatures: FEATURES.filter((feature) => adapter.features.has(feature)),
      // Hosts differ in which limits they know.
      requiredLimits: Object.fromEntries(LIMITS.filter((name) => name in adapter.limits).map((name) => [name, adapter.limits[name]]))
    })
    // Older hosts do not tell.
    if ((gpu.wgslLanguageFeatures as WGSLLanguageFeatures | undefined)?.has('packed_4x8_integer_dot_product')) DOTS_BYTES.add(device)
    return device
  } catch (cause) {
    throw new UnsupportedError({ place: 'backend webgpu', expected, got: `one that gives no device: ${cause instanceof Error ? cause.message : String(cause)}` }, { cause })
  }
}

export function factsOf(device: GPUDevice): DeviceFacts {
  const { features, limits, adapterInfo } = device
  // Older hosts know the feature, but not the sizes.
  const hasSubgroups = features.has('subgroups') && adapterInfo.subgroupMinSize > 0
  return {
    subgroup: hasSubgroups ? { min: adapterInfo.subgroupMinSize, max: adapterInfo.subgroupMaxSize } : null,
    isSoftware: isSoftware(device),
    unpacksHalves: UNPACKS_HALVES.get(device) ?? false,
    dotsBytes: DOTS_BYTES.has(device),
    maxWorkgroupInvocations: Math.min(limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX),
    maxWorkgroupStorageBytes: limits.maxComputeWorkgroupStorageSize,
    maxWorkgroups: limits.maxComputeWorkgroupsPerDimension,
    // A buffer is bound as a whole.
    maxBindingBytes: Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize)
  }
}

/** What computes: for people to read. */
export function adapterName({ adapterInfo }: GPUDevice): string {
  const { vendor, architecture, device, description } = adapterInfo
  return description || [vendor, architecture, device].filter(Boolean).join(' ') || 'an adapter without a name'
}

/** True for one that computes on the CPU, which WebAssembly does better. */
export function isSoftware(device: GPUDevice): boolean {
  return device.adapterInfo.isFallbackAdapter || /swiftshader|llvmpipe|lavapipe|software|basic render/i.test(adapterName(device))
}

/** Throws a RangeError that names the limit, what is needed and what the device has. */
export function checkLimit(limit: string, { needed, has, what }: { needed: number; has: number; what: string }): void {
  if (needed <= has) return
  throw new RangeError(messageOf({ place: `${limit} of the device`, expected: `${needed} for ${what}`, got: describe(has) }))
}
