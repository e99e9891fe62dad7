/** What the package weighs in a bundle: printed, and held under limits. */

import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { bundle, type Outputs, withoutOnDemand } from './bundle.ts'
import { bundleWorker } from './edge.ts'

interface Size {
  readonly name: string
  readonly bytes: number
  readonly gzipBytes: number
  readonly brotliBytes: number
}

interface Limit {
  readonly bytes?: number
  readonly gzipBytes?: number
}

/** Of parts by their names. */
const LIMITS: Readonly<Record<string, Limit>> = {
  core: { bytes: 45_450, gzipBytes: 17_750 },
  // As reached; the goal is 70 KB and 24 in gzip.
  'core and what a small model takes': { bytes: 89_900, gzipBytes: 34_050 },
  // Less than a quarter of the core: nothing of the models comes along.
  'selectiveScan alone': { bytes: 12_000 },
  'an edge worker': { gzipBytes: 150_000 }
}
const WASM_LIMIT: Limit = { bytes: 100_000 }

/** The bundles that are measured: what a page imports, and of what is loaded on demand the modules that are counted with it. */
const BUNDLES: Readonly<Record<string, { readonly code: string; readonly onDemand: readonly string[] }>> = {
  // The entry of a page with all that it imports at once.
  core: { code: "export { Mamba } from 'mamba-wasm'", onDemand: [] },
  // The backend, both current containers, a config.json, Mamba-1. Tokenizers are not counted.
  'core and what a small model takes': {
    code: "export { Mamba } from 'mamba-wasm'",
    onDemand: ['load-parameters.js', 'wasm-backend.js', 'gguf-model.js', 'safetensors.js', 'json.js', 'mamba1.js']
  },
  'selectiveScan alone': { code: "export { selectiveScan } from 'mamba-wasm'", onDemand: [] }
}

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
  const parts: Size[] = []
  for (const [name, { code, onDemand }] of Object.entries(BUNDLES)) parts.push(await sizeOf(name, [await bundleOf(folder, code, onDemand)]))
  parts.push(...(await sizesOfChunks(folder)))
  // All of the code in one file, what is loaded on demand included.
  await writeFile(join(folder, 'answer.js'), EDGE_WORKER)
  const worker = await bundleWorker(folder, 'answer.js')
  const uploaded = (await readdir(worker)).filter((name) => /\.(js|wasm)$/.test(name))
  parts.push(await sizeOf('an edge worker', uploaded.map((name) => join(worker, name))))
  const wasm = join(folder, 'node_modules', 'mamba-wasm', 'dist', 'wasm')
  for (const build of await readdir(wasm)) parts.push(await sizeOf(build, [join(wasm, build)]))
  return { lines: parts.map(({ name, bytes, gzipBytes, brotliBytes }) => `${name}: ${bytes} bytes, ${gzipBytes} in gzip, ${brotliBytes} in brotli`), excess: parts.flatMap(excessOf) }
}

function excessOf(part: Size): readonly string[] {
  const limit = part.name.endsWith('.wasm') ? WASM_LIMIT : (LIMITS[part.name] ?? {})
  return (['bytes', 'gzipBytes'] as const).flatMap((unit) => {
    const most = limit[unit] ?? Infinity
    return part[unit] <= most ? [] : [`${part.name}: ${part[unit]} ${unit}, expected at most ${most}`]
  })
}

/** Path of a bundle of one file. */
async function bundleOf(folder: string, code: string, onDemand: readonly string[]): Promise<string> {
  await writeFile(join(folder, 'measured.js'), code)
  const plugins = [withoutOnDemand((path) => onDemand.some((name) => path.endsWith(`/${name}`)))]
  await bundle(folder, { entryPoints: ['measured.js'], outdir: join(folder, 'measured'), plugins })
  return join(folder, 'measured', 'measured.js')
}

/** As esbuild cuts it: every module that two entries share goes into a chunk of its own, which costs the core some bytes. */
async function sizesOfChunks(folder: string): Promise<readonly Size[]> {
  await writeFile(join(folder, 'core.js'), "export { Mamba } from 'mamba-wasm'")
  const outputs = await bundle(folder, { entryPoints: ['core.js'], outdir: join(folder, 'core'), splitting: true })
  const core = loadedAtOnce(outputs, 'core/core.js')
  const onDemand = Object.keys(outputs).filter((path) => !core.includes(path))
  return Promise.all([
    sizeOf(`core in ${core.length} chunks`, core.map((path) => join(folder, path))),
    sizeOf(`on demand, ${onDemand.length} chunks`, onDemand.map((path) => join(folder, path)))
  ])
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
