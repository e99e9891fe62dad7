/** What loading and running need beside the weights, the states and the activations: measured in a process of its own, at the size of mamba-130m. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { type Dtype, modelFile } from '../../bench/peers/model-files.ts'
import { readGgufHeader } from '../../src/checkpoint/gguf-reader.ts'
import type { MemoryBytes } from '../../src/backend/backend.ts'
import { fileSource } from '../../src/platform/node-files.ts'
import { repositoryPath } from '../support/fixtures.ts'

const folder = mkdtempSync(join(tmpdir(), 'mamba-wasm-memory-'))
afterAll(() => rmSync(folder, { recursive: true }))

const MAX_EXTRA_BYTES = 32e6

interface Measured {
  readonly memoryBytes: MemoryBytes
  /** Wasm memory and ArrayBuffers at once: `external` of process.memoryUsage() has both. */
  readonly loadingBytes: number
  readonly runningBytes: number
}

/** Looks at every slice that is loaded and every token that is made; a timer sees what is between. */
const SCRIPT = `
const [index, path, dtype] = process.argv.slice(1)
const { Mamba } = await import(index)
let peak = 0
const look = () => { peak = Math.max(peak, process.memoryUsage().external) }
const timer = setInterval(look, 1)
const mamba = await Mamba.load(path, { threads: 1, dtype, onProgress: look })
look()
const loadingBytes = peak
peak = 0
for await (const _ of mamba.generate('Once upon a time. '.repeat(100), { maxTokens: 16, seed: 1, ignoreEos: true, onProgress: look })) look()
await mamba.score('There was nothing so very remarkable in that. '.repeat(20))
look()
clearInterval(timer)
console.log(JSON.stringify({ memoryBytes: mamba.backend.memoryBytes, loadingBytes, runningBytes: peak }))
await mamba.dispose()
`

function measure(path: string, dtype: string): Measured {
  const index = pathToFileURL(repositoryPath('src/index.ts')).href
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--conditions=source', '--input-type=module', '-e', SCRIPT, index, path, dtype], { encoding: 'utf8' })
  expect([status, stderr]).toEqual([0, ''])
  return JSON.parse(stdout) as Measured
}

async function storedBytes(path: string): Promise<number> {
  const source = await fileSource(path)
  try {
    return (await readGgufHeader(source)).tensors.reduce((sum, { byteLength }) => sum + byteLength, 0)
  } finally {
    await source.close()
  }
}

test.each<[Dtype, string]>([['Q8_0', 'auto'], ['F32', 'auto'], ['F32', 'q8_0']])(
  '%s as %s: at most 32 MB beside weights, states and activations',
  async (stored, dtype) => {
    const path = await modelFile(stored, folder)
    const { memoryBytes, loadingBytes, runningBytes } = measure(path, dtype)
    // Rounded while loading, the weights are what they become.
    const weights = dtype === 'auto' ? await storedBytes(path) : memoryBytes.weights
    const needed = weights + memoryBytes.state + memoryBytes.activations
    const extra = [loadingBytes - needed, runningBytes - needed]
    console.log(`${stored} as ${dtype}: ${extra.map((bytes) => (bytes / 1e6).toFixed(1)).join(' MB in loading, ')} MB in running, beside ${(needed / 1e6).toFixed(1)} MB`)
    // What is measured has the wasm memory in it.
    expect(runningBytes).toBeGreaterThan(memoryBytes.total)
    expect(loadingBytes).toBeGreaterThan(memoryBytes.total)
    expect(Math.max(...extra)).toBeLessThanOrEqual(MAX_EXTRA_BYTES)
  },
  300_000
)
