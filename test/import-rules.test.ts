/** Who may import whom: DESIGN.md's rules, read from the sources. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, test } from 'vitest'
import { repositoryPath } from './support/fixtures.ts'

interface Import {
  readonly from: string
  /** A path from the repository's root, or a package. */
  readonly to: string
}

function sourceFiles(folder: string): string[] {
  return readdirSync(repositoryPath(folder), { recursive: true, encoding: 'utf8' })
    .map((name) => `${folder}/${name.replaceAll('\\', '/')}`)
    .filter((name) => name.endsWith('.ts'))
}

/** All forms: import … from, export … from, import '…', import('…'), and types in import('…').T. */
const SPECIFIER = /(?:\bfrom\s*|\bimport\s*\(?\s*)(['"])([^'"\n]+)\1/g

function importsOf(from: string, text: string): Import[] {
  // Comments may speak of imports; only those at the start of a line or after a space are cut, since addresses have two slashes too.
  const code = text.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/(^|\s)\/\/.*$/gm, '$1')
  return [...code.matchAll(SPECIFIER)].map(([, , to]) => ({ from, to: to.startsWith('.') ? normalize(join(dirname(from), to)).replaceAll('\\', '/') : to }))
}

const files = [...sourceFiles('src'), ...sourceFiles('assembly')]
const imports = files.flatMap((file) => importsOf(file, readFileSync(repositoryPath(file), 'utf8')))

/** src/checkpoint/json.ts is in src/checkpoint; a file directly in src is its own place. */
const isIn = (path: string, ...places: readonly string[]): boolean => places.some((place) => path === place || path === `${place}.ts` || path.startsWith(`${place}/`))

function expectOnly(place: string, ...allowed: readonly string[]): void {
  const ours = imports.filter(({ from }) => isIn(from, place))
  expect(files.some((file) => isIn(file, place)), `there is something in ${place}`).toBe(true)
  expect(ours.filter(({ to }) => !isIn(to, place, ...allowed)).map(({ from, to }) => `${from} imports ${to}`)).toEqual([])
}

describe('the reader of imports', () => {
  test('sees every form', () => {
    const text = [
      "import { a } from './a.ts'", 'import type { b } from "../b.ts"', "import './c.ts'", "export { d } from './d.ts'", "export * from './e.ts'",
      "const f = await import('./f.ts')", "let g: import('./g.ts').G", "import {\n  h,\n  i\n} from './h.ts'", "import j from 'package'", "import * as k from 'node:fs'",
      "// import { no } from './comment.ts'", "/* import './no.ts' */"
    ].join('\n')
    expect(importsOf('src/x/y.ts', text).map(({ to }) => to)).toEqual([
      'src/x/a.ts', 'src/b.ts', 'src/x/c.ts', 'src/x/d.ts', 'src/x/e.ts', 'src/x/f.ts', 'src/x/g.ts', 'src/x/h.ts', 'package', 'node:fs'
    ])
  })

  test('finds the sources', () => {
    expect(files.length).toBeGreaterThan(40)
    expect(imports.length).toBeGreaterThan(150)
    expect(imports).toContainEqual({ from: 'src/index.ts', to: 'src/mamba.ts' })
    const missing = imports.filter(({ from, to }) => to.startsWith('src/') && from.startsWith('src/') && !files.includes(to))
    expect(missing).toEqual([])
  })
})

/** What everybody may import: none of it imports more than the platform's interface. */
const BASE = ['src/errors', 'src/elementary', 'src/half', 'src/ggml-blocks', 'src/ggml-splits']

test('program imports nothing above it', () => expectOnly('src/program', ...BASE))
test('model imports program, and the readers of a checkpoint’s config', () => expectOnly('src/model', 'src/program', 'src/checkpoint/json', ...BASE))
test('backend imports program, and of assembly the ABI alone', () => {
  expectOnly('src/backend', 'src/program', 'assembly/abi', '@assemblyscript/loader', '#platform', 'src/platform/platform', 'src/pace', 'src/core-imports', ...BASE)
  expectOnly('src/backend/reference', 'src/program', 'src/backend/backend', 'src/pace', ...BASE)
  // gelu has the same coefficients on a GPU.
  expect(imports.filter(({ from, to }) => to.startsWith('assembly') && from.startsWith('src') && !isIn(from, 'src/backend/wasm', 'src/backend/webgpu/kernels/activation'))).toEqual([])
})
test('checkpoint imports nothing above it', () => {
  expectOnly('src/checkpoint', 'src/program', 'src/pace', ...BASE)
  // The formats' table and the parameters' names are the program's; the readers of files need neither.
  const users = imports.filter(({ from, to }) => isIn(from, 'src/checkpoint') && isIn(to, 'src/program')).map(({ from }) => from)
  expect([...new Set(users)]).toEqual(['src/checkpoint/load-parameters.ts', 'src/checkpoint/rounding.ts'])
})
test('tokenizer imports nothing above it', () => expectOnly('src/tokenizer', '@huggingface/tokenizers', ...BASE))
test('state imports nothing above it, and of checkpoint the encoders alone', () => {
  expectOnly('src/state', 'src/checkpoint/quantize', 'src/checkpoint/gguf-blocks', 'src/checkpoint/tensor-reader', ...BASE)
  for (const place of ['src/state/hash', 'src/state/prefix-cache', 'src/state/snapshot', 'src/state/token-history']) expectOnly(place)
})
test('sampler imports nothing above it', () => expectOnly('src/sampler', 'src/candidates', 'src/random', ...BASE))
test('candidates import arithmetic alone', () => expectOnly('src/candidates', 'src/elementary'))
test.each(['src/errors', 'src/elementary', 'src/half', 'src/lock', 'src/core-imports'])('%s imports nothing', (place) => expectOnly(place))
test('random and stop strings import errors alone', () => {
  expectOnly('src/random', 'src/errors')
  expectOnly('src/ggml-blocks')
  expectOnly('src/ggml-splits', 'src/ggml-blocks', 'src/half')
  expectOnly('src/stop-strings', 'src/stop-options')
  expectOnly('src/stop-options', 'src/errors')
})
test('the template engine is behind one file, which is apart from the rest', () => {
  expectOnly('src/chat-template', 'src/errors', '@huggingface/jinja')
  expect(imports.filter(({ to }) => to === '@huggingface/jinja').map(({ from }) => from)).toEqual(['src/chat-template.ts'])
})
test('turns know of batches, their scheduler of backends, and neither of sessions', () => {
  expectOnly('src/turn', 'src/backend/backend')
  expectOnly('src/seats')
  expectOnly('src/scheduler', 'src/turn', 'src/seats', 'src/backend/backend', 'src/lock', 'src/program/ops', '#platform', ...BASE)
})
test('the store of states imports no storage', () => expectOnly('src/state-store', 'src/lock', 'src/mamba', 'src/session', 'src/state', ...BASE))
test('speculation knows of sequences, not of sessions', () => {
  expectOnly('src/speculation', 'src/engine', 'src/prompt-lookup', 'src/speculation-options', ...BASE)
  expectOnly('src/speculation-options', ...BASE)
  expectOnly('src/prompt-lookup')
})
test('pace imports the platform alone', () => expectOnly('src/pace', '#platform'))
test('assembly imports only itself', () => expectOnly('assembly'))

test('platform imports what files and workers need', () => {
  const nodeFiles = ['src/platform/node', 'src/platform/node-files', 'src/platform/node-cache', 'src/platform/node-threads', 'src/platform/node-worker', 'src/platform/bun']
  const nodeModules = imports.filter(({ from, to }) => isIn(from, ...nodeFiles) && to.startsWith('node:')).map(({ to }) => to)
  // The package's own files, as the package has them: dist/wasm and models beside dist/src.
  const packageFiles = imports.filter(({ from, to }) => isIn(from, 'src/platform/bun', 'src/platform/workerd') && /\.(wasm|gguf)(\?module)?$/.test(to)).map(({ to }) => to)
  for (const file of nodeFiles) expectOnly(file, 'src/platform', 'src/checkpoint', ...packageFiles, ...nodeModules, ...BASE)
  for (const file of ['web', 'web-threads', 'web-worker', 'web-cache', 'workerd', 'compiled-once', 'thread-work', 'node-gpu', 'web-gpu']) {
    expectOnly(`src/platform/${file}`, 'src/platform', 'src/checkpoint', 'src/core-imports', 'src/worker-life', ...packageFiles, ...BASE)
    expect(imports.filter(({ from, to }) => isIn(from, `src/platform/${file}`) && isIn(to, ...nodeFiles))).toEqual([])
  }
  expect(files.filter((file) => isIn(file, 'src/platform')).length, 'each file has its rule').toBe(nodeFiles.length + 11)
})

test('a worker’s life is nobody else’s matter', () => expectOnly('src/worker-life'))
test('the page’s end of a worker knows of errors and messages, not of the engine', () => {
  for (const file of ['connection', 'open-call', 'protocol', 'host', 'web-host', 'edge-host']) expectOnly(`src/worker/${file}`, 'src/worker', 'src/worker-life', 'src/errors')
  // What it imports of the engine are types.
  const names = /^import (?!type )/gm
  expect(readFileSync(repositoryPath('src/worker/stand-ins.ts'), 'utf8').match(names)).toHaveLength(1)
})

test('only platform, workers on Node and the command line import node:*', () => {
  const others = imports.filter(({ from, to }) => to.startsWith('node:') && !isIn(from, 'src/platform', 'src/cli', 'src/worker/node-host', 'src/worker/node-engine'))
  expect(others).toEqual([])
  // Platform-independent code reaches it by the import condition alone.
  const direct = imports.filter(({ from, to }) => isIn(to, 'src/platform') && to !== 'src/platform/platform.ts' && !isIn(from, 'src/platform', 'src/cli'))
  expect(direct).toEqual([])
})

test('nothing imports index.ts, but for the command line, and nothing the command line', () => {
  expect(imports.filter(({ from, to }) => to === 'src/index.ts' && !isIn(from, 'src/cli'))).toEqual([])
  expect(imports.filter(({ from, to }) => isIn(to, 'src/cli') && !isIn(from, 'src/cli'))).toEqual([])
})

/** src/model for src/model/config.ts. */
function partOf(path: string): string {
  return /^(?:src\/)?[^/]+/.exec(path)?.[0] ?? path
}

test('no cycles among the parts', () => {
  const edges = new Map<string, Set<string>>()
  for (const { from, to } of imports) {
    if (!to.startsWith('src/') || partOf(from) === partOf(to)) continue
    edges.set(partOf(from), (edges.get(partOf(from)) ?? new Set()).add(partOf(to)))
  }
  const cycles: string[] = []
  const visit = (part: string, path: readonly string[]): void => {
    if (path.includes(part)) cycles.push([...path.slice(path.indexOf(part)), part].join(' → '))
    else for (const next of edges.get(part) ?? []) visit(next, [...path, part])
  }
  for (const part of edges.keys()) visit(part, [])
  expect([...new Set(cycles)]).toEqual([])
})
