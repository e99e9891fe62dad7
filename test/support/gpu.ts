/** The GPU that tests run on: whatever the host's Vulkan finds, by default Chromium's software one. */
import { existsSync } from 'node:fs'
import { openDevice } from '../../src/backend/webgpu/device.ts'
import { nodeGpu } from '../../src/platform/node-gpu.ts'

const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json'

// Read when Vulkan is loaded, hence before anything asks for an adapter.
if (process.env.VK_ICD_FILENAMES === undefined && existsSync(SWIFTSHADER)) process.env.VK_ICD_FILENAMES = SWIFTSHADER

/** One for all tests of a file: opening it takes longer than most of them. */
let device: Promise<GPUDevice> | undefined

export function gpuDevice(): Promise<GPUDevice> {
  return (device ??= nodeGpu().then(openDevice))
}
