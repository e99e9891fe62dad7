/** Results for people, as tables, and for programs, as JSON. */

import { formatBytes, formatTable } from '../../src/cli/format.ts'
import type { Commit, Machine } from '../machine.ts'
import type { EngineName } from './engine.ts'
import type { Goal } from './goals.ts'
import type { MatmulResult } from './matmul.ts'
import type { Dtype } from './model-files.ts'
import type { ReadResult } from './read-memory.ts'
import { cellOf, type Row } from './rows.ts'
import type { SessionResult } from './session.ts'
import type { Ratio, Samples } from './statistics.ts'

/** What is written into bench/results. */
export interface Report {
  readonly version: 1
  readonly date: string
  readonly commit: Commit | null
  readonly machine: Machine
  readonly chromium: string | null
  readonly packages: Readonly<Record<string, string>>
  readonly isQuick: boolean
  readonly elapsedMs: number
  readonly model: { readonly shape: string; readonly fileBytes: Readonly<Partial<Record<Dtype, number>>> }
  readonly goals: readonly Goal[]
  /** Tokens per second. */
  readonly rows: readonly Row[]
  readonly loads: readonly LoadSummary[]
  readonly reads: readonly ReadResult[]
  readonly sessions: readonly Pick<SessionResult, 'threads' | 'dtype' | 'engines' | 'foreignCores'>[]
  readonly matmul: readonly MatmulResult[]
}

export interface LoadSummary {
  readonly engine: EngineName
  readonly dtype: Dtype
  readonly loadMs: Samples
  /** Load and one token. */
  readonly readyMs: Samples
  readonly detail: string
}

export function printReport(report: Report): string {
  const { rows, goals, sessions, matmul, loads, reads } = report
  const parts = [...new Set(rows.map(({ threads }) => threads))].map((threads) =>
    `${formatThreads(threads)}: tokens per second\n${rateTable(rows.filter((row) => row.threads === threads))}`
  )
  if (loads.length > 0) parts.push(`Load, and peak memory (resident set)\n${loadTable(loads, sessions)}`)
  if (reads.length > 0) parts.push(`Reading memory by wasm, all cores together, and our share of it in decoding: of it the model's file goes by once a token\n${readTable(report)}`)
  if (matmul.length > 0) parts.push(`f32 matrix product: GFLOP/s\n${matmulTable(matmul)}`)
  parts.push(...(goals.length > 0 ? [`Goals\n${goalTable(goals)}`] : []), ...(sessions.length > 0 ? [agreementOf(sessions), noiseOf(sessions)] : []))
  return parts.join('\n')
}

function rateTable(rows: readonly Row[]): string {
  const engines = rows[0].cells.map(({ engine }) => engine)
  const head = ['', '', ...engines.flatMap((engine, i) => (i === 0 ? [engine, ''] : [engine, '', 'ratio']))]
  const lines = rows.map(({ dtype, kind, nPrompt, cells }, i) => [
    rows[i - 1]?.dtype === dtype ? '' : dtype,
    kind === 'prefill' ? `prefill ${nPrompt}` : `decode after ${nPrompt}`,
    ...cells.flatMap(({ rate, ratio, leftOutAt }, place) => [
      rate === null ? `(some ${leftOutAt?.toFixed(0)})` : digits(rate.median),
      rate === null ? '' : formatSpread(rate),
      ...(place === 0 ? [] : [formatRatio(ratio)])
    ])
  ])
  return formatTable([head, ...lines], head.map((_, i) => i).slice(2))
}

function loadTable(loads: readonly LoadSummary[], sessions: Report['sessions']): string {
  const lines = loads.map(({ engine, dtype, loadMs, readyMs }, i) => [
    loads[i - 1]?.dtype === dtype ? '' : dtype, engine, `${digits(loadMs.median)} ms`, formatSpread(loadMs), `${digits(readyMs.median)} ms`,
    ...sessions.filter((session) => session.dtype === dtype).map(({ threads, engines }) =>
      `${formatBytes(engines.find((other) => other.engine === engine)?.peakBytes ?? 0)} (${threads})`)
  ])
  return formatTable([['', '', 'load', '', '+ 1 token', 'peak (threads)'], ...lines], [2, 3, 4, 5, 6])
}

