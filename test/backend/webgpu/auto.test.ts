/** Backend 'auto': a GPU where it pays, and never an error where the CPU can do it. */
import { spawnSync } from 'node:child_process'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openDevice } from '../../../src/backend/webgpu/device.ts'
import type { LoadOptions, Mamba } from '../../../src/mamba.ts'
import { nodeGpu } from '../../../src/platform/node-gpu.ts'
import { fixtureModel, repositoryPath } from '../../support/fixtures.ts'
import { gpuDevice, GPUS } from '../../support/gpu.ts'
import { createNumbers } from '../../support/numbers.ts'
import { loadTiny, tinyConfig, tinyTensors } from '../../support/tiny-checkpoint.ts'

const VOCAB_SIZE = 2 ** 16
const IDS = [5, 70, 4000]
const GREEDY = { maxTokens: 5, temperature: 0, ignoreEos: true } as const

/** The tiny model with so large a vocabulary that its few ops have bytes enough for a GPU: 8.4 MB. */
function loadWide(options: LoadOptions): Promise<Mamba> {
  const numbers = createNumbers(1)
  const tensors = tinyTensors().map((tensor) => {
    const isVocabulary = tensor.name.endsWith('embeddings.weight')
    return isVocabulary ? { ...tensor, shape: [VOCAB_SIZE, 32], data: numbers.floats(VOCAB_SIZE * 32, -1, 1) } : tensor
  })
  return loadTiny({ config: { ...tinyConfig(), vocab_size: VOCAB_SIZE }, tensors }, { threads: undefined, ...options })
}

async function reasonOf(loading: Promise<Mamba>): Promise<{ readonly name: string; readonly reason: string }> {
  await using mamba = await loading
  expect((await mamba.complete(IDS, GREEDY)).ids).toHaveLength(5)
  return mamba.backend
}

/** The device as another one would be. */
function disguised(device: GPUDevice, changes: Readonly<Record<string, unknown>>): GPUDevice {
  return new Proxy(device, {
    get(target, key) {
      if (Object.hasOwn(changes, key)) return Reflect.get(changes, key)
      const value = Reflect.get(target, key)
      return typeof value === 'function' ? value.bind(target) : value
    }
  })
}

const HARDWARE = { adapterInfo: { vendor: 'maker', architecture: '', device: 'of GPUs', description: '', isFallbackAdapter: false, subgroupMinSize: 4, subgroupMaxSize: 4 } }

test('a model too small to gain', async () => {
  const { name, reason } = await reasonOf(loadTiny({}, { backend: 'auto' }))
  expect(name).toBe('wasm')
  expect(reason).toMatch(/^auto: 0\.\d+ MB of weights a token are faster on the CPU; this host has WebAssembly SIMD; /)
})

test.each([[{ build: 'simd' }, 'build'], [{ threads: 2 }, 'threads'], [{ relaxed: true }, 'relaxed']] as const)('options of the CPU: %o', async (options, option) => {
  const { name, reason } = await reasonOf(loadWide({ backend: 'auto', ...options }))
  expect(name).toBe('wasm')
  expect(reason).toMatch(new RegExp(`^auto: the option ${option} is of the CPU; `))
})

test('a host without an adapter: no error, and nothing printed', () => {
  // Vulkan reads the variable when it is loaded: a process of its own.
  const code = `import { openWhereItPays } from './src/auto-backend.ts'
    import { openWebGpuBackend } from './src/backend/webgpu/open.ts'
    import { Mamba } from './src/mamba.ts'
    const program = { ops: [] }
    console.log(await openWhereItPays(program, () => 'f32', (reason) => openWebGpuBackend(program, () => ({}), { device: undefined, formatOf: () => 'f32', ssd: undefined, reason })))
    console.log((await Mamba.load(${JSON.stringify(fixtureModel('mamba'))}, { backend: 'auto' })).backend.name)`
  const { stdout, stderr } = spawnSync(process.execPath, ['--conditions=source', '--input-type=module', '--eval', code], {
    cwd: repositoryPath('.'), encoding: 'utf8', env: { ...process.env, VK_ICD_FILENAMES: '/nowhere.json', VK_DRIVER_FILES: '/nowhere.json' }
  })
  expect({ stdout: stdout.trim().split('\n'), stderr }).toEqual({ stdout: ['backend webgpu: expected a host with a WebGPU adapter, got none: no GPU, or no driver of it', 'wasm'], stderr: '' })
})

describe.each(GPUS)('%s', { timeout: 120_000 }, () => {
  let device: GPUDevice
  beforeAll(async () => {
    device = await gpuDevice()
  })

  test.each([['found', false], ['given', true]])('a software adapter that is %s', async (_, isGiven) => {
    const { name, reason } = await reasonOf(loadWide({ backend: 'auto', gpu: isGiven ? device : undefined }))
    expect(name).toBe('wasm')
    expect(reason).toMatch(/^auto: backend webgpu: expected an adapter that is a GPU, got .*, which computes on the CPU; this host has WebAssembly SIMD; /)
  })

  describe('a GPU', () => {
    let gpu: Mamba
    let cpu: Mamba
    beforeAll(async () => {
      gpu = await loadWide({ backend: 'auto', gpu: disguised(device, HARDWARE) })
      cpu = await loadWide({})
    }, 120_000)
    afterAll(async () => {
      await gpu.dispose()
      await cpu.dispose()
    })

    test('is taken, and says why', () => {
      expect(gpu.backend).toMatchObject({ name: 'webgpu', build: 'maker of GPUs', reason: expect.stringMatching(/^auto: 8\.\d+ MB of weights a token are faster on a GPU$/) })
      expect(cpu.backend.name).toBe('wasm')
    })

    test('writes the same text', async () => {
      expect((await gpu.complete(IDS, GREEDY)).ids).toEqual((await cpu.complete(IDS, GREEDY)).ids)
    })
  })

  test('a GPU with limits too small for the model', async () => {
    const limits = { ...HARDWARE, limits: disguisedLimits(device.limits, { maxStorageBufferBindingSize: 2 ** 16 }) }
    const { name, reason } = await reasonOf(loadWide({ backend: 'auto', gpu: disguised(device, limits) }))
    expect(name).toBe('wasm')
    expect(reason).toMatch(/^auto: maxStorageBufferBindingSize of the device: expected \d+ for .*, got 65536; /)
  })

  test('a GPU that was lost', async () => {
    const lost = await openDevice(await nodeGpu())
    lost.destroy()
    await lost.lost
    const { name, reason } = await reasonOf(loadWide({ backend: 'auto', gpu: disguised(lost, HARDWARE) }))
    expect(name).toBe('wasm')
    expect(reason).toMatch(/^auto: backend webgpu: expected a device that works, got one that was lost/)
  })
})

function disguisedLimits(limits: GPUSupportedLimits, changes: Readonly<Record<string, number>>): unknown {
  return new Proxy(limits, { get: (target, key) => (Object.hasOwn(changes, key) ? Reflect.get(changes, key) : Reflect.get(target, key)) })
}
