/**
 * What comes before the first token, in fresh processes of Node on the packed package: its import, the embedded model's load, the token itself. Of
 * several processes the fastest counts, since others may be at work on the machine; of a phase the time by the clock or the processor's, whichever is
 * less, since the clock counts the turns of others and the processor all threads; and the limits, which are for a machine at rest, grow with the
 * processor's time for Node's own start, which takes longer where caches and cores are shared.
 */

import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const LIMITS_MS = { import: 30, load: 150, 'first token': 50 } as const
type Phase = keyof typeof LIMITS_MS
const PHASES = Object.keys(LIMITS_MS) as readonly Phase[]

/** Processor time of Node's own start at rest, on the machine that the limits are for. */
const REST_START_MS = 36
const N_PROCESSES = 11

type Run = Readonly<Record<Phase | 'start', number>>

const SCRIPT = `
const clocks = () => {
  const { user, system } = process.cpuUsage()
  return [performance.now(), (user + system) / 1000]
}
let last = clocks()
const times = { start: last[1] }
const took = (phase) => {
  const now = clocks()
  times[phase] = Math.min(now[0] - last[0], now[1] - last[1])
  last = now
}
const { Mamba } = await import('mamba-wasm')
took('import')
const mamba = await Mamba.load()
took('load')
const chunks = mamba.generate('The', { maxTokens: 1, seed: 1 })
await chunks.next()
took('first token')
await chunks.return()
await mamba.dispose()
console.log(JSON.stringify(times))
`

/** What an import reads, which no load of the machine changes: files of the package, and what Node then loads of its own. */
const COUNT = `
import { registerHooks } from 'node:module'
let files = 0
registerHooks({ load: (url, context, next) => (url.startsWith('file:') && files++, next(url, context)) })
const before = new Set(process.moduleLoadList)
await import('mamba-wasm')
console.log(JSON.stringify({ files, builtins: process.moduleLoadList.filter((name) => name.startsWith('NativeModule') && !before.has(name)).length }))
`
const MOST_LOADED = { files: 52, builtins: 4 } as const

/** What is loaded beyond the limits. */
async function excessLoaded(folder: string): Promise<readonly string[]> {
  await writeFile(join(folder, 'count.js'), COUNT)
  const loaded = JSON.parse((await promisify(execFile)(process.execPath, ['count.js'], { cwd: folder })).stdout) as Record<keyof typeof MOST_LOADED, number>
  const kinds = Object.keys(MOST_LOADED) as readonly (keyof typeof MOST_LOADED)[]
  return kinds.filter((kind) => loaded[kind] > MOST_LOADED[kind]).map((kind) => `import: ${loaded[kind]} ${kind} loaded, expected at most ${MOST_LOADED[kind]}`)
}

/** A line for all phases, and one for each that took longer than it may. */
export async function measureStartup(folder: string): Promise<{ readonly line: string; readonly excess: readonly string[] }> {
  await writeFile(join(folder, 'startup.js'), SCRIPT)
  const runs: Run[] = []
  for (let i = 0; i < N_PROCESSES; i++) runs.push(JSON.parse((await promisify(execFile)(process.execPath, ['startup.js'], { cwd: folder, timeout: 60_000 })).stdout) as Run)
  const best = (phase: keyof Run): number => Math.min(...runs.map((run) => run[phase]))
  const slowdown = Math.max(1, best('start') / REST_START_MS)
  const line = PHASES.map((phase) => `${phase} ${best(phase).toFixed(1)} ms (median ${medianOf(runs.map((run) => run[phase])).toFixed(1)})`).join(', ')
  const excess = PHASES.filter((phase) => best(phase) > slowdown * LIMITS_MS[phase]).map(
    (phase) => `${phase}: ${best(phase).toFixed(1)} ms, expected at most ${LIMITS_MS[phase]}, times ${slowdown.toFixed(2)} on a machine as busy as this`
  )
  excess.push(...(await excessLoaded(folder)))
  return { line: `${line}; Node's own start ${best('start').toFixed(1)} ms of processor time`, excess }
}

function medianOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]
}