function readTable({ reads, rows, model }: Report): string {
  const dtypes = [...new Set(rows.map(({ dtype }) => dtype))]
  const lines = reads.map(({ threads, rate }) => [
    formatThreads(threads), `${digits(rate.median)} GB/s`, formatSpread(rate),
    ...dtypes.map((dtype) => {
      const decode = cellOf(rows, { threads, dtype, kind: 'decode', nPrompt: 1 })?.rate?.median
      return decode === undefined ? '' : `${((100 * decode * (model.fileBytes[dtype] ?? NaN)) / 1e9 / rate.median).toFixed(0)} %`
    })
  ])
  return formatTable([['', 'read', '', ...dtypes], ...lines], dtypes.map((_, i) => i + 3))
}

function matmulTable(results: readonly MatmulResult[]): string {
  const lines = results.map(({ shape: { nRows, nIn, nOut }, threads, ours, theirs, ratio }) => [
    `${nRows} × ${nIn} × ${nOut}`, `${threads}`, digits(ours.median), formatSpread(ours), digits(theirs.median), formatSpread(theirs), formatRatio(ratio)
  ])
  return formatTable([['rows × in × out', 'threads', 'mamba-wasm', '', 'onnxruntime-web', '', 'ratio'], ...lines], [1, 2, 3, 4, 5, 6])
}

function goalTable(goals: readonly Goal[]): string {
  const lines = goals.map(({ name, threads, goal, reached }) => [
    name, `${threads}`, `≥ ${goal.toFixed(2)}`, reached.toFixed(2), reached >= goal ? 'reached' : `missed by ${(100 * (1 - reached / goal)).toFixed(0)} %`
  ])
  return formatTable([['', 'threads', 'goal', 'ratio', ''], ...lines], [1, 2, 3])
}

/** Quantized, llama.cpp rounds activations to 8 bits as well, and this package to 16: there the figures part a little. */
function agreementOf(sessions: Report['sessions']): string {
  const lines = sessions.map(({ threads, dtype, engines }) => [`${dtype}, ${formatThreads(threads)}`, ...engines.flatMap(({ engine, top }) => [engine, top.toFixed(5)])])
  return `Log probability of the likeliest token after one prompt: whether all calculate the same\n${formatTable(lines, [2, 4, 6])}`
}

function formatThreads(threads: number): string {
  return threads === 1 ? '1 thread' : `${threads} threads`
}

/** Above it others were at work, and the figures are not to be trusted. */
const NOISY_CORES = 0.15

function noiseOf(sessions: Report['sessions']): string {
  const lines = sessions.flatMap(({ threads, dtype, foreignCores, engines }) => [
    ...(foreignCores > NOISY_CORES ? [`${dtype}, ${formatThreads(threads)}: other programs took ${foreignCores.toFixed(2)} cores meanwhile`] : []),
    ...engines.filter(({ idleShare }) => idleShare > 0.02).map(({ engine, idleShare }) =>
      `${dtype}, ${formatThreads(threads)}: ${engine} took ${idleShare.toFixed(2)} cores while others were measured`)
  ])
  return lines.length === 0 ? 'The machine was quiet.\n' : `The machine was not quiet: with two threads above all, such figures say nothing\n${lines.map((line) => `  ${line}\n`).join('')}`
}

function formatRatio(ratio: Ratio | null): string {
  if (ratio === null) return ''
  return ratio.nRounds < 2 ? ratio.median.toFixed(2) : `${ratio.median.toFixed(2)} (${ratio.p10.toFixed(2)}..${ratio.p90.toFixed(2)})`
}

/** How far the lowest and the highest tenth are from the median. */
function formatSpread({ median, p10, p90, samples }: Samples): string {
  if (samples.length < 2) return 'once'
  const percent = (value: number): string => `${value < median ? '-' : '+'}${Math.abs(100 * (value / median - 1)).toFixed(0)}`
  return `${percent(p10)}..${percent(p90)} %`
}

function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3)
}
