/** How busy the machine was with other things while something was measured: the benchmark wants to be alone. */

import { readFileSync } from 'node:fs'

export interface ForeignLoad {
  /** Counts a measurement. */
  readonly during: <T>(measurement: () => Promise<T>) => Promise<T>
  /** Processor time of others over the time measured. */
  readonly cores: () => number
}

/** `ownCpuMs`: processor time of the processes that belong to the benchmark, this one aside. */
export function createForeignLoad(ownCpuMs: () => number): ForeignLoad {
  let foreignMs = 0
  let elapsedMs = 0
  const foreignNow = (): number => {
    const { user, system } = process.cpuUsage()
    return machineCpuMs() - ownCpuMs() - (user + system) / 1000
  }
  return {
    async during(measurement) {
      const startMs = performance.now()
      const before = foreignNow()
      const result = await measurement()
      foreignMs += foreignNow() - before
      elapsedMs += performance.now() - startMs
      return result
    },
    cores: () => Math.max(0, foreignMs / elapsedMs)
  }
}

const MS_PER_TICK = 10

/** Of all processors: user, nice, system, interrupts. */
function machineCpuMs(): number {
  const [, user, nice, system, , , irq, softirq] = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0].split(/\s+/).map(Number)
  return MS_PER_TICK * (user + nice + system + irq + softirq)
}
