/** A line on the terminal that says what is under way; in a log a line for each thing. */

export interface Progress {
  readonly show: (text: string) => void
  readonly end: () => void
}

export function createProgress(): Progress {
  const startMs = performance.now()
  const { isTTY } = process.stderr
  return {
    show(text) {
      const seconds = Math.round((performance.now() - startMs) / 1000)
      const line = `${seconds} s  ${text}`
      if (isTTY) process.stderr.write(`\r\x1b[K${line.slice(0, (process.stderr.columns ?? 80) - 1)}`)
      else process.stderr.write(`${line}\n`)
    },
    end() {
      if (isTTY) process.stderr.write('\r\x1b[K')
    }
  }
}
