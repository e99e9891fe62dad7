/** The runtimes that npm has, each in a folder of its own (their programs' names collide), and the tools that the others need. */

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'

/** Kept between runs. */
const folder = join(tmpdir(), 'mamba-wasm-runtimes')

const INSTALLS = {
  // The oldest that package.json allows.
  node20: { node: '20.19.0' },
  node22: { node: '22.23.3' },
  node26: { node: '26.10.0' },
  deno: { deno: '2.9.6' },
  bun: { bun: '1.4.5' },
  tools: { esbuild: '0.28.2', vite: '8.3.8', rolldown: '1.2.19', webpack: '5.113.0', wrangler: '4.164.0', miniflare: '4.20260730.0', publint: '0.3.25', '@arethetypeswrong/cli': '0.18.5' },
  edgeRuntime: { 'edge-runtime': '4.0.1' },
  // By itself: browsers are driven by nothing else.
  playwright: { 'playwright-core': '1.65.1' }
} as const satisfies Record<string, Readonly<Record<string, string>>>

export type Install = keyof typeof INSTALLS

/** Path of a program of an install, which is made where it is missing. */
export async function program(install: Install, name: string): Promise<string> {
  return join(await installed(install), 'node_modules', '.bin', name)
}

/** A module of an install. Its shape is the caller's to know. */
export async function tool<T>(specifier: string, install: Install = 'tools'): Promise<T> {
  const require = createRequire(join(await installed(install), 'package.json'))
  return (await import(pathToFileURL(require.resolve(specifier)).href)) as T
}

const installs = new Map<Install, Promise<string>>()

function installed(install: Install): Promise<string> {
  const known = installs.get(install) ?? makeInstall(install)
  installs.set(install, known)
  return known
}

async function makeInstall(install: Install): Promise<string> {
  const dependencies = INSTALLS[install]
  // npm 12 runs the install scripts of these alone.
  const allowScripts = Object.fromEntries([...Object.keys(dependencies), 'workerd'].map((name) => [name, true]))
  const wanted = JSON.stringify({ private: true, dependencies, allowScripts })
  // By its contents: a run of another version of this list, at the same time, has folders of its own.
  const place = join(folder, `${install}-${createHash('sha256').update(wanted).digest('hex').slice(0, 8)}`)
  const done = join(place, 'done.json')
  if ((await readFile(done, 'utf8').catch(() => '')) === wanted) return place
  await mkdir(place, { recursive: true })
  await writeFile(join(place, 'package.json'), wanted)
  await promisify(execFile)('npm', ['install', '--no-audit', '--no-fund'], { cwd: place })
  await writeFile(done, wanted)
  return place
}
