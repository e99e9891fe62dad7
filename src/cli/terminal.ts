/**
 * What the program writes: results to standard output, everything else to standard error.
 * Colours and bars are for people alone: a stream that is no terminal gets plain text.
 */

import { createProgressBar, type Progress } from './progress-bar.ts'

/** What is needed of process.stdout and process.stderr. */
export interface OutputStream {
  readonly isTTY?: boolean | undefined
  readonly columns?: number | undefined
  write(text: string): boolean
  once(event: 'drain', listener: () => void): unknown
}

export interface TerminalOptions {
  readonly out: OutputStream
  readonly err: OutputStream
  readonly env: Readonly<Record<string, string | undefined>>
}

export interface Terminal {
  /** Text for standard output as it is; on a terminal without control characters. Resolves when more may be written. */
  print(text: string, style?: 'plain' | 'dim'): Promise<void>
  /** A line for standard error. */
  note(text: string): void
  /** Shows how far something is, where standard error is a terminal; what is printed next takes its place. */
  progress(progress: Progress): void
  clearProgress(): void
  /** Starts a new line on standard output, unless it stands on one. */
  endLine(): void
  /** Leaves the terminal as a shell wants it; what is written after that is dropped. */
  close(): void
}

export function createTerminal({ out, err, env }: TerminalOptions): Terminal {
  const canMoveCursor = err.isTTY === true && env['TERM'] !== 'dumb'
  // no-color.org: any value but the empty one.
  const hasColours = out.isTTY === true && env['TERM'] !== 'dumb' && !env['NO_COLOR']
  const bar = createProgressBar(err)
  let isMidLine = false
  let isClosed = false

  const clearProgress = (): void => bar.clear()
  const endLine = (): void => {
    if (isMidLine) out.write('\n')
    isMidLine = false
  }
  return {
    clearProgress,
    endLine,
    async print(text, style = 'plain') {
      if (isClosed || text === '') return
      clearProgress()
      const shown = out.isTTY === true ? withoutControls(text) : text
      isMidLine = !shown.endsWith('\n')
      // Set and reset in one write: whatever ends the program, no colour stays behind.
      if (!out.write(hasColours && style === 'dim' ? `\u001B[2m${shown}\u001B[22m` : shown)) await new Promise<void>((resolve) => out.once('drain', resolve))
    },
    note(text) {
      if (isClosed) return
      clearProgress()
      err.write(`${err.isTTY === true ? withoutControls(text) : text}\n`)
    },
    progress(progress) {
      if (canMoveCursor && !isClosed) bar.update({ ...progress, label: withoutControls(progress.label) })
    },
    close() {
      if (isClosed) return
      isClosed = true
      clearProgress()
      // The echo of Ctrl-C is on that line.
      if (isMidLine) endLine()
      else if (err.isTTY === true) err.write('\n')
    }
  }
}

/**
 * A model may write any character, and a checkpoint may name its tensors at will: neither may steer the terminal.
 * Control characters but newline and tab become a replacement character; carriage returns go, for the sake of texts with CR LF.
 */
function withoutControls(text: string): string {
  return text.replace(/[^\P{Cc}\n\t]/gu, (control) => (control === '\r' ? '' : '\uFFFD'))
}
