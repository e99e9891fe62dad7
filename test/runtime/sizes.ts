/** What the package weighs in a bundle: printed, and held under limits. */

import { readdir, readFile, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { bundle, type Outputs } from './bundle.ts'
import { bundleWorker } from './edge.ts'

interface Size {
  readonly name: string
  readonly bytes: number
  readonly gzipBytes: number
  readonly brotliBytes: number
}

/** Of the gzip-compressed bytes. The core is to come down to 24,000; until then it must not grow. */
const LIMITS: readonly (readonly [what: string, limitBytes: number])[] = [
  ['core', 70_000],
  ['an edge worker', 150_000]
]

const EDGE_WORKER = `
import { Mamba } from 'mamba-wasm'
export default {
  async fetch(request, { ASSETS }) {
    const mamba = await Mamba.load(await (await ASSETS.fetch('http://assets/model.gguf')).arrayBuffer())
    return new Response((await mamba.complete(await request.text())).text)
  }
}
`

/** A line for each part, and of those beyond their limit the excess. */
export async function measureSizes(folder: string): Promise<{ readonly lines: readonly string[]; readonly excess: readonly string[] }> {
  await writeFile(join(folder, 'core.js'), "export { Mamba } from 'mamba-wasm'")
  const outputs = await bundle(folder, { entryPoints: ['core.js'], outdir: join(folder, 'core'), splitting: true })
  const core = loadedAtOnce(outputs, 'core/core.js')
  const onDemand = Object.keys(outputs).filter((path) => !core.includes(path))
  const parts = [await sizeOf('core', core.map((path) => join(folder, path)))]
  for (const path of onDemand) parts.push(await sizeOf(`on demand: ${basename(path)}`, [join(folder, path)]))
  // All of the code in one file, what is loaded on demand included.
  await writeFile(join(folder, 'answer.js'), EDGE_WORKER)
  const worker = await bundleWorker(folder, 'answer.js')
  const uploaded = (await readdir(worker)).filter((name) => /\.(js|wasm)$/.test(name))
  parts.push(await sizeOf('an edge worker', uploaded.map((name) => join(worker, name))))
  const wasm = join(folder, 'node_modules', 'mamba-wasm', 'dist', 'wasm')
  for (const build of await readdir(wasm)) parts.push(await sizeOf(build, [join(wasm, build)]))
  const excess = LIMITS.flatMap(([what, limitBytes]) => {
    const { gzipBytes } = parts.find(({ name }) => name === what) ?? { gzipBytes: Infinity }
    return gzipBytes <= limitBytes ? [] : [`${what}: ${gzipBytes} bytes compressed, expected at most ${limitBytes}`]
  })
  return { lines: parts.map(({ name, bytes, gzipBytes, brotliBytes }) => `${name}: ${bytes} bytes, ${gzipBytes} in gzip, ${brotliBytes} in brotli`), excess }
}

/** A file of a bundle and what it imports, but for what it imports on demand. */
function loadedAtOnce(outputs: Outputs, entry: string): readonly string[] {
  const found = new Set([entry])
  for (const path of found) {
    for (const { path: imported, kind } of outputs[path].imports) if (kind === 'import-statement' && imported in outputs) found.add(imported)
  }
  return [...found]
}

async function sizeOf(name: string, paths: readonly string[]): Promise<Size> {
  const files = await Promise.all(paths.map((path) => readFile(path)))
  const sum = (size: (bytes: Uint8Array) => number): number => files.reduce((total, bytes) => total + size(bytes), 0)
  return {
    name,
    bytes: sum((bytes) => bytes.byteLength),
    gzipBytes: sum((bytes) => gzipSync(bytes, { level: 9 }).byteLength),
    brotliBytes: sum((bytes) => brotliCompressSync(bytes).byteLength)
  }
}
