/** The bar: when it is drawn, how wide it is, and that nothing of it remains. */

import { describe, expect, test, vi } from 'vitest'
import { createProgressBar, type Progress, renderBar } from '../../src/cli/progress-bar.ts'
import { createTerminal } from '../../src/cli/terminal.ts'

const HALF: Progress = { label: 'loading', done: 8e6, total: 16e6, unit: 'bytes' }

/** A stream that shows what a terminal of one line would. */
function screen(columns = 80) {
  const writes: string[] = []
  return {
    isTTY: true, columns, writes,
    write: (text: string) => writes.push(text) > 0,
    once: () => {},
    /** What is left on the line. */
    line: () => {
      const parts = writes.join('').replaceAll('\u001B[K', '').split('\r')
      return parts[parts.length - 1]
    }
  }
}

describe('rendering', () => {
  test('at half', () => {
    expect(renderBar(HALF, 90_000, 80)).toBe('loading [###############--------------]  50%  8.0 MB of 16.0 MB  ETA 1 min 30 s')
  })

  test.each(Array.from({ length: 90 }, (_, i) => i + 1))('stays below %i columns', (columns) => {
    for (const leftMs of [null, 5000]) expect(renderBar(HALF, leftMs, columns).length).toBeLessThan(columns)
  })

  test('a narrow terminal keeps the label and the percentage', () => {
    expect(renderBar(HALF, 5000, 20)).toBe('loading  50%')
  })

  test('nothing to do, and more than all', () => {
    expect(renderBar({ ...HALF, done: 0, total: 0 }, null, 80)).toContain('  0%')
    expect(renderBar({ ...HALF, done: 17e6 }, null, 80)).toContain('100%')
  })
})

function timed() {
  const stream = screen()
  const clock = { ms: 1000 }
  return { stream, clock, bar: createProgressBar(stream, () => clock.ms) }
}

describe('drawing', () => {
  test('not within the first 200 ms', () => {
    const { stream, clock, bar } = timed()
    bar.update(HALF)
    clock.ms += 199
    bar.update(HALF)
    bar.clear()
    expect(stream.writes).toEqual([])
  })

  test('at most ten times a second', () => {
    const { stream, clock, bar } = timed()
    for (let ms = 0; ms < 2000; ms++) {
      clock.ms = 1000 + ms
      bar.update({ ...HALF, done: ms, total: 2000 })
    }
    expect(stream.writes).toHaveLength(18)
  })

  test('erased at the end, and the next one waits again', () => {
    const { stream, clock, bar } = timed()
    bar.update(HALF)
    clock.ms += 300
    bar.update(HALF)
    expect(stream.line()).toContain('50%')
    bar.clear()
    expect(stream.writes.at(-1)).toBe('\r\u001B[K')
    const { length } = stream.writes
    bar.update(HALF)
    bar.clear()
    expect(stream.writes).toHaveLength(length)
  })

  test('the time left is reckoned from where the label started', () => {
    const { stream, clock, bar } = timed()
    bar.update({ ...HALF, label: 'downloading a' })
    clock.ms += 10_000
    // Half of this file was there already: a quarter more in 10 s leaves 10 s.
    bar.update({ ...HALF, label: 'downloading b' })
    clock.ms += 10_000
    bar.update({ ...HALF, label: 'downloading b', done: 12e6 })
    expect(stream.line()).toContain('ETA 10 s')
  })
})

describe('the terminal', () => {
  test('text takes the place of the bar', async () => {
    const stream = screen()
    const terminal = createTerminal({ out: stream, err: stream, env: {} })
    terminal.progress(HALF)
    await new Promise((resolve) => setTimeout(resolve, 220))
    terminal.progress(HALF)
    expect(stream.line()).toContain('50%')
    await terminal.print('text')
    expect(stream.line()).toBe('text')
  })

  test('a model cannot steer it', async () => {
    const stream = screen()
    const terminal = createTerminal({ out: stream, err: stream, env: {} })
    await terminal.print('a\u001B[2Jb\u009Bc\r\n\td')
    terminal.note('\u0007')
    expect(stream.writes).toEqual(['a\uFFFD[2Jb\uFFFDc\n\td', '\uFFFD\n'])
  })

  test('another stream gets the text as it is', async () => {
    const stream = { ...screen(), isTTY: false }
    const terminal = createTerminal({ out: stream, err: stream, env: {} })
    await terminal.print('a\u001B[2Jb\r\n', 'dim')
    terminal.progress(HALF)
    expect(stream.writes).toEqual(['a\u001B[2Jb\r\n'])
  })

  test.each([
    [{}, '\u001B[2mx\u001B[22m'], [{ NO_COLOR: '' }, '\u001B[2mx\u001B[22m'], [{ NO_COLOR: '1' }, 'x'], [{ TERM: 'dumb' }, 'x']
  ])('colours with %j', async (env, expected) => {
    const stream = screen()
    await createTerminal({ out: stream, err: stream, env }).print('x', 'dim')
    expect(stream.writes).toEqual([expected])
  })

  test('closed in the middle of a line it starts a new one, and says no more', async () => {
    const out = screen()
    const err = screen()
    const terminal = createTerminal({ out, err, env: {} })
    await terminal.print('half a li')
    terminal.close()
    terminal.close()
    await terminal.print('ne')
    terminal.note('seed 1')
    expect([out.writes, err.writes]).toEqual([['half a li', '\n'], []])
  })

  test('waits for a slow reader', async () => {
    const drained = vi.fn<(event: 'drain', listener: () => void) => void>()
    const done = vi.fn()
    const printed = createTerminal({ out: { write: () => false, once: drained }, err: screen(), env: {} }).print('x').then(done)
    await new Promise((resolve) => setTimeout(resolve, 10))
    expect(done).not.toHaveBeenCalled()
    drained.mock.calls[0][1]()
    await printed
  })
})
