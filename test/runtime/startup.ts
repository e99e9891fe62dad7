/**
 * What comes before the first token, by the clock, in fresh processes of Node on the packed package: its import, the embedded model's load, the token
 * itself. Of several processes the fastest counts, since others may be at work on the machine, and of more of them while it is beyond a limit: a moment
 * of rest is enough, and what takes too long at rest never gets one.
 *
 * The limits are for a machine at rest, and hold as they stand on one. How busy this one is says a loop of arithmetic, which needs nothing of the package
 * nor of Node: each process runs it last, by the same clock. Where its median is no more than `AT_REST` of what it takes at rest, nothing is allowed
 * for; beyond that the limits grow by as much as the loop takes longer.
 */

import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const LIMITS_MS = { import: 30, load: 150, 'first token': 50 } as const
type Phase = keyof typeof LIMITS_MS
const PHASES = Object.keys(LIMITS_MS) as readonly Phase[]

/** The loop at rest, on the machine that the limits are for. */
const REST_LOOP_MS = 30
const AT_REST = 1.15
/**
 * At rest one and the same build loads in 136 to 156 ms, by the hour: half of it is first touches of memory, which this kind of machine's host gives at 14 µs
 * a page. Only what is beyond that swing is this package's.
 */
const SWING = 1.1
const N_PROCESSES = { least: 11, most: 60 } as const

type Run = Readonly<Record<Phase | 'loop', number>>

const SCRIPT = `
const times = {}
let last = performance.now()
const took = (phase) => {
  times[phase] = performance.now() - last
  last = performance.now()
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
last = performance.now()
// Twice, so that the second is compiled.
const loop = () => {
  let sum = 0
  for (let i = 0; i < 2e7; i++) sum = (Math.imul(sum ^ i, 0x9e3779b1) + (sum >>> 7)) | 0
  return sum
}
for (let i = 0; i < 2; i++) {
  loop()
  took('loop')
}
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
const MOST_LOADED = { files: 5, builtins: 2 } as const

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
  const timesOf = (phase: keyof Run): readonly number[] => runs.map((run) => run[phase]).toSorted((a, b) => a - b)
  const median = (phase: keyof Run): number => timesOf(phase)[Math.floor(runs.length / 2)]
  const slowdownOf = (busy: number): number => (busy <= AT_REST ? 1 : busy)
  const tooSlow = (): readonly Phase[] => PHASES.filter((phase) => timesOf(phase)[0] > SWING * slowdownOf(median('loop') / REST_LOOP_MS) * LIMITS_MS[phase])
  while (runs.length < N_PROCESSES.least || (runs.length < N_PROCESSES.most && tooSlow().length > 0)) {
    runs.push(JSON.parse((await promisify(execFile)(process.execPath, ['startup.js'], { cwd: folder, timeout: 60_000 })).stdout) as Run)
  }
  const slowdown = slowdownOf(median('loop') / REST_LOOP_MS)
  const line = PHASES.map((phase) => `${phase} ${timesOf(phase)[0].toFixed(1)} ms (median ${median(phase).toFixed(1)})`).join(', ')
  const excess = tooSlow().map(
    (phase) => `${phase}: ${timesOf(phase)[0].toFixed(1)} ms, expected at most ${LIMITS_MS[phase]} and a tenth${slowdown === 1 ? '' : `, times ${slowdown.toFixed(2)} on a machine as busy as this`}`
  )
  excess.push(...(await excessLoaded(folder)))
  return { line: `${line}; the loop ${median('loop').toFixed(1)} ms, ${REST_LOOP_MS} at rest`, excess }
}
