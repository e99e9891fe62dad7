/** A model that wasm could address and the host does not have the memory for. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { createMemoryMap } from '../../src/backend/wasm/memory-map.ts'
import { capacityOf } from '../../src/load.ts'
import { buildModel, readModelConfig } from '../support/architectures.ts'
import { repositoryPath } from '../support/fixtures.ts'

/** mamba-790m in f32: 3.2 GB. */
const CONFIG = { model_type: 'mamba', hidden_size: 1536, num_hidden_layers: 48, vocab_size: 50_280 }

// The address space of a process can be limited by its shell on Linux alone.
test.runIf(process.platform === 'linux')('is a RangeError with the bytes that it needs, and the process goes on', async () => {
  const script = `
    import { createBackend } from '${repositoryPath('test/support/backends.ts')}'
    import { capacityOf } from '${repositoryPath('src/load.ts')}'
    import { buildModel, readModelConfig } from '${repositoryPath('test/support/architectures.ts')}'
    import { Mamba } from '${repositoryPath('src/index.ts')}'
    const { program } = buildModel(readModelConfig(${JSON.stringify(CONFIG)}), () => true)
    const error = await createBackend('simd', program, capacityOf(program, 1)).catch((error) => error)
    const mamba = await Mamba.load('${repositoryPath('test/fixtures/models/mamba')}', { threads: 1 })
    const { ids } = await mamba.complete([1, 2, 3], { maxTokens: 5, ignoreEos: true })
    console.log(JSON.stringify({ isRangeError: error instanceof RangeError, message: error.message, count: ids.length }))
  `
  const command = `ulimit -v 5000000; exec ${process.execPath} --conditions=source --input-type=module --eval "$SCRIPT"`
  const { stdout } = await promisify(execFile)('sh', ['-c', command], { env: { ...process.env, SCRIPT: script } })
  const { isRangeError, message, count } = JSON.parse(stdout)
  expect([isRangeError, count]).toEqual([true, 5])
  const { program } = buildModel(readModelConfig(CONFIG), () => true)
  const { bytes } = createMemoryMap(program, capacityOf(program, 1), { heapBase: 0, nThreads: 1, formatOf: () => 'f32' })
  const needed = Number(/^wasm memory: expected (\d+) bytes \(weights \d+, state \d+, activations \d+\), got a host that does not give them/.exec(message)?.[1])
  // But for the core's own static data.
  expect(needed - bytes.total).toBeGreaterThanOrEqual(0)
  expect(needed - bytes.total).toBeLessThanOrEqual(65_536)
})
