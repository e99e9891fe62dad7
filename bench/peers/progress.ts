/** A line on the terminal that says what is under way; a log has none of it but the time. */

export interface Progress {
  readonly show: (text: string) => void
  readonly end: () => void
}

export function createProgress(): Progress {
  const startMs = performance.now()
  const { isTTY } = process.stderr
  let lastLine = ''
  return {
    show(text) {
      const seconds = Math.round((performance.now() - startMs) / 1000)
      const line = `${seconds} s  ${text}`
      if (isTTY) process.stderr.write(`\r\x1b[K${line.slice(0, (process.stderr.columns ?? 80) - 1)}`)
      else if (text.split(':')[0] !== lastLine) process.stderr.write(`${line}\n`)
      lastLine = text.split(':')[0]
    },
    end() {
      if (isTTY) process.stderr.write('\r\x1b[K')
    }
  }
}
