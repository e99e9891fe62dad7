/**
 * The package's JavaScript in few files: a runtime finds, reads and links each file by itself, which was most of what importing one for each module took.
 * What is loaded on demand stays apart. Declarations come from tsc (tsconfig.build.json).
 */

import { rm } from 'node:fs/promises'
import { isAbsolute, join, relative, sep } from 'node:path'
import { build, type BuildOptions, type PreRenderedChunk } from 'rolldown'

/** Modules that somebody names: package.json, an address in the code (workers), users' bundlers (README). They keep their places below dist. */
const PLATFORMS = ['node', 'bun', 'web', 'workerd', 'node-worker', 'web-worker'].map((name) => `src/platform/${name}`)
const NAMED = [
  'src/index', 'src/models/classics-8m', 'src/cli/main', 'src/worker/load-in-worker', ...PLATFORMS,
  ...['node-host', 'web-host', 'edge-host', 'node-engine', 'web-engine'].map((name) => `src/worker/${name}`),
  ...['open', 'none'].map((name) => `src/backend/webgpu/${name}`)
]

/** What a load of the embedded model takes beside the entry: each is a file with all that it imports. */
const ON_DEMAND = ['src/checkpoint/load-parameters', 'src/checkpoint/gguf-model', 'src/model/mamba1', 'src/backend/wasm/wasm-backend', 'src/load-tokenizer']

interface Graph {
  getModuleInfo(id: string): { readonly importedIds: readonly string[] } | null
}

/** The modules that an import of these loads at once. */
function reach(graph: Graph, entries: readonly string[]): ReadonlySet<string> {
  const found = new Set(entries.map((entry) => join(import.meta.dirname, `${entry}.ts`)))
  for (const id of found) for (const imported of graph.getModuleInfo(id)?.importedIds ?? []) if (isAbsolute(imported)) found.add(imported)
  return found
}

const pathOf = (id: string): string => relative(import.meta.dirname, id).replaceAll(sep, '/').replace(/\.ts$/, '')

/** Modules with addresses in them, and what is loaded on demand of a platform. */
const isBesideItsFiles = (path: string): boolean => /^src\/platform\/(?!compiled-once|thread-work)/.test(path)

/** The file that a module goes to; null for one of its own, or one with the only module that imports it. */
function fileOf(id: string, graph: Graph): string | null {
  const path = pathOf(id)
  if (NAMED.includes(path) || path === 'src/checkpoint/json' || isBesideItsFiles(path)) return null
  if (reach(graph, PLATFORMS).has(id)) return 'src/base'
  if (reach(graph, ['src/index']).has(id)) return 'src/core'
  const entry = ON_DEMAND.find((entry) => reach(graph, [entry]).has(id))
  return entry === undefined ? null : `${entry}-parts`
}

/** Where the sources are, since addresses in them say what is beside them. What several import is the parts of a file that is loaded on demand. */
function chunkFileNames({ name, isDynamicEntry, facadeModuleId, moduleIds }: PreRenderedChunk): string {
  if (name.startsWith('src/')) return '[name].js'
  const folder = pathOf(facadeModuleId ?? moduleIds[0]).replace(/[^/]*$/, '')
  return `${folder}[name]${isDynamicEntry ? '' : '-parts'}.js`
}

const common: BuildOptions = {
  platform: 'neutral',
  preserveEntrySignatures: 'allow-extension',
  // Packages, and package.json's own imports.
  external: (id) => !id.startsWith('.') && !isAbsolute(id),
  // Files that a runtime or the user's bundler takes along: their names are right where the module will be.
  plugins: [{ name: 'files', resolveId: (id) => (/\.(wasm|gguf)(\?|$)/.test(id) ? { id, external: true } : null) }]
}

const options: readonly BuildOptions[] = [
  {
    ...common,
    input: Object.fromEntries(NAMED.map((name) => [name, `${name}.ts`])),
    output: {
      dir: 'dist', entryFileNames: '[name].js', sourcemap: true, comments: false, minifyInternalExports: false,
      chunkFileNames,
      codeSplitting: { groups: [{ debugName: 'files', name: fileOf, includeDependenciesRecursively: false }] }
    }
  },
  // By itself: JSR's package runs the sources, but for this one, which has AssemblyScript's types.
  { ...common, input: { 'assembly/abi': 'assembly/abi.ts' }, output: { dir: 'dist', sourcemap: true } }
]

// No file of an earlier build stays behind.
for (const folder of ['src', 'assembly']) await rm(`dist/${folder}`, { recursive: true, force: true })
// Not by the rolldown command, which lists every file.
await build([...options])
