/** The results as pictures: time per token by the prompt's length, decoding by dtype, ratios beside their goals. */

import type { EngineName } from './engine.ts'
import type { Goal } from './goals.ts'
import { DTYPES } from './model-files.ts'
import type { Report } from './report.ts'
import { cellOf, type Row } from './rows.ts'
import { legend, line, path, rect, svgOf, text } from './svg.ts'

export interface Plot {
  /** Of the file's name. */
  readonly suffix: string
  readonly svg: string
}

export function plotsOf(report: Report): readonly Plot[] {
  const { rows, goals } = report
  if (rows.length === 0) return []
  const engines = rows[0].cells.map(({ engine }) => engine)
  const threads = [...new Set(rows.map((row) => row.threads))]
  const context = { rows, engines, threads, about: `mamba-130m shape, ${report.machine.cpu}` }
  return [
    { suffix: 'prefill', svg: prefillPlot(context) },
    { suffix: 'decode', svg: decodePlot(context) },
    ...(goals.length === 0 ? [] : [{ suffix: 'ratios', svg: ratioPlot(goals, context.about) }])
  ]
}

interface PlotContext {
  readonly rows: readonly Row[]
  readonly engines: readonly EngineName[]
  readonly threads: readonly number[]
  readonly about: string
}

const PANEL = { width: 380, height: 230, left: 48, top: 70, right: 12, bottom: 40 }

/** A panel for each number of threads. */
function panels({ threads, engines, about }: PlotContext, title: string, panel: (threads: number, left: number) => readonly string[]): string {
  const size = { width: PANEL.width * Math.max(2, threads.length), height: PANEL.top + PANEL.height + PANEL.bottom }
  return svgOf(size, title, [
    text(8, 18, title, { className: 'title' }), text(8, 36, about, { className: 'quiet' }), legend(8, 54, engines),
    ...threads.flatMap((count, i) => [
      text(PANEL.width * i + PANEL.left, PANEL.top + 8, count === 1 ? '1 thread' : `${count} threads`),
      ...panel(count, PANEL.width * i + PANEL.left)
    ])
  ])
}

const INNER_WIDTH = PANEL.width - PANEL.left - PANEL.right
/** Below a panel's own heading. */
const INNER_TOP = PANEL.top + 20
const INNER_BOTTOM = PANEL.top + PANEL.height

function prefillPlot(context: PlotContext): string {
  const { rows, engines } = context
  const dtype = rows.some((row) => row.dtype === 'Q8_0') ? 'Q8_0' : rows[0].dtype
  const lengths = [...new Set(rows.filter((row) => row.kind === 'prefill').map(({ nPrompt }) => nPrompt))].sort((a, b) => a - b)
  const msOf = (threads: number, engine: EngineName): (readonly [number, number])[] =>
    lengths.flatMap((nPrompt) => {
      const rate = cellOf(rows, { threads, dtype, kind: 'prefill', nPrompt, engine })?.rate
      return rate === undefined || rate === null ? [] : [[nPrompt, 1000 / rate.median] as const]
    })
  const all = context.threads.flatMap((threads) => engines.flatMap((engine) => msOf(threads, engine).map(([, ms]) => ms)))
  const ticks = [1, 2, 5, 10, 20, 50, 100, 200].filter((tick) => tick >= Math.min(...all) / 2.5 && tick <= 2.5 * Math.max(...all))
  const y = logScale([ticks[0], ticks[ticks.length - 1]], [INNER_BOTTOM, INNER_TOP])
  return panels(context, `Reading a prompt: milliseconds per token by its length, ${dtype} (lower is better)`, (threads, left) => {
    const x = logScale([lengths[0], Math.max(lengths[lengths.length - 1], 2 * lengths[0])], [left + 14, left + INNER_WIDTH - 14])
    return [
      ...ticks.flatMap((tick) => [line([left, y(tick)], [left + INNER_WIDTH, y(tick)], 'grid'), text(left - 6, y(tick) + 4, `${tick}`, { anchor: 'end', className: 'quiet' })]),
      ...lengths.map((length) => text(x(length), INNER_BOTTOM + 18, `${length}`, { anchor: 'middle', className: 'quiet' })),
      ...engines.map((engine) => path(msOf(threads, engine).map(([length, ms]) => [x(length), y(ms)] as const), engine))
    ]
  })
}

