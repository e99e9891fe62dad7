/** One dtype and one number of threads: all engines beside each other, each measured in turn while the others sleep. */

import { setTimeout } from 'node:timers/promises'
import type { Engine, EngineName, LoadTimes, Prompt, TaskTimes } from './engine.ts'
import { createForeignLoad } from './foreign-load.ts'
import type { Dtype } from './model-files.ts'
import { type PlannedTask, WARM_UPS } from './plan.ts'

/** An engine in a task. */
export interface TaskResult {
  readonly task: PlannedTask
  readonly engine: EngineName
  /** By round; empty where it was left out. */
  readonly times: readonly TaskTimes[]
  /** Where it was left out: the time that one round would have taken. */
  readonly estimateMs: number | null
}

export interface LoadResult extends LoadTimes {
  readonly engine: EngineName
}

export interface EngineReport {
  readonly engine: EngineName
  /** The largest resident set of its processes. */
  readonly peakBytes: number
  /** Processor time while others were measured, over that time. */
  readonly idleShare: number
  /** Log probability of the likeliest token after a prompt that all were given. */
  readonly top: number
}

export interface SessionResult {
  readonly dtype: Dtype
  readonly threads: number
  readonly tasks: readonly TaskResult[]
  readonly loads: readonly LoadResult[]
  readonly engines: readonly EngineReport[]
  /** Processor time of everything else on the machine, over the time that measurements took: in cores. */
  readonly foreignCores: number
}

export interface SessionOptions {
  readonly dtype: Dtype
  readonly threads: number
  readonly tasks: readonly PlannedTask[]
  readonly start: (name: EngineName) => Promise<Engine>
  readonly names: readonly EngineName[]
  readonly prompts: (nTokens: number) => Prompt
  readonly onProgress: (text: string) => void
}

interface Entrant {
  readonly name: EngineName
  readonly engine: Engine
  /** Milliseconds of a token: the least so far, so that none is left out for a bad moment. */
  prefillMs: number
  decodeMs: number
  idleCpuMs: number
  idleMs: number
  top: number
}

/** Of the prompt after which engines are compared. */
const CHECKED_LENGTH = 32

export async function runSession({ dtype, threads, tasks, start, names, prompts, onProgress }: SessionOptions): Promise<SessionResult> {
  const entrants: Entrant[] = []
  const loads: LoadResult[] = []
  const results: TaskResult[] = []
  try {
    for (const name of names) {
      onProgress(`${name}, load`)
      const engine = await start(name)
      entrants.push({ name, engine, prefillMs: Infinity, decodeMs: Infinity, idleCpuMs: 0, idleMs: 0, top: 0 })
      loads.push({ engine: name, ...(await engine.load()) })
    }
    for (const { nPrompt, nDecode, limitMs } of WARM_UPS) {
      const prompt = prompts(nPrompt)
      for (const entrant of entrants) {
        if (estimateOf(entrant, { nPrompt, nDecode }) > limitMs) continue
        onProgress(`${entrant.name}, warm-up`)
        learn(entrant, { nPrompt, nDecode }, await entrant.engine.run({ prompt, nDecode }))
      }
    }
    const checked = prompts(CHECKED_LENGTH)
    for (const entrant of entrants) entrant.top = await entrant.engine.top(checked)
    const foreign = createForeignLoad(() => entrants.reduce((sum, { engine }) => sum + engine.usage().cpuMs, 0))
    for (const task of tasks) results.push(...(await runTask(task, entrants, { prompts, onProgress, measured: foreign.during })))
    return {
      dtype, threads, tasks: results, loads,
      engines: entrants.map(({ name, engine, idleCpuMs, idleMs, top }) => ({
        engine: name, peakBytes: engine.usage().peakBytes, idleShare: idleMs === 0 ? 0 : idleCpuMs / idleMs, top
      })),
      foreignCores: foreign.cores()
    }
  } finally {
    for (const { engine } of entrants) await engine.close()
  }
}

interface TaskContext extends Pick<SessionOptions, 'prompts' | 'onProgress'> {
  readonly measured: <T>(measurement: () => Promise<T>) => Promise<T>
}

async function runTask(task: PlannedTask, entrants: readonly Entrant[], { prompts, onProgress, measured }: TaskContext): Promise<TaskResult[]> {
  const times = entrants.map((): TaskTimes[] => [])
  const estimates = entrants.map((entrant) => estimateOf(entrant, task))
  const nRounds = estimates.map((ms) => (ms > task.limitMs ? 0 : Math.max(task.minRounds, Math.min(task.maxRounds, Math.floor(task.budgetMs / ms)))))
  for (let round = 0; round < Math.max(...nRounds); round++) {
    const one = { prompt: prompts(task.nPrompt), nDecode: task.nDecode }
    for (let turn = 0; turn < entrants.length; turn++) {
      // Another one begins each round.
      const i = (turn + round) % entrants.length
      if (round >= nRounds[i]) continue
      onProgress(`${describeTask(task)}, round ${round + 1} of ${nRounds[i]}, ${entrants[i].name}`)
      const measurement = await measured(() => runAlone(entrants, i, () => entrants[i].engine.run(one)))
      learn(entrants[i], task, measurement)
      times[i].push(measurement)
    }
  }
  return entrants.map(({ name }, i) => ({ task, engine: name, times: times[i], estimateMs: times[i].length === 0 ? estimates[i] : null }))
}

type Lengths = Pick<PlannedTask, 'nPrompt' | 'nDecode'>

function estimateOf({ prefillMs, decodeMs }: Entrant, { nPrompt, nDecode }: Lengths): number {
  return nPrompt * prefillMs + (nDecode === 0 ? 0 : nDecode * decodeMs)
}

function learn(entrant: Entrant, { nPrompt, nDecode }: Lengths, { prefillMs, decodeMs }: TaskTimes): void {
  // One token is no measure of a prompt.
  if (nPrompt > 1) entrant.prefillMs = Math.min(entrant.prefillMs, prefillMs / nPrompt)
  if (nDecode > 0) entrant.decodeMs = Math.min(entrant.decodeMs, decodeMs / nDecode)
}

/** Threads that spin while they wait for the next call have gone to sleep by then. */
const SETTLE_MS = 30

/** Runs one engine, and looks whether the others sleep. */
async function runAlone<T>(entrants: readonly Entrant[], running: number, run: () => Promise<T>): Promise<T> {
  await setTimeout(SETTLE_MS)
  const others = entrants.filter((_, i) => i !== running)
  const before = others.map(({ engine }) => engine.usage().cpuMs)
  const startMs = performance.now()
  const result = await run()
  const elapsedMs = performance.now() - startMs
  for (const [i, other] of others.entries()) {
    other.idleCpuMs += other.engine.usage().cpuMs - before[i]
    other.idleMs += elapsedMs
  }
  return result
}

export function describeTask({ nPrompt, nDecode, measuresPrefill }: PlannedTask): string {
  return measuresPrefill ? `prompt of ${nPrompt}` : `${nDecode} tokens`
}
