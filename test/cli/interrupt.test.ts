/** How the program ends when it is told to, and how it looks on a terminal. */

import type { ChildProcess } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import { ALICE, resultOf, start, startOnTerminal } from './run-cli.ts'

const ENDLESS = ['generate', '--max-tokens', '1000000', '--ignore-eos', '--seed', '1']
/** The promise is 100 ms; a machine that runs other tests may take longer to schedule a process. */
const PROMPT_END_MS = 600

async function firstOutput(child: ChildProcess): Promise<void> {
  await new Promise((resolve) => child.stdout?.once('data', resolve))
}

describe('signals', () => {
  test.each([['SIGINT', 130], ['SIGTERM', 143]] as const)('%s while text is generated', async (signal, expected) => {
    const child = start(ENDLESS)
    const result = resultOf(child)
    await firstOutput(child)
    await new Promise((resolve) => setTimeout(resolve, 100))
    const startMs = performance.now()
    child.kill(signal)
    const { code, stdout, stderr } = await result
    expect(performance.now() - startMs).toBeLessThan(PROMPT_END_MS)
    expect([code, stderr]).toEqual([expected, ''])
    expect(stdout).toMatch(/^Alice was beginning[^]*\n$/)
    expect(stdout).not.toContain('\u001B')
  })

  test('SIGINT while the model computes without output', async () => {
    const child = start(['score', ALICE])
    const result = resultOf(child)
    await new Promise((resolve) => setTimeout(resolve, 2000))
    const startMs = performance.now()
    child.kill('SIGINT')
    expect(await result).toEqual({ code: 130, stdout: '', stderr: '' })
    expect(performance.now() - startMs).toBeLessThan(PROMPT_END_MS)
  })

  test('SIGINT while it waits for standard input', async () => {
    const child = start(['generate', '-'])
    const result = resultOf(child)
    await new Promise((resolve) => setTimeout(resolve, 1500))
    child.kill('SIGINT')
    expect(await result).toEqual({ code: 130, stdout: '', stderr: '' })
  })
})

test('a reader that leaves early, as head does, is no failure', async () => {
  const child = start(ENDLESS)
  const closed = new Promise((resolve) => child.once('close', resolve))
  let stderr = ''
  child.stderr?.on('data', (data: Buffer) => (stderr += String(data)))
  await firstOutput(child)
  child.stdout?.destroy()
  expect([await closed, stderr]).toEqual([0, ''])
})

/** The one stream of a terminal, until the program ends, with the escape character as `ESC`. */
async function shown(child: ChildProcess): Promise<{ code: number | null; text: string }> {
  const { code, stdout } = await resultOf(child)
  return { code, text: stdout.replaceAll('\r\n', '\n').replaceAll('\u001B', 'ESC') }
}

describe('on a terminal', () => {
  test('Ctrl-C ends a dim prompt and its text on a line of their own', async () => {
    const child = startOnTerminal(ENDLESS)
    const result = shown(child)
    await firstOutput(child)
    await new Promise((resolve) => setTimeout(resolve, 1000))
    child.stdin?.write('\u0003')
    const { code, text } = await result
    expect(code).toBe(130)
    expect(text).toMatch(/ESC\[2mAlice was beginning to get very tired ofESC\[22m[^]+\n$/)
  })

  test('a bar comes with long work and goes without a trace', async () => {
    const child = startOnTerminal(['score', ALICE])
    const result = shown(child)
    await new Promise((resolve) => setTimeout(resolve, 2500))
    child.stdin?.write('\u0003')
    const { code, text } = await result
    expect(code).toBe(130)
    expect(text).toMatch(/\rscoring \[#*-+\] +\d+% {2}[\d,]+ of 143,\d+ tokens/)
    expect(text).toMatch(/\rESC\[K\n$/)
  })

  test('no colours with NO_COLOR, and no bar with --quiet', async () => {
    const child = startOnTerminal(['generate', '--quiet', '--max-tokens', '3', '--seed', '1'], { NO_COLOR: '1' })
    const { code, text } = await shown(child)
    expect(code).toBe(0)
    expect(text).toMatch(/^Alice was beginning[^]*\n$/)
    expect(text).not.toContain('ESC')
  })
})
