/** Memory and processor time of processes, as Linux has them in /proc. */

import { readdirSync, readFileSync } from 'node:fs'
import type { Usage } from './engine.ts'

/** A process and all that come from it. */
export function processTree(root: number): readonly number[] {
  const children = new Map<number, number[]>()
  for (const entry of readdirSync('/proc')) {
    const stat = /^\d+$/.test(entry) ? statOf(Number(entry)) : undefined
    if (stat === undefined) continue
    const { pid, parent } = stat
    children.set(parent, [...(children.get(parent) ?? []), pid])
  }
  const tree = [root]
  for (const pid of tree) tree.push(...(children.get(pid) ?? []))
  return tree
}

/** The largest resident set that any of them had, which for Chromium is the page's process, and the processor time of all. */
export function usageOf(pids: readonly number[]): Usage {
  let peakBytes = 0
  let cpuMs = 0
  for (const pid of pids) {
    peakBytes = Math.max(peakBytes, peakBytesOf(pid))
    cpuMs += statOf(pid)?.cpuMs ?? 0
  }
  return { peakBytes, cpuMs }
}

function peakBytesOf(pid: number): number {
  const [, kilobytes = '0'] = /^VmHWM:\s+(\d+) kB/m.exec(read(pid, 'status')) ?? []
  return 1024 * Number(kilobytes)
}

/** USER_HZ is 100 on every Linux that Node runs on. */
const MS_PER_TICK = 10

function statOf(pid: number): { pid: number; parent: number; cpuMs: number } | undefined {
  const stat = read(pid, 'stat')
  if (stat === '') return undefined
  // The name stands in parentheses and may have spaces.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return { pid, parent: Number(fields[1]), cpuMs: MS_PER_TICK * (Number(fields[11]) + Number(fields[12])) }
}

/** Empty where the process has ended. */
function read(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return ''
  }
}
