/**
 * The API reference, by `deno doc` from the docstrings: `npm run docs` writes it to dist/docs. Every public name has a page, every export and method a
 * docstring, and no public type names one that is not public, which would have no page.
 */

import { execFile } from 'node:child_process'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { repositoryPath } from '../support/fixtures.ts'
import { program } from './installs.ts'

/** Files below src, and what users import them by. */
const ENTRIES: Readonly<Record<string, string>> = { 'index.ts': 'mamba-wasm', 'models/classics-8m.ts': 'mamba-wasm/models/classics-8m' }
const SOURCES = Object.keys(ENTRIES).map((entry) => `src/${entry}`)

interface Documented {
  readonly jsDoc?: { readonly doc?: string }
}

interface Declaration extends Documented {
  readonly def: { readonly methods?: readonly (Documented & { readonly name: string })[] } | null
}

/** What `deno doc --json` gives, by the entry's address. */
interface Reference {
  readonly nodes: Readonly<Record<string, { readonly symbols: readonly { readonly name: string; readonly declarations: readonly Declaration[] }[] }>>
}

/** Writes the reference into a folder, in place of what is there; tells of what it consists, or throws what is missing. */
export async function makeDocs(folder: string): Promise<string> {
  await rm(folder, { recursive: true, force: true })
  await denoDoc(['--html', '--name=mamba-wasm', `--output=${folder}`])
  const { nodes } = JSON.parse(await denoDoc(['--json'])) as Reference
  const symbols = Object.values(nodes).flatMap((module) => module.symbols)
  const names = await publicNames()
  const paths = (await readdir(folder, { recursive: true })).filter((path) => path.endsWith('.html'))
  const pages = new Set(paths.map((path) => basename(path)))
  for (const path of paths) await nameByImport(join(folder, path))
  const faults = [
    ...names.filter((name) => !pages.has(`${name}.html`)).map((name) => `${name}: no page`),
    ...symbols.flatMap(({ name, declarations }) => declarations.flatMap((declaration) => undocumented(name, declaration))),
    ...(await privateReferences())
  ]
  if (faults.length > 0) throw new Error(faults.join('; '))
  return `${symbols.length} public names`
}

/** deno knows the files' names alone. */
async function nameByImport(page: string): Promise<void> {
  const html = await readFile(page, 'utf8')
  const named = Object.entries(ENTRIES).reduce((text, [entry, specifier]) => text.replaceAll(` from &quot;${entry}&quot;`, ` from &quot;${specifier}&quot;`), html)
  if (named !== html) await writeFile(page, named)
}

function undocumented(name: string, declaration: Declaration): readonly string[] {
  const methods = declaration.def?.methods ?? []
  const parts = [{ ...declaration, name }, ...methods.map((method) => ({ ...method, name: `${name}.${method.name}` }))]
  return parts.filter(({ jsDoc }) => !jsDoc?.doc).map((part) => `${part.name}: no docstring`)
}

/** By the sources themselves, not by what deno makes of them. */
async function publicNames(): Promise<readonly string[]> {
  const sources = await Promise.all(SOURCES.map((path) => readFile(repositoryPath(path), 'utf8')))
  return sources.flatMap((source) => {
    const listed = Array.from(source.matchAll(/^export (?:type )?\{([^}]*)\}/gm), ([, list]) => list.split(',').map((name) => name.trim().replace(/^type /, ''))).flat()
    const declared = Array.from(source.matchAll(/^export (?:async )?(?:function|const|class|interface|type) (\w+)/gm), ([, name]) => name)
    return [...listed, ...declared]
  })
}

/** `deno doc --lint` also asks for a docstring at every property, those whose names say all too: of what it reports this alone is a fault. */
async function privateReferences(): Promise<readonly string[]> {
  const report = await denoDoc(['--lint']).catch((error: unknown) => (error as { readonly stderr: string }).stderr)
  return Array.from(report.matchAll(/error\[private-type-ref\]: (.*)/g), ([, fault]) => fault)
}

/** jsr.json tells deno what `#platform` is. */
async function denoDoc(options: readonly string[]): Promise<string> {
  const args = ['doc', '--config', 'jsr.json', '--no-lock', ...options, ...SOURCES]
  const { stdout } = await promisify(execFile)(await program('deno', 'deno'), args, { cwd: repositoryPath('.'), env: { ...process.env, NO_COLOR: '1' }, maxBuffer: 1e8 })
  return stdout
}

if (process.argv[1] === import.meta.filename) console.log(await makeDocs(repositoryPath('dist/docs')))
