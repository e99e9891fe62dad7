/** One line that shows how far something is, drawn over itself and erased at the end. */

import { formatBytes, formatCount, formatDuration } from './format.ts'

export interface Progress {
  /** What is under way. Another label starts another estimate of the time left. */
  readonly label: string
  readonly done: number
  readonly total: number
  readonly unit: 'bytes' | 'tokens'
}

export interface ProgressBar {
  /** May be called at any rate: it is drawn at most 10 times a second, and not at all in the first 200 ms. */
  update(progress: Progress): void
  /** Erases it; the next update starts another one. */
  clear(): void
}

/** Where it is drawn; a terminal. */
export interface BarStream {
  readonly columns?: number | undefined
  write(text: string): unknown
}

const FIRST_DRAW_MS = 200
const REDRAW_MS = 100
const MAX_BAR_COLUMNS = 30
const MIN_BAR_COLUMNS = 10
/** Before that much is known an estimate of the time left says nothing. */
const FIRST_ESTIMATE_MS = 500

interface Run {
  readonly startMs: number
  /** When and from where the present label started: a download may go on from what is there. */
  readonly labelStartMs: number
  readonly labelStartDone: number
  readonly label: string
}

export function createProgressBar(stream: BarStream, now: () => number = () => performance.now()): ProgressBar {
  let run: Run | null = null
  let drawnMs: number | null = null
  return {
    update(progress) {
      const nowMs = now()
      if (run?.label !== progress.label) {
        run = { startMs: run?.startMs ?? nowMs, label: progress.label, labelStartMs: nowMs, labelStartDone: progress.done }
      }
      if (nowMs - run.startMs < FIRST_DRAW_MS) return
      if (drawnMs !== null && nowMs - drawnMs < REDRAW_MS) return
      drawnMs = nowMs
      stream.write(`\r${renderBar(progress, leftMs(progress, run, nowMs), columnsOf(stream))}\u001B[K`)
    },
    clear() {
      if (drawnMs !== null) stream.write('\r\u001B[K')
      run = null
      drawnMs = null
    }
  }
}

/** Some terminals, e.g. on a serial line, do not know their size and say 0. */
function columnsOf({ columns = 0 }: BarStream): number {
  return columns > 0 ? columns : 80
}

/** Time left at the rate so far; null while unknown. */
function leftMs({ done, total }: Progress, { labelStartMs, labelStartDone }: Run, nowMs: number): number | null {
  const elapsedMs = nowMs - labelStartMs
  if (elapsedMs < FIRST_ESTIMATE_MS || done <= labelStartDone) return null
  return (elapsedMs * (total - done)) / (done - labelStartDone)
}

/** Fits into `columns` − 1, so that no terminal wraps it: a narrow one loses the bar first, then the figures from the right. */
export function renderBar({ label, done, total, unit }: Progress, leftMs: number | null, columns: number): string {
  const fraction = total > 0 ? Math.min(1, done / total) : 0
  const amount = unit === 'bytes' ? `${formatBytes(done)} of ${formatBytes(total)}` : `${formatCount(done)} of ${formatCount(total)} tokens`
  const figures = [`${Math.floor(100 * fraction)}%`.padStart(4), amount, ...(leftMs === null ? [] : [`ETA ${formatDuration(leftMs)}`])]
  const width = columns - 1
  while (figures.length > 1 && `${label} ${figures.join('  ')}`.length > width) figures.pop()
  const text = figures.join('  ')
  const cells = Math.min(MAX_BAR_COLUMNS, width - label.length - text.length - ' [] '.length)
  if (cells < MIN_BAR_COLUMNS) return `${label} ${text}`.slice(0, Math.max(0, width))
  const full = Math.round(fraction * cells)
  return `${label} [${'#'.repeat(full)}${'-'.repeat(cells - full)}] ${text}`
}
