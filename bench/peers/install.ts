/** The peers' packages: installed here, from the lock file, when they are not there yet. */

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const FOLDER = fileURLToPath(new URL('.', import.meta.url))

interface Manifest {
  readonly version?: string
  readonly dependencies?: Readonly<Record<string, string>>
}

/** Versions by name. Throws where npm fails. */
export function installPeers(): Readonly<Record<string, string>> {
  const { dependencies = {} } = readManifest(join(FOLDER, 'package.json'))
  if (Object.entries(dependencies).every(([name, version]) => installedVersion(name) === version)) return dependencies
  console.log('Installing the peers (some 900 MB: node-llama-cpp has its binaries for GPUs with it) …')
  // No install scripts: node-llama-cpp's would build from source where it finds no binary, and nothing else has one that is needed.
  // Not npm ci: it refuses a lock file without node-llama-cpp's builds for every platform, and not every registry has all of them.
  // This takes the lock file's versions too, and leaves it as it is.
  const { status, error } = spawnSync('npm', ['install', '--no-save', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: FOLDER, stdio: 'inherit' })
  if (status !== 0) throw error ?? new Error(`npm install in bench/peers: ${status}`)
  return dependencies
}

function installedVersion(name: string): string | undefined {
  const path = join(FOLDER, 'node_modules', name, 'package.json')
  return existsSync(path) ? readManifest(path).version : undefined
}

function readManifest(path: string): Manifest {
  return JSON.parse(readFileSync(path, 'utf8')) as Manifest
}
