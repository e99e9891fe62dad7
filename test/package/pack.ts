/** The package as a user gets it: packed, and its tarball installed in a folder of its own. */

import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const root = new URL('../..', import.meta.url)

export interface PackedPackage {
  /** Path of the tarball. */
  readonly tarball: string
  /** Paths of what is in it. */
  readonly files: readonly string[]
}

/** Packs what is built, and installs it in `folder`, which becomes a project of its own. */
export async function installPacked(folder: string): Promise<PackedPackage> {
  const { stdout } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], { cwd: root })
  const packed: unknown = JSON.parse(stdout)
  const [{ filename, files }] = (Array.isArray(packed) ? packed : Object.values(packed as object)) as [{ filename: string; files: { path: string }[] }]
  const tarball = join(folder, filename)
  await writeFile(join(folder, 'package.json'), '{ "private": true, "type": "module" }')
  await run('npm', ['install', '--no-audit', '--no-fund', tarball], { cwd: folder })
  return { tarball, files: files.map(({ path }) => path) }
}
