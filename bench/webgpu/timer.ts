/** Times of dispatches by the GPU's own clock. */

export interface Compiled {
  readonly pipeline: GPUComputePipeline
  readonly bindGroup: GPUBindGroup
}

export interface Dispatch extends Compiled {
  readonly workgroups: readonly [x: number, y: number, z: number]
}

export interface Timer {
  /** Buffers are bound in their order. */
  compile(code: string, buffers: readonly GPUBuffer[]): Promise<Compiled>
  run(dispatches: readonly Dispatch[]): void
  /** Microseconds for all of them, one after the other: the median of five measurements. */
  time(dispatches: readonly Dispatch[]): Promise<number>
  read(buffer: GPUBuffer, first: number, count: number): Promise<Float32Array>
}

/** A measurement takes about so long. */
const TARGET_US = 10_000
const WARM_UP_MS = 250

export function createTimer(device: GPUDevice): Timer {
  if (!device.features.has('timestamp-query')) throw new Error('expected a device with timestamp-query')
  const querySet = device.createQuerySet({ type: 'timestamp', count: 2 })
  const resolved = device.createBuffer({ size: 16, usage: 0x200 | 0x4 })
  const encode = (pass: GPUComputePassEncoder, dispatches: readonly Dispatch[]): void => {
    for (const { pipeline, bindGroup, workgroups } of dispatches) {
      pass.setPipeline(pipeline)
      pass.setBindGroup(0, bindGroup)
      pass.dispatchWorkgroups(...workgroups)
    }
  }
  const copied = async (buffer: GPUBuffer, firstByte: number, bytes: number, encoder = device.createCommandEncoder()): Promise<ArrayBuffer> => {
    const staging = device.createBuffer({ size: bytes, usage: 0x1 | 0x8 })
    encoder.copyBufferToBuffer(buffer, firstByte, staging, 0, bytes)
    device.queue.submit([encoder.finish()])
    await staging.mapAsync(0x1)
    const copy = staging.getMappedRange().slice(0)
    staging.destroy()
    return copy
  }
  const once = async (dispatches: readonly Dispatch[], repeats: number): Promise<number> => {
    const encoder = device.createCommandEncoder()
    const pass = encoder.beginComputePass({ timestampWrites: { querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 } })
    for (let i = 0; i < repeats; i++) encode(pass, dispatches)
    pass.end()
    encoder.resolveQuerySet(querySet, 0, 2, resolved, 0)
    const [start, end] = new BigUint64Array(await copied(resolved, 0, 16, encoder))
    return Number(end - start) / 1000 / repeats
  }
  return {
    async compile(code, buffers) {
      device.pushErrorScope('validation')
      const entries = buffers.map((_, binding): GPUBindGroupLayoutEntry => {
        const isRead = new RegExp(`@binding\\(${binding}\\) var<storage, read>`).test(code)
        return { binding, visibility: 0x4, buffer: { type: isRead ? 'read-only-storage' : 'storage' } }
      })
      const bindGroupLayout = device.createBindGroupLayout({ entries })
      const layout = device.createPipelineLayout({ bindGroupLayouts: [bindGroupLayout] })
      const pipeline = await device.createComputePipelineAsync({ layout, compute: { module: device.createShaderModule({ code }), entryPoint: 'main' } })
      const bindGroup = device.createBindGroup({ layout: bindGroupLayout, entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })) })
      const error = await device.popErrorScope()
      if (error !== null) throw new Error(error.message)
      return { pipeline, bindGroup }
    },
    run(dispatches) {
      const encoder = device.createCommandEncoder()
      const pass = encoder.beginComputePass()
      encode(pass, dispatches)
      pass.end()
      device.queue.submit([encoder.finish()])
    },
    async time(dispatches) {
      // A GPU's clock falls while it waits, and takes long to rise: an H200's from 345 to 1980 MHz more than 100 ms.
      let repeats = 1
      for (const startMs = performance.now(); performance.now() - startMs < WARM_UP_MS;) {
        const elapsedUs = await once(dispatches, repeats)
        repeats = Math.max(1, Math.min(1000, Math.round(TARGET_US / Math.max(elapsedUs, 1))))
      }
      const times: number[] = []
      for (let i = 0; i < 5; i++) times.push(await once(dispatches, repeats))
      return times.sort((a, b) => a - b)[2]
    },
    async read(buffer, first, count) {
      return new Float32Array(await copied(buffer, 4 * first, 4 * count))
    }
  }
}
