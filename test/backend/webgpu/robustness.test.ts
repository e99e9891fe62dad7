/** What a GPU refuses or loses: typed errors that say what it was, and nothing that hangs. */
import { spawnSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import type { Capacity } from '../../../src/backend/backend.ts'
import { createMemory } from '../../../src/backend/webgpu/memory.ts'
import { openDevice } from '../../../src/backend/webgpu/device.ts'
import { createWebGpuBackend } from '../../../src/backend/webgpu/webgpu-backend.ts'
import { EngineError } from '../../../src/errors.ts'
import { Mamba } from '../../../src/mamba.ts'
import { nodeGpu } from '../../../src/platform/node-gpu.ts'
import { ProgramBuilder } from '../../../src/program/builder.ts'
import { fixtureModel, repositoryPath } from '../../support/fixtures.ts'
import { GPUS, leastGpuDevice } from '../../support/gpu.ts'

const SOURCE = fixtureModel('mamba')
const CAPACITY: Capacity = { maxRows: 4, maxLogitRows: 4, nSlots: 1, contextLength: 2 ** 20 }
const OPTIONS = { ownsDevice: false, reason: 'test' } as const

describe('options', () => {
  test.each([
    [{ backend: 'webgpu', threads: 2 }, /threads of the WebGPU backend: expected one of "auto", 1, got 2/],
    [{ backend: 'webgpu', build: 'simd' }, /build of the WebGPU backend/],
    [{ backend: 'webgpu', relaxed: true }, /relaxed of the WebGPU backend/],
    [{ backend: 'webgpu', gpu: {} }, /gpu: expected a GPUDevice, got an object/],
    [{ backend: 'auto', gpu: {} }, /gpu: expected a GPUDevice, got an object/],
    [{ gpu: {} }, /gpu: expected backend 'webgpu' or 'auto' with it, got backend "wasm"/]
  ] as const)('%o', async (options, message) => {
    await expect(Mamba.load(SOURCE, options)).rejects.toThrow(message)
  })
})

test('a host without an adapter', () => {
  // Vulkan reads the variable when it is loaded: a process of its own.
  const code = `import { Mamba } from './src/mamba.ts'
    await Mamba.load(${JSON.stringify(SOURCE)}, { backend: 'webgpu' }).then(() => console.log('loaded'), (error) => console.log(error.name + ' ' + error.message))`
  const { stdout } = spawnSync(process.execPath, ['--conditions=source', '--input-type=module', '--eval', code], {
    cwd: repositoryPath('.'), encoding: 'utf8', env: { ...process.env, VK_ICD_FILENAMES: '/nowhere.json', VK_DRIVER_FILES: '/nowhere.json' }
  })
  expect(stdout.trim()).toBe('UnsupportedError backend webgpu: expected a host with a WebGPU adapter, got none: no GPU, or no driver of it')
})

test('memory that the device does not give', async () => {
  const builder = new ProgramBuilder()
  builder.state('state', [1000])
  let nAlive = 0
  const device = {
    limits: { maxBufferSize: 2 ** 30, maxStorageBufferBindingSize: 2 ** 30 },
    features: new Set(), adapterInfo: {}, pushErrorScope() {},
    popErrorScope: async () => ({ message: 'out of memory' }),
    createBuffer() {
      nAlive++
      return { destroy: () => nAlive-- }
    }
  }
  const needs = { program: builder.build(null, 0), capacity: CAPACITY, kernels: [], activationBytes: 100, layoutOf: () => ({ kind: 'plain', size: 0 }) as const, maxBindingBytes: 2 ** 27 }
  const pending = createMemory(device as unknown as GPUDevice, needs)
  // 100 of activations, 4 · (4 + 6 + 2 · 4 + 4) of the batch, 4 · 2 · 1000 of the state.
  await expect(pending).rejects.toThrow(new RangeError('memory of the GPU: expected 8188 bytes, got a device that does not give them: out of memory'))
  expect(nAlive).toBe(0)
})

describe.each(GPUS)('%s', { timeout: 180_000 }, () => {
  test('a limit below what the model needs', async () => {
    const builder = new ProgramBuilder()
    builder.keyValue('layer', 64)
    const device = await leastGpuDevice()
    const pending = createWebGpuBackend(builder.build(null, 0), CAPACITY, { device, ...OPTIONS })
    await expect(pending).rejects.toThrow(new RangeError(
      `maxStorageBufferBindingSize of the device: expected ${4 * 64 * 2 ** 20} for keys layer, in bytes, got ${device.limits.maxStorageBufferBindingSize}`
    ))
  })

  test('a lost device: what waits and what comes rejects with an EngineError', async () => {
    const device = await openDevice(await nodeGpu())
    const mamba = await Mamba.load(SOURCE, { backend: 'webgpu', gpu: device })
    const session = mamba.session()
    await session.append([1, 2, 3])
    const waiting = [mamba.complete([7], { maxTokens: 1000, temperature: 0, ignoreEos: true }), mamba.forward([1, 2, 3]), session.append([4, 5])]
    const settled = Promise.allSettled(waiting)
    device.destroy()
    for (const result of await settled) expect(result.status === 'rejected' && result.reason).toBeInstanceOf(EngineError)
    await expect(mamba.forward([1])).rejects.toThrow(/backend webgpu: expected a device that works, got one that was lost/)
    await expect(session.save()).rejects.toBeInstanceOf(EngineError)
    await mamba.dispose()
  })

  test('a device that is lost under a greedy generation', async () => {
    const device = await openDevice(await nodeGpu())
    const mamba = await Mamba.load(SOURCE, { backend: 'webgpu', gpu: device })
    let nTokens = 0
    const generation = async (): Promise<void> => {
      for await (const { ids } of mamba.generate([1, 2, 3], { maxTokens: 1000, temperature: 0, ignoreEos: true })) {
        nTokens += ids.length
        if (nTokens === 5) device.destroy()
      }
    }
    await expect(generation()).rejects.toThrow(/backend webgpu: expected a device that works, got one that was lost/)
    // The step that was begun may be answered.
    expect(nTokens).toBeLessThan(10)
    await mamba.dispose()
  })

  test('a device of the caller stays the caller’s', async () => {
    const device = await openDevice(await nodeGpu())
    const mamba = await Mamba.load(SOURCE, { backend: 'webgpu', gpu: device })
    expect(mamba.backend).toMatchObject({ name: 'webgpu', threads: 1, ssd: null, reason: expect.stringContaining('a device that was given') })
    await mamba.dispose()
    await expect(Promise.race([device.lost, Promise.resolve('works')])).resolves.toBe('works')
    device.pushErrorScope('validation')
    device.createBuffer({ size: 4, usage: 0x80 }).destroy()
    expect(await device.popErrorScope()).toBeNull()
    device.destroy()
  })
})
