/** Runs a suite: makes its groups one after the other, measures the lines of each in turns with the limits, and works the figures out. */

import { bestOf, createLimitKernels } from '../src/limits.ts'
import { type Effort, measure, type Task } from './measure.ts'
import { type Beside, type Measured, type Result, resultOf, spreadOf } from './results.ts'
import type { Core, Group, Line, Suite, SuiteContext } from './suite.ts'

export interface Runner {
  /** Results of a suite's groups as they come. */
  run(suite: Suite): AsyncGenerator<readonly Result[], void, undefined>
}

export interface RunnerOptions extends SuiteContext {
  readonly effort: Effort
  readonly core: Core
  /** Another build, to which the lines of kernel suites are compared. */
  readonly other: Core | undefined
  /** Name of the group that is about to be made. */
  readonly onGroup?: (suite: string, index: number, count: number) => void
}

export function createRunner(options: RunnerOptions): Runner {
  const { core, other, effort } = options
  return {
    async *run(suite) {
      const factories = suite.groups(options)
      for (const [i, create] of factories.entries()) {
        options.onGroup?.(suite.name, i, factories.length)
        const group = await create(core)
        const twin = other === undefined || !suite.isKernel ? undefined : await create(other)
        try {
          yield await runGroup(suite.name, group, twin, { core, effort })
        } finally {
          await group.dispose?.()
          await twin?.dispose?.()
        }
      }
    }
  }
}

async function runGroup(suite: string, group: Group, twin: Group | undefined, { core, effort }: Pick<RunnerOptions, 'core' | 'effort'>): Promise<Result[]> {
  const used = createLimitKernels({ core, isShared: false, workingBytes: group.workingBytes }).filter(({ limit }) => group.lines.some(({ works = [] }) => works.some((work) => limit in work)))
  const pairs = group.lines.map((line, i): readonly Line[] => (twin === undefined ? [line] : [line, twin.lines[i]]))
  const tasks: Task[] = [...pairs.flat(), ...used.map(({ name, run }) => ({ name, run }))]
  const seconds = await measure(tasks, effort)
  const measured = (line: Line): Measured => ({ line, seconds: seconds[tasks.indexOf(line)] })
  const ofKernels = seconds.slice(tasks.length - used.length)
  const rateOf = (i: number, seconds: number): number => used[i].amount / seconds
  // Of the kernels of one limit that of the best median: what is best in a round is the luckiest of several.
  const medians = ofKernels.map((samples, i) => rateOf(i, spreadOf(samples).median))
  const chosen = used.flatMap(({ limit }, i) => (used.some((other, k) => other.limit === limit && medians[k] > medians[i]) ? [] : [i]))
  const limits = seconds[0].map((_, round) => bestOf(chosen.map((i) => used[i]), chosen.map((i) => rateOf(i, ofKernels[i][round]))))
  return pairs.map(([line, other]) => {
    const beside: Beside = { limits, others: group.lines.map(measured), twin: other === undefined ? undefined : measured(other) }
    return resultOf(measured(line), { suite, group: group.name }, beside)
  })
}
