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
  timers: 'a timer dies with the request that set it, so that the work for all requests of an isolate does not wait for one',
  worker: 'workerd has no workers in a worker',
  scalar: 'one build is taken along, for size',
  webgpu: 'an edge function has no GPU'
}

const WORKER = `
import * as core from 'mamba-wasm'
import * as worker from 'mamba-wasm/worker'
import { readInputs, runSuite } from './suite.js'
export default {
  async fetch(request, { FILES }) {
    const read = async (path) => new Uint8Array(await (await FILES.fetch('http://files/' + path)).arrayBuffer())
    return Response.json(await runSuite({ ...core, ...worker }, await readInputs(read), ${JSON.stringify(LACKS)}))
  }
}
`

export interface Worker {
  /** Its address, when it listens. */
  readonly ready: Promise<URL>
  dispatchFetch(url: string): Promise<Response>
  dispose(): Promise<void>
}

interface Miniflare {
  readonly Miniflare: new (options: object) => Worker
  readonly Response: new (body: Uint8Array | null, init?: ResponseInit) => object
}

/** Folder of the worker `main` as wrangler bundles it: a module of the same name, and every .wasm beside it. */
export async function bundleWorker(folder: string, main: string): Promise<string> {
  const outdir = join(folder, `${basename(main, '.js')}-bundle`)
  await writeFile(join(folder, 'wrangler.json'), JSON.stringify({ name: 'suite', main, compatibility_date: COMPATIBILITY_DATE }))
  await dryRun(folder, 'wrangler.json', outdir)
  return outdir
}

/** What wrangler would upload of the worker in `folder`, as its configuration there says; by itself it might find one in a folder above. */
export async function dryRun(folder: string, config: string, outdir: string): Promise<void> {
  const env = { ...process.env, WRANGLER_SEND_METRICS: 'false' }
  await promisify(execFile)(await program('tools', 'wrangler'), ['deploy', '--dry-run', '--config', config, '--minify', '--outdir', outdir], { cwd: folder, env, timeout: 60_000 })
}

/** Starts workerd on a bundle; `serveFile` gives the bytes at a path to the binding of that name. */
export async function startWorker(outdir: string, main: string, { binding, serveFile, ...options }: {
  readonly binding: string
  readonly serveFile: (path: string) => Promise<Uint8Array>
  readonly kvNamespaces?: readonly string[]
  readonly compatibilityFlags?: readonly string[]
}): Promise<Worker> {
  const { Miniflare, Response } = await tool<Miniflare>('miniflare')
  const wasmFiles = (await readdir(outdir)).filter((name) => name.endsWith('.wasm'))
  return new Miniflare({
    ...options,
    compatibilityDate: COMPATIBILITY_DATE,
    modules: [
      { type: 'ESModule', path: main, contents: await readFile(join(outdir, main), 'utf8') },
      ...(await Promise.all(wasmFiles.map(async (path) => ({ type: 'CompiledWasm', path, contents: await readFile(join(outdir, path)) }))))
    ],
    serviceBindings: { [binding]: async (request: Request) => new Response(await serveFile(new URL(request.url).pathname)) }
  })
}

export async function runEdge(folder: string): Promise<Report> {
  await writeFile(join(folder, 'worker.js'), WORKER)
  const worker = await startWorker(await bundleWorker(folder, 'worker.js'), 'worker.js', { binding: 'FILES', serveFile: (path) => readFile(join(folder, path)) })
  try {
    const response = await worker.dispatchFetch('http://worker/')
    if (!response.ok) throw new Error(await response.text())
    return (await response.json()) as Report
  } finally {
    await worker.dispose()
  }
}
