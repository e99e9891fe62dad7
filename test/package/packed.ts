/**
 * What a user gets: packs the package, installs the tarball in an empty folder and runs it there, with the pinned Node and with every
 * other node on the PATH (the machine's own). Without vitest, which needs a newer Node than the library does.
 * Prints a line for each check and `N passed, N failed`; exit code 1 if one failed.
 */

import { execFile } from 'node:child_process'
import { access, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { installPacked } from './pack.ts'

const run = promisify(execFile)
const results = { passed: 0, failed: 0 }

async function check(name: string, task: () => Promise<string>): Promise<void> {
  try {
    console.log(`ok     ${name}: ${await task()}`)
    results.passed++
  } catch (error) {
    console.log(`FAILED ${name}: ${error instanceof Error ? error.message : String(error)}`)
    results.failed++
  }
}

function expectEqual(actual: unknown, expected: unknown): void {
  if (actual !== expected) throw new Error(`expected ${JSON.stringify(expected)}, got ${JSON.stringify(actual)}`)
}

/** The pinned Node, then the others on the PATH that are not this project's. */
async function nodes(): Promise<string[]> {
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => !folder.includes('node_modules') && !folder.includes('node-gyp-bin'))
  const candidates = folders.map((folder) => join(folder, 'node'))
  const there = await Promise.all(candidates.map((path) => access(path).then(() => true, () => false)))
  const versions = new Map([[process.version, process.execPath]])
  for (const path of candidates.filter((_, i) => there[i])) {
    const version = (await run(path, ['--version'])).stdout.trim()
    if (!versions.has(version)) versions.set(version, path)
  }
  return [...versions.values()]
}

const PROGRAM = `
import { Mamba, selectiveScan, CheckpointError } from 'mamba-wasm'
import { classics8m } from 'mamba-wasm/models/classics-8m'
const mamba = await Mamba.load()
const options = { maxTokens: 24, seed: 7, temperature: 0.7 }
const { text } = await mamba.complete('The captain looked at the', options)
const again = await (await Mamba.load(classics8m(), { build: 'scalar' })).complete('The captain looked at the', options)
const threaded = await Mamba.load(undefined, { threads: 2 })
const threadedText = (await threaded.complete('The captain looked at the', options)).text
await threaded.dispose()
const one = (data, ...shape) => ({ data: Float32Array.from(data), shape })
const { y } = await selectiveScan({ x: one([1], 1, 1, 1), dt: one([1], 1, 1, 1), A: one([-1], 1, 1), B: one([1], 1, 1, 1), C: one([2], 1, 1, 1) })
const error = await Mamba.load({ 'config.json': new Uint8Array(3) }).catch((e) => e)
console.log(JSON.stringify({ text, again: again.text, threadedText, threads: threaded.backend.threads, build: mamba.backend.build, y: y.data[0], isTyped: error instanceof CheckpointError }))
await mamba.dispose()
`

const folder = await mkdtemp(join(tmpdir(), 'mamba-wasm-packed-'))
try {
  const { files } = await installPacked(folder)
  await writeFile(join(folder, 'main.js'), PROGRAM)

  await check('contents', async () => {
    const stray = files.filter((path) => /^(test|bench|src|assembly)\//.test(path))
    expectEqual(stray.length, 0)
    return `${files.length} files, no sources`
  })
  const texts = new Set<string>()
  for (const node of await nodes()) {
    const version = (await run(node, ['--version'])).stdout.trim()
    await check(`import on ${version}`, async () => {
      const result = JSON.parse((await run(node, ['main.js'], { cwd: folder })).stdout) as Record<string, unknown>
      expectEqual(result['again'], result['text'])
      expectEqual(result['threadedText'], result['text'])
      expectEqual(result['threads'], 2)
      expectEqual(/^simd(-dot)?$/.test(String(result['build'])), true)
      expectEqual(result['y'], 2)
      expectEqual(result['isTyped'], true)
      texts.add(String(result['text']))
      return JSON.stringify(result['text'])
    })
    await check(`command on ${version}`, async () => {
      const bin = join(folder, 'node_modules', 'mamba-wasm', 'dist', 'src', 'cli', 'main.js')
      const { stdout } = await run(node, [bin, 'generate', 'Once upon a time', '--max-tokens', '8', '--seed', '1', '--quiet'], { cwd: folder })
      expectEqual(stdout.startsWith('Once upon a time'), true)
      return JSON.stringify(stdout.trim())
    })
  }
  await check('same text on every Node', async () => {
    expectEqual(texts.size, 1)
    const count = (await nodes()).length
    return count > 1 ? `${count} versions` : 'only one version of Node on this machine: nothing to compare with'
  })
} finally {
  await rm(folder, { recursive: true, force: true })
}
console.log(`${results.passed} passed, ${results.failed} failed`)
process.exitCode = results.failed > 0 ? 1 : 0
