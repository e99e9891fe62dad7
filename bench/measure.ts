/**
 * Times tasks with Benchmark.js, in rounds: each round takes one sample of each task, so that alternatives meet the same moments of a
 * machine that others use too, and their ratio may be taken round by round.
 */

import Benchmark from 'benchmark'
import { setTimeout } from 'node:timers/promises'

export interface Task {
  readonly name: string
  /** One run. Where it gives a promise, `isAsync` says so. */
  readonly run: () => void | Promise<void>
  readonly isAsync?: boolean
}

export interface Effort {
  /** Rounds at most, and at least. */
  readonly maxSamples: number
  readonly minSamples: number
  /** A sample has as many runs as last this long, one at least. */
  readonly sampleMs: number
  /** Rounds of a group go on for so long at most, `minSamples` apart. */
  readonly groupMs: number
  /** Each task runs for so long before its first sample: V8 compiles meanwhile. */
  readonly warmUpMs: number
}

export const FULL: Effort = { minSamples: 5, maxSamples: 21, sampleMs: 20, groupMs: 12_000, warmUpMs: 100 }
/** A smoke run: the figures mean nothing. */
export const QUICK: Effort = { minSamples: 2, maxSamples: 2, sampleMs: 1, groupMs: 1000, warmUpMs: 2 }

/** Seconds of one run of each task in each round: [task][round]. */
export async function measure(tasks: readonly Task[], effort: Effort): Promise<number[][]> {
  const samplers: Benchmark[] = []
  for (const task of tasks) {
    await warmUp(task, effort.warmUpMs)
    const trial = createBenchmark(task, { minTime: effort.sampleMs / 1000 })
    await takeSample(trial)
    // From here on every sample has the runs that the trial found, so that its length is one of chance alone.
    samplers.push(createBenchmark(task, { minTime: SHORTEST, initCount: trial.count }))
  }
  const samples = tasks.map((): number[] => [])
  const startMs = performance.now()
  for (let round = 0; round < effort.maxSamples; round++) {
    if (round >= effort.minSamples && performance.now() - startMs > effort.groupMs) break
    for (const [i, sampler] of samplers.entries()) samples[i].push(await takeSample(sampler))
  }
  return samples
}

/** Any time is enough; Benchmark.js takes 0 for its default of 50 ms. */
const SHORTEST = 1e-9

async function warmUp(task: Task, durationMs: number): Promise<void> {
  const startMs = performance.now()
  do {
    await task.run()
    // V8 compiles in other threads, and waits here to be let in.
    await setTimeout(1)
  } while (performance.now() - startMs < durationMs)
}

/** What a task threw: Benchmark.js keeps errors to itself. */
const failures = new WeakMap<Benchmark, unknown>()

function createBenchmark(task: Task, options: Benchmark.Options): Benchmark {
  const run = async (): Promise<void> => task.run()
  const benchmark: Benchmark = new Benchmark({
    ...options,
    name: task.name,
    // One sample: what comes after it is asked for by the next round.
    minSamples: 1,
    maxTime: -1,
    delay: 0.001,
    defer: task.isAsync === true,
    fn: task.isAsync === true
      ? (deferred: Benchmark.Deferred) => void run().then(() => deferred.resolve()).catch((error: unknown) => fail(benchmark, error))
      : () => void task.run()
  })
  return benchmark
}

function fail(benchmark: Benchmark, error: unknown): void {
  failures.set(benchmark, error)
  benchmark.abort()
  benchmark.emit('complete')
}

/** Runs a benchmark for one sample: seconds of one run. */
function takeSample(benchmark: Benchmark): Promise<number> {
  return new Promise((resolve, reject) => {
    const complete = (): void => {
      benchmark.off('complete', complete)
      const cause: unknown = failures.get(benchmark) ?? benchmark.error
      if (cause !== undefined) reject(new Error(`${benchmark.name}: ${cause instanceof Error ? cause.message : 'failed'}`, { cause }))
      else resolve(benchmark.stats.sample[0])
    }
    benchmark.on('complete', complete)
    benchmark.run()
  })
}
