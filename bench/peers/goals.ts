/** What the project wants to reach, and whether this run has. */

import type { EngineName } from './engine.ts'
import { DTYPES, type Dtype } from './model-files.ts'
import { cellOf, type Row, type RowQuery } from './rows.ts'

export interface Goal {
  readonly name: string
  readonly threads: number
  readonly goal: number
  readonly reached: number
}

interface GoalContext {
  readonly rows: readonly Row[]
  readonly threads: readonly number[]
}

/** The prompt of the goals; a quick run has a shorter one. */
const PREFILL_LENGTH = 512

/** Goals whose measurements this run has. */
export function goalsOf(rows: readonly Row[]): readonly Goal[] {
  const context = { rows, threads: [...new Set(rows.map(({ threads }) => threads))] }
  return [...goalsAgainst(context), ...goalsOfThreads(context), ...goalsOfLength(context)]
}

function goalsAgainst({ rows, threads }: GoalContext): Goal[] {
  const nPrompt = prefillLength(rows)
  const goals: Goal[] = []
  const add = (name: string, count: number, goal: number, reached: number | undefined): void => {
    if (reached !== undefined) goals.push({ name, threads: count, goal, reached })
  }
  for (const count of threads) {
    const prefill = { threads: count, kind: 'prefill', nPrompt } as const
    const ours = medianOf(rows, { ...prefill, dtype: 'Q8_0' })
    const over = (theirs: number | undefined): number | undefined => (ours === undefined || theirs === undefined ? undefined : ours / theirs)
    const best = (engine: EngineName): number | undefined => {
      // Among some dtypes alone there is no best one.
      const rates = DTYPES.map((dtype) => medianOf(rows, { ...prefill, dtype, engine }))
      return rates.every((rate) => rate !== undefined) ? Math.max(...rates) : undefined
    }
    add(`prefill ${nPrompt}, q8_0, against node-llama-cpp's best`, count, 1.25, over(best('node-llama-cpp')))
    add(`prefill ${nPrompt}, q8_0, against wllama's best`, count, 2.5, over(best('wllama')))
    add(`prefill ${nPrompt}, q8_0, against wllama's Q8_0`, count, 6, over(medianOf(rows, { ...prefill, dtype: 'Q8_0', engine: 'wllama' })))
    for (const [engine, dtype, goal] of DECODE_GOALS) {
      const decode = { threads: count, kind: 'decode', nPrompt: 1, dtype } as const
      add(`decode ${dtype.toLowerCase()} against ${engine}'s ${dtype}`, count, goal, cellOf(rows, { ...decode, engine })?.ratio?.median)
    }
  }
  return goals
}

const DECODE_GOALS: readonly (readonly [EngineName, Dtype, number])[] = [
  ['node-llama-cpp', 'Q8_0', 1.8], ['node-llama-cpp', 'Q4_0', 1.3], ['node-llama-cpp', 'F32', 1],
  ['wllama', 'Q8_0', 3], ['wllama', 'Q4_0', 3], ['wllama', 'F32', 1.4]
]

function goalsOfThreads({ rows, threads }: GoalContext): Goal[] {
  if (!threads.includes(1) || !threads.includes(2)) return []
  const nPrompt = prefillLength(rows)
  const speedUp = (query: Pick<RowQuery, 'kind' | 'nPrompt'>): number | undefined =>
    quotient(medianOf(rows, { ...query, dtype: 'Q8_0', threads: 2 }), medianOf(rows, { ...query, dtype: 'Q8_0', threads: 1 }))
  return [
    { name: `2 threads against 1, prefill ${nPrompt}, q8_0`, goal: 1.8, reached: speedUp({ kind: 'prefill', nPrompt }) },
    { name: '2 threads against 1, decode, q8_0', goal: 1.7, reached: speedUp({ kind: 'decode', nPrompt: 1 }) }
  ].flatMap(({ reached, ...goal }) => (reached === undefined ? [] : [{ ...goal, threads: 2, reached }]))
}

/** The time of a token must not depend on what came before: within what chance does. */
const FLAT = 0.9
const LONG = 8192

function goalsOfLength({ rows, threads }: GoalContext): Goal[] {
  return threads.flatMap((count) =>
    ([['prefill', PREFILL_LENGTH], ['decode', 1]] as const).flatMap(([kind, nPrompt]) => {
      const query = { threads: count, dtype: 'Q8_0', kind } as const
      const reached = quotient(medianOf(rows, { ...query, nPrompt: LONG }), medianOf(rows, { ...query, nPrompt }))
      return reached === undefined ? [] : [{ name: `${kind}, q8_0, ${kind === 'prefill' ? 'of' : 'after'} ${LONG} tokens against ${nPrompt}`, threads: count, goal: FLAT, reached }]
    })
  )
}

function prefillLength(rows: readonly Row[]): number {
  const lengths = rows.filter(({ kind }) => kind === 'prefill').map(({ nPrompt }) => nPrompt)
  return lengths.includes(PREFILL_LENGTH) ? PREFILL_LENGTH : Math.max(...lengths)
}

function medianOf(rows: readonly Row[], query: RowQuery): number | undefined {
  return cellOf(rows, query)?.rate?.median
}

function quotient(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a / b
}
