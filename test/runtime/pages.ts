/**
 * Web pages that run the suite, on their main thread or in a worker, and post the report back: the same scripts by each of the bundlers.
 */

import { cp, mkdir, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { bundle } from './bundle.ts'
import { tool } from './installs.ts'

export type Bundler = keyof typeof BUILDERS

const RUN = `
import { readInputs, runSuite } from './suite.js'
const expect = (condition, text) => {
  if (!condition) throw new Error(text)
}
const keptDownloads = async ({ Mamba }) => {
  const host = new URL('/hub', location.origin)
  let requests = []
  const counted = (...args) => {
    requests.push((args[1]?.method ?? 'GET') + ' ' + args[0])
    return fetch(...args)
  }
  const load = async (options) => {
    requests = []
    const mamba = await Mamba.load('tiny', { host, fetch: counted, ...options })
    const logits = await mamba.forward([1, 2, 3])
    await mamba.dispose()
    return logits
  }
  const first = await load({})
  expect(requests.some((request) => request.startsWith('GET')), 'nothing was downloaded')
  const again = await load({})
  expect(requests.every((request) => request.startsWith('HEAD')), 'downloaded again: ' + requests)
  expect(first.length > 0 && first.every((logit, i) => logit === again[i]), 'other logits from the cache')
  const keys = (await (await caches.open('mamba-wasm')).keys()).map(({ url }) => url)
  expect(keys.filter((url) => url.includes('model.safetensors') && !url.endsWith('record.json')).length === 1, 'kept: ' + keys)
  await load({ cacheFolder: 'another' })
  expect(requests.some((request) => request.startsWith('GET')), 'the cache of another name had it')
  for (const name of ['mamba-wasm', 'another']) await caches.delete(name)
  return keys.length + ' entries'
}
export async function run(lacks) {
  const startMs = performance.now()
  const core = await import('mamba-wasm')
  const importMs = performance.now() - startMs
  const library = { ...core, ...(await import('mamba-wasm/worker')) }
  const read = async (path) => new Uint8Array(await (await fetch(new URL('/' + path, location.origin))).arrayBuffer())
  const { timesMs, ...report } = await runSuite(library, await readInputs(read), lacks, [['downloads kept in the Cache API', keptDownloads]])
  return { ...report, timesMs: { import: importMs, ...timesMs } }
}
`

const PAGE = `
import { run } from './run.js'
const { isWorker, lacks } = JSON.parse(decodeURIComponent(location.hash.slice(1)))
const inWorker = () => new Promise((resolve, reject) => {
  const worker = new Worker(new URL('./app-worker.js', import.meta.url), { type: 'module' })
  worker.addEventListener('message', ({ data }) => data.report ? resolve(data.report) : reject(new Error(data.error)))
  worker.addEventListener('error', (event) => reject(new Error('worker: ' + event.message)))
  worker.postMessage(lacks)
})
const report = await (isWorker ? inWorker() : run(lacks)).catch((error) => ({ error: String(error?.stack ?? error) }))
await fetch('/report', { method: 'POST', body: JSON.stringify(report) })
`

const APP_WORKER = `
import { run } from './run.js'
addEventListener('message', async ({ data }) => {
  try {
    postMessage({ report: await run(data) })
  } catch (error) {
    postMessage({ error: String(error?.stack ?? error) })
  }
})
`

export interface Vite {
  build(options: object): Promise<unknown>
}

interface Rolldown {
  rolldown(options: object): Promise<{ write(options: object): Promise<unknown> }>
}

interface Webpack {
  readonly default: (options: object, done: (error: Error | null, stats: { hasErrors(): boolean; toString(preset: string): string } | undefined) => void) => void
}

const sites = new Map<string, Promise<string>>()

/** Folder of a site of the project in `folder`, with index.html; built once. */
export function makeSite(folder: string, bundler: Bundler): Promise<string> {
  const site = join(folder, bundler)
  const made = sites.get(site) ?? buildSite(folder, site, bundler)
  sites.set(site, made)
  return made
}

async function buildSite(folder: string, site: string, bundler: Bundler): Promise<string> {
  for (const [name, text] of Object.entries({ run: RUN, page: PAGE, 'app-worker': APP_WORKER })) await writeFile(join(folder, `${name}.js`), text)
  await mkdir(site)
  await BUILDERS[bundler](folder, site)
  await cp(join(folder, 'inputs'), join(site, 'inputs'), { recursive: true })
  await cp(join(folder, 'inputs', 'fixture'), join(site, 'hub', 'tiny', 'resolve', 'main'), { recursive: true })
  return site
}

const html = (script: string): string => `<!doctype html><title>suite</title><script type="module" src="${script}"></script>`

/** Programs of the package with an address of their own: the worker of the core's threads, and that of an engine. */
export const ENGINE_ENTRIES = ['platform/web-worker.js', 'worker/web-engine.js'].map((path) => `node_modules/mamba-wasm/dist/src/${path}`)
/** With the page and its worker. */
const ENTRIES = ['page.js', 'app-worker.js', ...ENGINE_ENTRIES]

async function buildWithEsbuild(folder: string, site: string): Promise<void> {
  await bundle(folder, { entryPoints: ENTRIES, entryNames: '[name]', outdir: join(site, 'dist', 'src', 'platform'), splitting: true })
  await layOut(folder, site)
}

/** By itself; vite, which is built on it, has its own way with addresses. */
async function buildWithRolldown(folder: string, site: string): Promise<void> {
  const { rolldown } = await tool<Rolldown>('rolldown')
  const input = Object.fromEntries(ENTRIES.map((path) => [basename(path, '.js'), join(folder, path)]))
  const build = await rolldown({ input, cwd: folder, platform: 'browser', logLevel: 'silent' })
  await build.write({ dir: join(site, 'dist', 'src', 'platform'), entryFileNames: '[name].js', minify: true })
  await layOut(folder, site)
}

/** esbuild and rolldown leave addresses as they are: the bundle stands to the package's files as the package's own code does. */
async function layOut(folder: string, site: string): Promise<void> {
  for (const part of ['dist/wasm', 'models']) await cp(join(folder, 'node_modules', 'mamba-wasm', part), join(site, part), { recursive: true })
  await writeFile(join(site, 'index.html'), html('dist/src/platform/page.js'))
}

/** vite takes along what the addresses name; a worker that loads parts on demand must be a module. */
async function buildWithVite(folder: string, site: string): Promise<void> {
  const { build } = await tool<Vite>('vite')
  await writeFile(join(folder, 'index.html'), html('/page.js'))
  await build({ root: folder, configFile: false, logLevel: 'error', worker: { format: 'es' }, build: { outDir: site, emptyOutDir: false, chunkSizeWarningLimit: 10_000 } })
}

/** webpack takes along what the addresses name, too, workers among it. */
async function buildWithWebpack(folder: string, site: string): Promise<void> {
  const { default: webpack } = await tool<Webpack>('webpack')
  const options = { mode: 'production', target: 'web', context: folder, entry: './page.js', output: { path: site, filename: 'page.js' }, performance: false }
  await new Promise<void>((resolve, reject) => {
    webpack(options, (error, stats) => {
      if (error !== null) reject(error)
      else if (stats?.hasErrors() !== false) reject(new Error(stats?.toString('errors-only')))
      else resolve()
    })
  })
  await writeFile(join(site, 'index.html'), html('page.js'))
}

const BUILDERS = { esbuild: buildWithEsbuild, rolldown: buildWithRolldown, vite: buildWithVite, webpack: buildWithWebpack } as const
