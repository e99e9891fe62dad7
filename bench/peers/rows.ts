/** From sessions to rows: what each engine reached at one thing, beside this package. */

import type { EngineName } from './engine.ts'
import type { Dtype } from './model-files.ts'
import type { SessionResult, TaskResult } from './session.ts'
import { pairOf, type Ratio, type Samples, samplesOf } from './statistics.ts'

export interface Row {
  readonly threads: number
  readonly dtype: Dtype
  readonly kind: 'prefill' | 'decode'
  /** Of the prompt that is read, or that stands before the decoding. */
  readonly nPrompt: number
  readonly cells: readonly Cell[]
}

export interface Cell {
  readonly engine: EngineName
  /** Tokens per second; null where the engine was left out. */
  readonly rate: Samples | null
  /** This package's rate over the engine's. */
  readonly ratio: Ratio | null
  /** Where it was left out: tokens per second that it reached on less. */
  readonly leftOutAt: number | null
}

const OURS: EngineName = 'mamba-wasm'

export function rowsOf({ threads, dtype, tasks }: SessionResult): Row[] {
  const rows: Row[] = []
  for (const task of new Set(tasks.map((result) => result.task))) {
    const results = tasks.filter((result) => result.task === task)
    const { nPrompt, nDecode, measuresPrefill } = task
    const common = { threads, dtype, nPrompt }
    if (measuresPrefill) rows.push({ ...common, kind: 'prefill', cells: cellsOf(results, (times) => (1000 * nPrompt) / times.prefillMs) })
    if (nDecode > 0) rows.push({ ...common, kind: 'decode', cells: cellsOf(results, (times) => (1000 * nDecode) / times.decodeMs) })
  }
  return rows
}

function cellsOf(results: readonly TaskResult[], rateOf: (times: TaskResult['times'][number]) => number): Cell[] {
  const ours = results.find(({ engine }) => engine === OURS)?.times.map(rateOf) ?? []
  return results.map(({ engine, times, task, estimateMs }) => {
    const rates = times.map(rateOf)
    const isMeasured = rates.length > 0
    return {
      engine,
      rate: isMeasured ? samplesOf(rates) : null,
      ratio: isMeasured && engine !== OURS && ours.length > 0 ? pairOf(ours, rates).ratio : null,
      leftOutAt: estimateMs === null ? null : (1000 * (task.nPrompt + task.nDecode)) / estimateMs
    }
  })
}

export interface RowQuery {
  readonly threads: number
  readonly dtype: Dtype
  readonly kind: Row['kind']
  readonly nPrompt: number
  readonly engine?: EngineName
}

export function cellOf(rows: readonly Row[], { threads, dtype, kind, nPrompt, engine = OURS }: RowQuery): Cell | undefined {
  const row = rows.find((other) => other.threads === threads && other.dtype === dtype && other.kind === kind && other.nPrompt === nPrompt)
  return row?.cells.find((cell) => cell.engine === engine)
}
