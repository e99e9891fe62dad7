/** workerd, the runtime of Cloudflare's workers, through miniflare, on what wrangler would have uploaded. */

import { execFile } from 'node:child_process'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { program, tool } from './installs.ts'
import type { Lacks, Report } from './suite.ts'

/** From 2025-05-05 on workers have FinalizationRegistry. */
const COMPATIBILITY_DATE = '2026-07-01'

const LACKS: Lacks = {
  packageFiles: 'a worker has no address of its package: the model comes as bytes',
  threads: 'workerd has no threads',
  scalar: 'one build is taken along, for size',
  webgpu: 'an edge function has no GPU'
}

const WORKER = `
import * as library from 'mamba-wasm'
import { readInputs, runSuite } from './suite.js'
export default {
  async fetch(request, { FILES }) {
    const read = async (path) => new Uint8Array(await (await FILES.fetch('http://files/' + path)).arrayBuffer())
    return Response.json(await runSuite(library, await readInputs(read), ${JSON.stringify(LACKS)}))
  }
}
`

interface Miniflare {
  readonly Miniflare: new (options: object) => {
    dispatchFetch(url: string): Promise<globalThis.Response>
    dispose(): Promise<void>
  }
  readonly Response: new (body: Uint8Array | null, init?: ResponseInit) => object
}

/** Folder of the worker `main` as wrangler bundles it: a module of the same name, and every .wasm beside it. */
export async function bundleWorker(folder: string, main: string): Promise<string> {
  const outdir = join(folder, `${basename(main, '.js')}-bundle`)
  await writeFile(join(folder, 'wrangler.json'), JSON.stringify({ name: 'suite', main, compatibility_date: COMPATIBILITY_DATE }))
  const env = { ...process.env, WRANGLER_SEND_METRICS: 'false' }
  await promisify(execFile)(await program('tools', 'wrangler'), ['deploy', '--dry-run', '--minify', '--outdir', outdir], { cwd: folder, env, timeout: 60_000 })
  return outdir
}

export async function runEdge(folder: string): Promise<Report> {
  const { Miniflare, Response } = await tool<Miniflare>('miniflare')
  await writeFile(join(folder, 'worker.js'), WORKER)
  const outdir = await bundleWorker(folder, 'worker.js')
  const wasmFiles = (await readdir(outdir)).filter((name) => name.endsWith('.wasm'))
  const miniflare = new Miniflare({
    compatibilityDate: COMPATIBILITY_DATE,
    modules: [
      { type: 'ESModule', path: 'worker.js', contents: await readFile(join(outdir, 'worker.js'), 'utf8') },
      ...(await Promise.all(wasmFiles.map(async (path) => ({ type: 'CompiledWasm', path, contents: await readFile(join(outdir, path)) }))))
    ],
    serviceBindings: {
      FILES: async (request: Request) => new Response(await readFile(join(folder, new URL(request.url).pathname)))
    }
  })
  try {
    const response = await miniflare.dispatchFetch('http://worker/')
    if (!response.ok) throw new Error(await response.text())
    return (await response.json()) as Report
  } finally {
    await miniflare.dispose()
  }
}
