/** Every suite runs, and the report says what it should. The figures are those of a smoke run: not looked at. */
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, describe, expect, test } from 'vitest'
import { CORE_WASM } from '../../bench/paths.ts'
import type { Report } from '../../bench/report.ts'
import { resultOf, spreadOf } from '../../bench/results.ts'
import type { Line } from '../../bench/suite.ts'
import { SUITES } from '../../bench/suites/index.ts'
import { repositoryPath } from '../support/fixtures.ts'

const folder = mkdtempSync(join(tmpdir(), 'mamba-wasm-bench-'))
afterAll(() => rmSync(folder, { recursive: true }))

async function bench(...args: readonly string[]): Promise<{ stdout: string; report: Report }> {
  const file = join(folder, 'report.json')
  const command = ['--conditions=source', repositoryPath('bench/main.ts'), '--quick', '--json', file, ...args]
  const { stdout } = await promisify(execFile)(process.execPath, command, { cwd: folder })
  return { stdout, report: JSON.parse(readFileSync(file, 'utf8')) }
}

describe('npm run bench', () => {
  test('every suite gives lines with samples, rates and a table', async () => {
    const { stdout, report } = await bench()
    expect(report).toMatchObject({ version: 1, isQuick: true, comparedTo: null, machine: { node: process.versions.node, cores: expect.any(Number) } })
    expect(Date.parse(report.date)).toBeGreaterThan(0)
    expect(report.core).toMatch(/^[0-9a-f]{64}$/)
    expect([...new Set(report.results.map(({ suite }) => suite))]).toEqual(SUITES.map(({ name }) => name))
    for (const { line, ms, rates, ofLimit, against } of report.results) {
      expect(ms.samples, line).toHaveLength(2)
      expect(ms.samples.every((sample) => sample > 0) && ms.min <= ms.p10 && ms.p10 <= ms.median && ms.median <= ms.p90, line).toBe(true)
      expect(rates.length > 0 && rates.every(({ perSecond }) => perSecond > 0 && Number.isFinite(perSecond)), line).toBe(true)
      if (ofLimit !== null) expect(ofLimit.median > 0 && Number.isFinite(ofLimit.median), line).toBe(true)
      if (against !== null) expect(against.median > 0 && Number.isFinite(against.median), line).toBe(true)
      expect(stdout).toContain(`\n  ${line}  `)
    }
    // What the goals of speed are told by.
    const has = (suite: string, line: string): boolean => report.results.some((result) => result.suite === suite && result.line === line)
    for (const format of ['f32', 'bf16', 'f16', 'q8_0', 'q4_0']) expect(has('linear', `1 row ${format}`), format).toBe(true)
    expect(report.results.filter(({ suite, ofLimit }) => suite === 'linear' && ofLimit === null)).toEqual([])
    expect(report.results.filter(({ suite, group }) => suite === '130m' && group === 'small, q8_0').map(({ line }) => line)).toEqual([
      'prefill 16, 1 thread', 'prefill 16, 2 threads', 'decode, 1 thread', 'decode, 2 threads'
    ])
    expect(report.results.filter(({ suite, against }) => suite === 'scan' && against?.line === 'exp2 alone')).toHaveLength(2)
    expect(report.results.filter(({ suite, against }) => suite === 'batch' && against?.line === 'a lone sequence')).toHaveLength(8)
    expect(report.conclusions['batch'][0]).toMatch(/^small, f32, 1 thread, over a lone sequence, of the arithmetic limit: a lone sequence [\d.]+ tokens\/s, \d+ %; 2 sequences [\d.]+ tokens\/s \([\d.]+ ×\), \d+ %;/)
    expect(report.conclusions['threads'][0]).toMatch(/^decode with 2 threads over 1/)
  })

  test('a build is compared line by line', async () => {
    const { stdout, report } = await bench('--compare', CORE_WASM, 'math', 'scan')
    expect([...new Set(report.results.map(({ suite }) => suite))]).toEqual(['math', 'scan'])
    for (const { line, compared } of report.results) expect(compared !== null && compared.median > 0, line).toBe(true)
    expect(report.comparedTo?.sha256).toBe(report.core)
    expect(stdout).toContain('to other')
  })

  test('what cannot be is refused', async () => {
    await expect(bench('no-such-suite')).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('got "no-such-suite"') })
    await expect(bench('--compare', 'other.wasm', 'threads')).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('got "threads"') })
    await expect(bench('--samples', '1')).rejects.toMatchObject({ code: 2 })
  })
})

function line(changes: Partial<Line> = {}): Line {
  return { name: 'a', run() {}, amounts: [{ amount: 100, unit: 'B' }], ...changes }
}

describe('results', () => {
  const limits = { flop: 1000, intOp: Infinity, byte: 100, exp2: Infinity }

  test('medians and tenths', () => {
    expect(spreadOf([5, 1, 3, 2, 4])).toEqual({ median: 3, p10: 1.4, p90: 4.6 })
    expect(spreadOf([7])).toEqual({ median: 7, p10: 7, p90: 7 })
  })

  test('fractions and ratios are taken round by round', () => {
    const measured = { line: line({ works: [{ byte: 100, flop: 100 }, { flop: 500 }], against: 'b' }), seconds: [2, 4, 8] }
    const other = { line: line({ name: 'b', amounts: [{ amount: 50, unit: 'B' }] }), seconds: [1, 4, 16] }
    const result = resultOf(measured, { suite: 's', group: 'g' }, {
      limits: [limits, { ...limits, byte: 50 }, { ...limits, byte: 25 }], others: [measured, other], twin: { line: measured.line, seconds: [4, 4, 4] }
    })
    expect(result).toMatchObject({ suite: 's', group: 'g', line: 'a', rates: [{ unit: 'B', perSecond: 25 }], ms: { median: 4000, min: 2000 } })
    // 1.5 s of 2, 2.5 s of 4, 4.5 s of 8.
    expect(result.ofLimit).toMatchObject({ limit: 'byte', median: 0.625 })
    // 50 B/s over 50, 25 over 12.5, 12.5 over 3.125.
    expect(result.against).toMatchObject({ line: 'b', median: 2 })
    expect(result.compared?.median).toBe(1)
  })

  test('two cores have twice the limits of one', () => {
    const measured = { line: line({ works: [{ byte: 100 }], threads: 2 }), seconds: [1] }
    expect(resultOf(measured, { suite: 's', group: 'g' }, { limits: [limits], others: [], twin: undefined }).ofLimit?.median).toBe(0.5)
  })
})
