/**
 * The package as JSR has it: what `deno publish` would send, and the suite on that in Deno, from a web address. JSR knows no conditions, so all is the
 * platform of Node's modules there, which Deno, Node and Bun have.
 */

import { execFile } from 'node:child_process'
import { cp, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { repositoryPath } from '../support/fixtures.ts'
import { program } from './installs.ts'
import { DENO_ENV, runProcess } from './processes.ts'
import { serveSite } from './site.ts'
import type { Lacks, Report } from './suite.ts'

/** Beside the package's own files, as the registry of npm would give them. */
const DEPENDENCIES: Readonly<Record<string, string>> = {
  '@assemblyscript/loader': 'index.js',
  '@huggingface/jinja': 'dist/index.js',
  '@huggingface/tokenizers': 'dist/tokenizers.mjs'
}

const LACKS: Lacks = { threads: 'a worker of a package at a web address', worker: 'the subpath is not published there' }

interface Manifest {
  readonly version: string
  readonly exports: Readonly<Record<string, string>>
  readonly imports: Readonly<Record<string, string>>
}

const run = promisify(execFile)

/** The files that would be published, by their paths in the repository: type-checked, and without what JSR refuses. */
export async function publishedFiles(): Promise<readonly string[]> {
  const root = repositoryPath('.')
  const { version } = await readManifest('jsr.json')
  const { version: npmVersion } = await readManifest('package.json')
  if (version !== npmVersion) throw new Error(`jsr.json: expected version ${npmVersion}, as package.json has it, got ${version}`)
  const { stdout, stderr } = await run(await program('deno', 'deno'), ['publish', '--dry-run', '--allow-dirty'], { cwd: root, env: { ...process.env, NO_COLOR: '1' } })
  const start = pathToFileURL(root).href.replace(/\/?$/, '/')
  const lines = `${stdout}${stderr}`.split('\n').map((line) => line.trim()).filter((line) => line.startsWith(start))
  const files = lines.map((line) => decodeURIComponent(line.slice(start.length).replace(/ \([^()]*\)$/, '')))
  if (files.length === 0) throw new Error(`deno publish names no files:\n${stdout}${stderr}`)
  return files
}

/** Runs the suite of the project in `folder` on the published files alone. */
export async function runFromWeb(folder: string): Promise<Report> {
  const web = join(folder, 'jsr')
  for (const file of await publishedFiles()) await cp(repositoryPath(file), join(web, file))
  for (const [name, file] of Object.entries(DEPENDENCIES)) await cp(join(folder, 'node_modules', name, file), join(web, 'npm', name, file))
  const site = await serveSite(web, { isIsolated: false })
  try {
    const { exports, imports } = await readManifest('jsr.json')
    const at = (path: string): string => new URL(path, `${site.address}/`).href
    const map = {
      imports: {
        'mamba-wasm': at(exports['.']),
        // Not published there; without a line of its own it would be npm's.
        'mamba-wasm/worker': 'data:text/javascript,',
        ...Object.fromEntries(Object.entries(imports).map(([from, to]) => [from.startsWith('.') ? at(from) : from, at(to)])),
        ...Object.fromEntries(Object.entries(DEPENDENCIES).map(([name, file]) => [name, at(`npm/${name}/${file}`)]))
      }
    }
    await writeFile(join(folder, 'jsr-map.json'), JSON.stringify(map))
    const args = ['run', '--no-check', `--import-map=${join(folder, 'jsr-map.json')}`, '--reload', '--allow-import', '--allow-read', '--allow-env', '--allow-sys', '--allow-net']
    return await runProcess(folder, await program('deno', 'deno'), { args, lacks: LACKS, env: DENO_ENV })
  } finally {
    await site.close()
  }
}

async function readManifest(name: string): Promise<Manifest> {
  return JSON.parse(await readFile(repositoryPath(name), 'utf8')) as Manifest
}
