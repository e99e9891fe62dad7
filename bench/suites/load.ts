/** What there is before the first token: Node's start, the import of the package, the embedded model's load. */

import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Mamba } from '../../src/mamba.ts'
import { ROOT } from '../paths.ts'
import { bytes, type Line, type Suite } from '../suite.ts'

export const loadSuite: Suite = {
  name: 'load',
  summary: 'load time of the embedded model, import time of the package',
  isKernel: false,
  groups: () => [
    async () => ({
      name: 'classics-8m',
      lines: [
        load('Mamba.load(), 1 thread', await weightBytes(), async () => Mamba.load(undefined, { threads: 1 })),
        load('Mamba.load(), 2 threads', await weightBytes(), async () => Mamba.load(undefined, { threads: 2 }))
      ]
    }),
    async () => {
      const index = join(ROOT, 'dist/src/index.js')
      const start = spawning('node', '')
      const name = existsSync(index) ? 'node, import' : 'node, import from TypeScript'
      const url = pathToFileURL(existsSync(index) ? index : join(ROOT, 'src/index.ts')).href
      return { name: 'processes', lines: [start, { ...spawning(name, `await import(${JSON.stringify(url)})`), against: start.name }] }
    }
  ]
}

async function weightBytes(): Promise<number> {
  const mamba = await Mamba.load(undefined, { threads: 1 })
  const { weights } = mamba.backend.memoryBytes
  await mamba.dispose()
  return weights
}

function load(name: string, weights: number, create: () => Promise<Mamba>): Line {
  return {
    name, isAsync: true, amounts: [bytes(weights)],
    async run() {
      const mamba = await create()
      await mamba.dispose()
    }
  }
}

function spawning(name: string, script: string): Line {
  return {
    name, amounts: [{ amount: 1, unit: 'starts' }],
    run() {
      const { status, stderr } = spawnSync(process.execPath, ['--conditions=source', '--input-type=module', '-e', script], { encoding: 'utf8' })
      if (status !== 0) throw new Error(`${name}: ${stderr}`)
    }
  }
}
