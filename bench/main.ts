/**
 * `npm run bench`: measures the kernels, the models and the library, and prints a table for each suite.
 * Standard output gets the tables, standard error what is under way.
 */

import { readFile, writeFile } from 'node:fs/promises'
import { describeOptions, describeRows, type OptionTable, parseOptions, UsageError } from '../src/cli/options.ts'
import { currentCommit, describeMachine, fingerprint } from './machine.ts'
import { FULL, QUICK } from './measure.ts'
import { CORE_WASM } from './paths.ts'
import { type Report, tableOf } from './report.ts'
import type { Result } from './results.ts'
import { createRunner } from './runner.ts'
import type { Suite } from './suite.ts'
import { SUITES } from './suites/index.ts'

const OPTIONS = {
  json: { kind: 'text', value: 'FILE', help: 'write the results, with every sample, to FILE' },
  compare: { kind: 'text', value: 'WASM', help: 'measure the kernels of another build (a file like dist/wasm/simd.wasm) in turns with this one\'s' },
  samples: { kind: 'integer', value: 'N', min: 2, fallback: FULL.maxSamples, help: 'samples of each line at most' },
  'group-seconds': { kind: 'number', value: 'S', min: 0.1, fallback: FULL.groupMs / 1000, help: 'lines that are measured in turns take this long at most' },
  quick: { kind: 'flag', help: 'small shapes and two samples: shows that everything runs, and no more' },
  help: { kind: 'flag', short: 'h', help: 'show this text' }
} as const satisfies OptionTable

const HELP = `Usage: npm run bench -- [OPTIONS] [SUITE...]

Suites (default: all of them; with --compare those marked *):
${describeRows(SUITES.map(({ name, summary, isKernel }) => [`${name}${isKernel ? ' *' : ''}`, summary]))}

Options:
${describeOptions(OPTIONS)}

The lines of a group are measured in turns, together with the limits of the machine: "of limit" and "ratio" are medians of what each round
gave. Under "of limit" stands what holds the line: f32 or integer arithmetic, reading memory, or exp2; for many threads it is as many times that
of one core. "to other" is this build's speed over that of the other one: above 1 this one is faster.
`

async function run(args: readonly string[]): Promise<void> {
  const { values, operands } = parseOptions(OPTIONS, args)
  if (values.help) return void process.stdout.write(HELP)
  const isComparing = values.compare !== undefined
  const suites = chooseSuites(operands, isComparing)
  const machine = describeMachine()
  const runner = createRunner({
    effort: values.quick ? QUICK : { ...FULL, maxSamples: values.samples, minSamples: Math.min(FULL.minSamples, values.samples), groupMs: 1000 * values['group-seconds'] },
    core: await compile(CORE_WASM),
    other: values.compare === undefined ? undefined : await compile(values.compare),
    isQuick: values.quick, isComparing,
    onGroup: (suite, index, count) => void process.stderr.write(`${suite}: ${index + 1} of ${count}\n`)
  })
  print(`${machine.cpu}, ${machine.cores} cores, Node ${machine.node}${machine.loadAverage > 0.5 ? `; load ${machine.loadAverage.toFixed(1)}: others are at work` : ''}`)
  const results: Result[] = []
  const conclusions: Record<string, readonly string[]> = {}
  for (const suite of suites) {
    const own: Result[] = []
    for await (const group of runner.run(suite)) own.push(...group)
    print(`\n${suite.name}: ${suite.summary}\n${tableOf(own).trimEnd()}`)
    const conclusion = suite.conclude?.(own) ?? []
    for (const line of conclusion) print(line)
    if (conclusion.length > 0) conclusions[suite.name] = conclusion
    results.push(...own)
  }
  if (values.json === undefined) return
  const report: Report = {
    version: 1, date: new Date().toISOString(), commit: currentCommit(), machine, core: fingerprint(CORE_WASM),
    comparedTo: values.compare === undefined ? null : { path: values.compare, sha256: fingerprint(values.compare) },
    isQuick: values.quick, results, conclusions
  }
  await writeFile(values.json, `${JSON.stringify(report, null, 1)}\n`)
}

function chooseSuites(names: readonly string[], isComparing: boolean): readonly Suite[] {
  const candidates = SUITES.filter(({ isKernel }) => isKernel || !isComparing)
  for (const name of names) {
    if (!candidates.some((suite) => suite.name === name)) {
      throw new UsageError(`expected ${candidates.map((suite) => suite.name).join(', ')}, got ${JSON.stringify(name)}`)
    }
  }
  return names.length === 0 ? candidates : candidates.filter(({ name }) => names.includes(name))
}

async function compile(path: string): Promise<WebAssembly.Module> {
  return WebAssembly.compile(await readFile(path))
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

try {
  await run(process.argv.slice(2))
} catch (error) {
  if (!(error instanceof UsageError)) throw error
  process.stderr.write(`bench: ${error.message}\n`)
  process.exitCode = 2
}
