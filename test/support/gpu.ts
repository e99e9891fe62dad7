/**
 * The GPU that tests run on: whatever the host's Vulkan finds, by default Chromium's software one. Where there is none the tests of kernels
 * do not run (`test.each(GPUS)`); in CI that fails (test/backend/webgpu/adapter.test.ts).
 */
import { existsSync } from 'node:fs'
import { openDevice } from '../../src/backend/webgpu/device.ts'
import { nodeGpu } from '../../src/platform/node-gpu.ts'

const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json'

// Read when Vulkan is loaded, hence before anything asks for an adapter.
if (process.env.VK_ICD_FILENAMES === undefined && existsSync(SWIFTSHADER)) process.env.VK_ICD_FILENAMES = SWIFTSHADER

/** The adapter's name, alone or none. */
export const GPUS: readonly string[] = await findAdapter()

async function findAdapter(): Promise<string[]> {
  const adapter = await (await nodeGpu()).requestAdapter()
  return adapter === null ? [] : [adapter.info.description]
}

/** One of each kind for all tests of a file: opening it takes longer than most of them. */
let device: Promise<GPUDevice> | undefined
let leastDevice: Promise<GPUDevice> | undefined

export function gpuDevice(): Promise<GPUDevice> {
  return (device ??= nodeGpu().then(openDevice).then(failOnErrors))
}

/** The same adapter with no more than every device has: WebGPU's least limits, and no subgroups or half floats. */
export function leastGpuDevice(): Promise<GPUDevice> {
  return (leastDevice ??= nodeGpu().then(async (gpu) => {
    const adapter = await gpu.requestAdapter()
    if (adapter === null) throw new Error('expected an adapter')
    return failOnErrors(await adapter.requestDevice())
  }))
}

/** An error that no scope catches is one of the backend: it fails the run, whichever test is under way. */
function failOnErrors(device: GPUDevice): GPUDevice {
  device.addEventListener('uncapturederror', ({ error }) => {
    queueMicrotask(() => {
      throw new Error(`uncaptured by the GPU backend: ${error.message}`)
    })
  })
  return device
}
