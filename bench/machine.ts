/** Where and on what the figures were taken. */

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem, type } from 'node:os'
import { ROOT } from './paths.ts'

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryBytes: number
  readonly os: string
  readonly node: string
  readonly v8: string
  /** Of the last minute, before the first measurement: above 0.5 others were at work. */
  readonly loadAverage: number
}

export function describeMachine(): Machine {
  return {
    cpu: describeCpu(),
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    os: `${type()} ${release()}`,
    node: process.versions.node,
    v8: process.versions.v8,
    loadAverage: loadavg()[0]
  }
}

/** With family and model where Linux tells them: a host often gives its machines a name that says neither. */
function describeCpu(): string {
  const name = cpus()[0]?.model.trim() ?? 'unknown'
  const info = existsSync(CPU_INFO) ? readFileSync(CPU_INFO, 'utf8') : ''
  const [family, model] = ['cpu family', 'model'].map((key) => new RegExp(`^${key}\\s*: (\\d+)$`, 'm').exec(info)?.[1])
  return family === undefined || model === undefined ? name : `${name} (family ${family}, model ${model})`
}

const CPU_INFO = '/proc/cpuinfo'

export interface Commit {
  readonly hash: string
  /** Files were changed since. */
  readonly isDirty: boolean
}

/** Null outside of a git repository. */
export function currentCommit(): Commit | null {
  try {
    return { hash: git('rev-parse', 'HEAD'), isDirty: git('status', '--porcelain', '--', 'src', 'assembly', 'bench') !== '' }
  } catch {
    return null
  }
}

function git(...args: readonly string[]): string {
  return execFileSync('git', args, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
}

/** A file's bytes by their SHA-256. */
export function fingerprint(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex')
}
