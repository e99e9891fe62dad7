/** What a GPU does at most and at least: bytes read by a shader that does nothing else, and an empty submission. */

import { BUFFER_USAGE } from '../../src/backend/webgpu/device.ts'
import { createGpuClock, medianMs } from './gpu-clock.ts'

export interface GpuLimits {
  /** Bytes per second of the best of some shaders, each the median of its runs. */
  readonly bandwidth: number
  /** Seconds until an empty submission is known to be done. */
  readonly submission: number
  /** Seconds of a dispatch with next to nothing to do, one of many that wait for each other, by the GPU's clock. */
  readonly dispatch: number
}

const LANES = 256
const REPEATS = 10
const SAMPLES = 5

export async function measureGpuLimits(device: GPUDevice, wantedBytes: number): Promise<GpuLimits> {
  const bytes = Math.min(wantedBytes, device.limits.maxBufferSize, device.limits.maxStorageBufferBindingSize) & ~0xfffff
  const data = device.createBuffer({ size: bytes, usage: BUFFER_USAGE.storage })
  let bandwidth = 0
  for (const workgroups of [1024, 4096, 16_384]) {
    const out = device.createBuffer({ size: 4 * workgroups * LANES, usage: BUFFER_USAGE.storage })
    const module = device.createShaderModule({ code: readCode(bytes / 16, workgroups * LANES) })
    const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: 'main' } })
    const bindGroup = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: [data, out].map((buffer, binding) => ({ binding, resource: { buffer } })) })
    const run = (): Promise<void> => submit(device, (pass) => {
      pass.setPipeline(pipeline)
      pass.setBindGroup(0, bindGroup)
      for (let i = 0; i < REPEATS; i++) pass.dispatchWorkgroups(workgroups)
    })
    await run()
    bandwidth = Math.max(bandwidth, (REPEATS * bytes) / (await medianSeconds(SAMPLES, run)))
    out.destroy()
  }
  data.destroy()
  const empty = (): Promise<void> => submit(device, () => {})
  await empty()
  return { bandwidth, submission: await medianSeconds(20, empty), dispatch: await measureDispatch(device) }
}

const DISPATCHES = 1000

async function measureDispatch(device: GPUDevice): Promise<number> {
  const buffer = device.createBuffer({ size: 4, usage: BUFFER_USAGE.storage })
  const code = `
@group(0) @binding(0) var<storage, read_write> value: f32;
@compute @workgroup_size(1)
fn main() { value += 1.0; }`
  const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module: device.createShaderModule({ code }), entryPoint: 'main' } })
  const bindGroup = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: [{ binding: 0, resource: { buffer } }] })
  const clock = createGpuClock(device)
  const ms = await medianMs(() => clock([{ pipeline, bindGroup, workgroups: [1, 1, 1] }], DISPATCHES), { warmUpMs: 200, samples: SAMPLES })
  buffer.destroy()
  return ms / 1000
}

/** Each thread takes every nThreads-th vector, four loads at a time; the sums are stored so that nothing is left out. */
function readCode(nVectors: number, nThreads: number): string {
  return `
@group(0) @binding(0) var<storage, read> data: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@compute @workgroup_size(${LANES})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  var sum = vec4<f32>();
  var i = id.x;
  for (; i + ${3 * nThreads}u < ${nVectors}u; i += ${4 * nThreads}u) {
    sum += (data[i] + data[i + ${nThreads}u]) + (data[i + ${2 * nThreads}u] + data[i + ${3 * nThreads}u]);
  }
  for (; i < ${nVectors}u; i += ${nThreads}u) { sum += data[i]; }
  sums[id.x] = sum.x + sum.y + sum.z + sum.w;
}`
}

async function submit(device: GPUDevice, record: (pass: GPUComputePassEncoder) => void): Promise<void> {
  const encoder = device.createCommandEncoder()
  const pass = encoder.beginComputePass()
  record(pass)
  pass.end()
  device.queue.submit([encoder.finish()])
  await device.queue.onSubmittedWorkDone()
}

/** Of `count` runs, one after the other. */
export async function medianSeconds(count: number, run: () => Promise<unknown>): Promise<number> {
  const seconds: number[] = []
  for (let i = 0; i < count; i++) {
    const start = performance.now()
    await run()
    seconds.push((performance.now() - start) / 1000)
  }
  return seconds.sort((a, b) => a - b)[count >> 1]
}
