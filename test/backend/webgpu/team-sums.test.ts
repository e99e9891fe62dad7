/** Sums over teams of threads, by themselves: teams of a subgroup, of several, of a part of one, and without subgroups. */
import { describe, expect, test } from 'vitest'
import { BUFFER_USAGE, factsOf } from '../../../src/backend/webgpu/device.ts'
import { unroll } from '../../../src/backend/webgpu/kernels/product.ts'
import { type Sums, sumsCode, sumsEnables, sumsParameter, sumTeams } from '../../../src/backend/webgpu/kernels/team-sums.ts'
import { createReadback } from '../../../src/backend/webgpu/readback.ts'
import { gpuDevice, GPUS, leastGpuDevice } from '../../support/gpu.ts'

/** Every team's totals, of sums i + (i + 1) · thread. */
async function totalsOf(device: GPUDevice, sums: Sums): Promise<number[]> {
  const facts = factsOf(device)
  const { count, teamThreads, threads } = sums
  const code = `${sumsEnables(sums, facts).map((name) => `enable ${name};`).join('\n')}
@group(0) @binding(0) var<storage, read_write> totals: array<f32>;
${sumsCode(sums, facts)}
@compute @workgroup_size(${threads})
fn main(@builtin(local_invocation_index) thread: u32${sumsParameter(sums, facts)}) {
  let lane = thread % ${teamThreads}u;
  ${unroll(count, (i) => `var sum${i} = f32(${i}u + ${i + 1}u * thread);`)}
  ${sumTeams(sums, facts)}
  if (lane < ${count}u) { totals[thread / ${teamThreads}u * ${count}u + lane] = total; }
}`
  const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module: device.createShaderModule({ code }), entryPoint: 'main' } })
  const nTotals = (threads / teamThreads) * count
  const buffer = device.createBuffer({ size: 4 * nTotals, usage: BUFFER_USAGE.storage | BUFFER_USAGE.copySource })
  const encoder = device.createCommandEncoder()
  const pass = encoder.beginComputePass()
  pass.setPipeline(pipeline)
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: [{ binding: 0, resource: { buffer } }] }))
  pass.dispatchWorkgroups(1)
  pass.end()
  const totals = await createReadback(device).read([{ buffer, first: 0, count: nTotals }], new Float32Array(nTotals), encoder)
  buffer.destroy()
  return [...totals]
}

describe.each(GPUS.flatMap(() => [['the device', gpuDevice], ['the least device', leastGpuDevice]] as const))('%s', (_, deviceOf) => {
  test.each([[1, 1], [2, 1], [2, 2], [4, 3], [8, 4], [16, 4], [64, 2]])('teams of %i threads, %i sums', async (teamThreads, count) => {
    const threads = 128
    const expected = Array.from({ length: (threads / teamThreads) * count }, (__, at) => {
      const [team, i] = [Math.floor(at / count), at % count]
      return Array.from({ length: teamThreads }, (___, lane) => i + (i + 1) * (team * teamThreads + lane)).reduce((sum, value) => sum + value)
    })
    expect(await totalsOf(await deviceOf(), { count, teamThreads, threads })).toEqual(expected)
  })
})
