/** Whether a device unpacks half floats as they are: WGSL leaves it free to lose the subnormal ones, and drivers have been wrong. */

import { f16Values } from '../../half.ts'
import { BUFFER_USAGE, UNPACKS_HALVES } from './device.ts'
import { createReadback } from './readback.ts'

const COUNT = 2 ** 16
const THREADS = 64
const PROBE = `
@group(0) @binding(0) var<storage, read_write> values: array<f32>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let pair = unpack2x16float((2u * id.x) | ((2u * id.x + 1u) << 16u));
  values[2u * id.x] = pair.x;
  values[2u * id.x + 1u] = pair.y;
}`

/** Unpacks every half once. A device that fails at it tells so at its next task. */
export async function probeHalves(device: GPUDevice): Promise<void> {
  if (UNPACKS_HALVES.has(device)) return
  const buffer = device.createBuffer({ label: 'halves', size: 4 * COUNT, usage: BUFFER_USAGE.storage | BUFFER_USAGE.copySource })
  const readback = createReadback(device)
  try {
    const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module: device.createShaderModule({ code: PROBE }), entryPoint: 'main' } })
    const encoder = device.createCommandEncoder()
    const pass = encoder.beginComputePass()
    pass.setPipeline(pipeline)
    pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: [{ binding: 0, resource: { buffer } }] }))
    pass.dispatchWorkgroups(COUNT / 2 / THREADS)
    pass.end()
    const values = await readback.read([{ buffer, first: 0, count: COUNT }], new Float32Array(COUNT), encoder)
    // Weights are finite.
    UNPACKS_HALVES.set(device, f16Values().every((value, bits) => !Number.isFinite(value) || Object.is(values[bits], value)))
  } catch {
    UNPACKS_HALVES.set(device, false)
  } finally {
    readback.destroy()
    buffer.destroy()
  }
}
