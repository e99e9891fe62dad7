/** Backend 'auto': a GPU where it pays, and never an error where the CPU can do it. */
import { spawnSync } from 'node:child_process'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openDevice } from '../../../src/backend/webgpu/device.ts'
import { EngineError } from '../../../src/errors.ts'
import type { LoadOptions, Mamba } from '../../../src/mamba.ts'
import { nodeGpu } from '../../../src/platform/node-gpu.ts'
import { repositoryPath } from '../../support/fixtures.ts'
import { gpuDevice, GPUS } from '../../support/gpu.ts'
import { createNumbers } from '../../support/numbers.ts'
import { loadTiny, tinyConfig, tinyTensors } from '../../support/tiny-checkpoint.ts'

const VOCAB_SIZE = 2 ** 15
const IDS = [5, 70, 130]
const GREEDY = { maxTokens: 5, temperature: 0, ignoreEos: true } as const

/** A layer of the tiny model with so large a vocabulary that its few ops have bytes enough for a GPU: 4.2 MB. */
function loadWide(options: LoadOptions): Promise<Mamba> {
  const numbers = createNumbers(1)
  const tensors = tinyTensors().filter(({ name }) => !/layers\.[12]\./.test(name)).map((tensor) => {
    const isVocabulary = tensor.name.endsWith('embeddings.weight')
    return isVocabulary ? { ...tensor, shape: [VOCAB_SIZE, 32], data: numbers.floats(VOCAB_SIZE * 32, -1, 1) } : tensor
  })
  return loadTiny({ config: { ...tinyConfig(), vocab_size: VOCAB_SIZE, num_hidden_layers: 1 }, tensors }, { threads: undefined, ...options })
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

/** What a process of its own prints: in this one Vulkan is loaded, and the package. */
function printed(code: string, env: NodeJS.ProcessEnv = {}): { readonly stdout: readonly string[]; readonly stderr: string } {
  const { stdout, stderr } = spawnSync(process.execPath, ['--conditions=source', '--input-type=module', '--eval', code], {
    cwd: repositoryPath('.'), encoding: 'utf8', env: { ...process.env, ...env }
  })
  return { stdout: stdout.trim().split('\n'), stderr }
}

const OPENING = `import { openWhereItPays } from './src/auto-backend.ts'
  import { openWebGpuBackend } from './src/backend/webgpu/open.ts'
  const program = { ops: [] }
  console.log(await openWhereItPays(program, {
    formatOf: () => 'f32', open: (reason) => openWebGpuBackend(program, () => ({}), { device: undefined, formatOf: () => 'f32', ssd: undefined, reason })
  }))`

test('a host without an adapter', () => {
  const { stdout } = printed(OPENING, { VK_ICD_FILENAMES: '/nowhere.json', VK_DRIVER_FILES: '/nowhere.json' })
  expect(stdout).toEqual(['backend webgpu: expected a host with a WebGPU adapter, got none: no GPU, or no driver of it'])
})

test('a host without the optional package: nothing is printed', () => {
  const hiding = `import { registerHooks } from 'node:module'
  registerHooks({ resolve(specifier, context, next) {
    if (specifier === 'webgpu') throw new Error('no such package')
    return next(specifier, context)
  } })`
  expect(printed(`${hiding}\n${OPENING.replaceAll(/import (\{.*?\}) from ('.*?')/g, 'const $1 = await import($2)')}`)).toEqual({
    stdout: ['backend webgpu: expected the optional package webgpu: npm install webgpu, got no such package'], stderr: ''
  })
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
      expect(gpu.backend).toMatchObject({ name: 'webgpu', build: 'maker of GPUs', reason: expect.stringMatching(/^auto: 4\.\d+ MB of weights a token are faster on a GPU$/) })
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

  test('a GPU that is lost while it gets the weights: a typed error, by the first call at the latest', async () => {
    const lost = await openDevice(await nodeGpu())
    const use = async (): Promise<void> => {
      await using mamba = await loadWide({ backend: 'auto', gpu: disguised(lost, HARDWARE), onProgress: ({ loadedBytes }) => void (loadedBytes > 0 && lost.destroy()) })
      await mamba.complete(IDS, GREEDY)
    }
    const error = await use().then(() => expect.fail('nothing was thrown'), (reason: unknown) => reason)
    expect(error).toBeInstanceOf(EngineError)
    expect(String(error)).toMatch(/backend webgpu: expected a device that works, got one that was lost/)
  })
})

function disguisedLimits(limits: GPUSupportedLimits, changes: Readonly<Record<string, number>>): unknown {
  return new Proxy(limits, { get: (target, key) => (Object.hasOwn(changes, key) ? Reflect.get(changes, key) : Reflect.get(target, key)) })
}