function decodePlot(context: PlotContext): string {
  const { rows, engines } = context
  const dtypes = DTYPES.filter((dtype) => rows.some((row) => row.dtype === dtype))
  const rateOf = (threads: number, dtype: Row['dtype'], engine: EngineName): number => cellOf(rows, { threads, dtype, kind: 'decode', nPrompt: 1, engine })?.rate?.median ?? 0
  const most = Math.max(...context.threads.flatMap((threads) => dtypes.flatMap((dtype) => engines.map((engine) => rateOf(threads, dtype, engine)))))
  const step = [5, 10, 20, 25, 50, 100, 200].find((size) => most / size <= 5) ?? 500
  const top = step * Math.ceil((1.05 * most) / step)
  const y = (value: number): number => INNER_BOTTOM - ((INNER_BOTTOM - INNER_TOP) * value) / top
  return panels(context, 'One token after another: tokens per second (higher is better)', (threads, left) => {
    const groupWidth = INNER_WIDTH / dtypes.length
    const barWidth = (groupWidth * 0.8) / engines.length
    return [
      ...Array.from({ length: top / step + 1 }, (_, i) => i * step).flatMap((tick) => [
        line([left, y(tick)], [left + INNER_WIDTH, y(tick)], 'grid'), text(left - 6, y(tick) + 4, `${tick}`, { anchor: 'end', className: 'quiet' })
      ]),
      ...dtypes.flatMap((dtype, i) => [
        text(left + groupWidth * (i + 0.5), INNER_BOTTOM + 18, dtype, { anchor: 'middle', className: 'quiet' }),
        ...engines.flatMap((engine, k) => {
          const rate = rateOf(threads, dtype, engine)
          const x = left + groupWidth * (i + 0.1) + barWidth * k
          return [rect({ x: x + 1, y: y(rate), width: barWidth - 2, height: y(0) - y(rate) }, engine), text(x + barWidth / 2, y(rate) - 4, rate.toFixed(0), { anchor: 'middle' })]
        })
      ])
    ]
  })
}

const ROW_HEIGHT = 20
const NAMES_WIDTH = 390
const BARS_WIDTH = 240
/** Bars end here, in goals: what is far beyond one needs no scale. */
const LONGEST_BAR = 3

function ratioPlot(goals: readonly Goal[], about: string): string {
  const x = (part: number): number => NAMES_WIDTH + (BARS_WIDTH * Math.min(part, LONGEST_BAR)) / LONGEST_BAR
  const top = 62
  const size = { width: NAMES_WIDTH + BARS_WIDTH + 130, height: top + ROW_HEIGHT * goals.length + 10 }
  const title = 'Ratios within one run, against their goals'
  return svgOf(size, title, [
    text(8, 18, title, { className: 'title' }), text(8, 36, `${about}; in parentheses the number of threads`, { className: 'quiet' }),
    text(x(1), top - 6, 'goal', { anchor: 'middle', className: 'quiet' }),
    ...goals.flatMap(({ name, threads, goal, reached }, i) => {
      const y = top + ROW_HEIGHT * i
      return [
        text(NAMES_WIDTH - 8, y + 14, `${name} (${threads})`, { anchor: 'end' }),
        rect({ x: x(0), y: y + 3, width: x(reached / goal) - x(0), height: ROW_HEIGHT - 6 }, 'mamba-wasm'),
        text(NAMES_WIDTH + BARS_WIDTH + 8, y + 14, `${reached.toFixed(2)} of ${goal.toFixed(2)}`)
      ]
    }),
    line([x(1), top], [x(1), top + ROW_HEIGHT * goals.length], 'mark')
  ])
}

function logScale([low, high]: readonly [number, number], [from, to]: readonly [number, number]): (value: number) => number {
  return (value) => from + ((to - from) * Math.log(value / low)) / Math.log(high / low)
}
