/** workerd, the runtime of Cloudflare's workers, through miniflare: bundled as wrangler bundles, with every .wasm a compiled module beside the code. */

import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { bundle } from './bundle.ts'
import { tool } from './installs.ts'
import type { Lacks, Report } from './suite.ts'

const LACKS: Lacks = {
  packageFiles: 'a worker has no address of its package: the model comes as bytes',
  threads: 'workerd has no threads',
  scalar: 'one build is taken along, for size'
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

export async function runEdge(folder: string): Promise<Report> {
  const { Miniflare, Response } = await tool<Miniflare>('miniflare')
  await writeFile(join(folder, 'worker.js'), WORKER)
  const outdir = join(folder, 'edge')
  await bundle(folder, { entryPoints: ['worker.js'], outdir, conditions: ['workerd', 'worker', 'browser'] })
  const wasm = join(folder, 'node_modules', 'mamba-wasm', 'dist', 'wasm', 'simd.wasm')
  const miniflare = new Miniflare({
    compatibilityDate: '2026-07-01',
    modules: [
      { type: 'ESModule', path: 'worker.js', contents: await readFile(join(outdir, 'worker.js'), 'utf8') },
      { type: 'CompiledWasm', path: 'simd.wasm', contents: await readFile(wasm) }
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
