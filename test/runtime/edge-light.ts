/**
 * Vercel's edge runtime, as its package edge-runtime has it: a script in a context with web APIs alone, which compiles nothing at run time. Modules of
 * wasm are what Next.js makes of `.wasm?module`: compiled before, and given to the context under a name.
 */

import { readFile, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { bundle } from './bundle.ts'
import { tool } from './installs.ts'
import { serveSite } from './site.ts'
import type { Lacks, Report } from './suite.ts'

const LACKS: Lacks = {
  packageFiles: 'an edge function has no address of its package: the model comes as bytes',
  threads: 'the edge runtime has no workers',
  timers: 'the same code as for workerd, where a timer dies with the request that set it: work does not wait for one',
  worker: 'the edge runtime has no workers',
  scalar: 'one build is taken along, for size',
  webgpu: 'an edge function has no GPU'
}

const FUNCTION = `
import * as core from 'mamba-wasm'
import * as worker from 'mamba-wasm/worker'
import { readInputs, runSuite } from './suite.js'
const answer = async (files) => {
  const read = async (path) => new Uint8Array(await (await fetch(new URL(path, files))).arrayBuffer())
  return Response.json(await runSuite({ ...core, ...worker }, await readInputs(read), ${JSON.stringify(LACKS)}))
}
addEventListener('fetch', (event) => event.respondWith(answer(new URL(event.request.url).searchParams.get('files'))))
`

interface EdgeRuntimePackage {
  readonly EdgeRuntime: new (options: {
    readonly initialCode: string
    readonly codeGeneration: { readonly strings: boolean; readonly wasm: boolean }
    readonly extend: (context: object) => object
  }) => { dispatchFetch(url: string): Promise<Response & { waitUntil(): Promise<unknown> }> }
}

/** `wasm`: whether code may be compiled at run time, as the runtime has it by itself, and Vercel's servers have not. */
export async function runEdgeLight(folder: string, { wasm }: { readonly wasm: boolean }): Promise<Report> {
  await writeFile(join(folder, 'edge-light.js'), FUNCTION)
  const modules: Record<string, WebAssembly.Module> = {}
  const wasmModules = {
    name: 'wasm?module',
    setup(build: { onLoad(filter: { filter: RegExp }, task: (args: { path: string }) => Promise<object>): void }) {
      build.onLoad({ filter: /\.wasm$/ }, async ({ path }) => {
        const name = `wasm_${basename(path, '.wasm')}`
        modules[name] = await WebAssembly.compile(await readFile(path))
        return { contents: `export default globalThis[${JSON.stringify(name)}]`, loader: 'js' }
      })
    }
  }
  const outdir = join(folder, 'edge-light-bundle')
  await bundle(folder, { entryPoints: ['edge-light.js'], outdir, format: 'iife', conditions: ['edge-light'], plugins: [wasmModules] })
  const { EdgeRuntime } = await tool<EdgeRuntimePackage>('edge-runtime', 'edgeRuntime')
  const runtime = new EdgeRuntime({
    initialCode: await readFile(join(outdir, 'edge-light.js'), 'utf8'),
    codeGeneration: { strings: false, wasm },
    extend: (context) => Object.assign(context, modules)
  })
  const site = await serveSite(folder, { isIsolated: false })
  try {
    const response = await runtime.dispatchFetch(`http://edge/?files=${encodeURIComponent(`${site.address}/`)}`)
    if (!response.ok) throw new Error(await response.text())
    return (await response.json()) as Report
  } finally {
    await site.close()
  }
}
