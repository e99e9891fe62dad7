/** The GPU that tests run on: whatever the host's Vulkan finds, by default Chromium's software one. */
import { existsSync } from 'node:fs'
import { openDevice } from '../../src/backend/webgpu/device.ts'
import { nodeGpu } from '../../src/platform/node-gpu.ts'

const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json'

// Read when Vulkan is loaded, hence before anything asks for an adapter.
if (process.env.VK_ICD_FILENAMES === undefined && existsSync(SWIFTSHADER)) process.env.VK_ICD_FILENAMES = SWIFTSHADER

/** One of each kind for all tests of a file: opening it takes longer than most of them. */
let device: Promise<GPUDevice> | undefined
let leastDevice: Promise<GPUDevice> | undefined

export function gpuDevice(): Promise<GPUDevice> {
  return (device ??= nodeGpu().then(openDevice))
}

/** The same adapter with no more than every device has: WebGPU's least limits, and no subgroups or half floats. */
export function leastGpuDevice(): Promise<GPUDevice> {
  return (leastDevice ??= nodeGpu().then(async (gpu) => {
    const adapter = await gpu.requestAdapter()
    if (adapter === null) throw new Error('expected an adapter')
    return adapter.requestDevice()
  }))
}
