/** What the cores together read from memory: beside how much a second core brings to decoding, what it could bring. */

import { startChild } from './child-client.ts'
import type { Samples } from './statistics.ts'

export interface ReadResult {
  readonly threads: number
  /** GB/s of all cores together, once for each session. */
  readonly rate: Samples
}

/** GB/s of so many processes at once. */
export async function readMemory(count: number): Promise<number> {
  const children = Array.from({ length: count }, () => startChild('read-memory'))
  try {
    // All are ready before one begins.
    for (const child of children) await child.call('warmUp')
    const rates = await Promise.all(children.map((child) => child.call<number>('read')))
    return rates.reduce((sum, rate) => sum + rate, 0) / 1e9
  } finally {
    for (const child of children) await child.close()
  }
}
