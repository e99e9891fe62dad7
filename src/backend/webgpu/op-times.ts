/** What each op takes on a GPU, by the GPU's own clock: a pass of its own, with a timestamp before it and one behind. */

import { UnsupportedError } from '../../errors.ts'
import { adapterName, BUFFER_USAGE } from './device.ts'
import type { Readback } from './readback.ts'
import type { Dispatch } from './recording.ts'
import { encodeDispatches } from './steps.ts'

/** WebGPU allows 4096 timestamps in a set. */
const MOST_OPS = 2048

/** UnsupportedError for a device without timestamps. */
export function checkClock(device: GPUDevice): void {
  if (device.features.has('timestamp-query')) return
  throw new UnsupportedError({ place: 'times of ops', expected: 'a GPU with timestamp-query', got: `${adapterName(device)} without` })
}

/** Runs the ops' dispatches, one op after the other; milliseconds of each. */
export async function timeOps(device: GPUDevice, readback: Readback, ops: readonly (readonly Dispatch[])[]): Promise<Float64Array> {
  const timesMs = new Float64Array(ops.length)
  for (let first = 0; first < ops.length; first += MOST_OPS) {
    const turn = ops.slice(first, first + MOST_OPS)
    const querySet = device.createQuerySet({ type: 'timestamp', count: 2 * turn.length })
    const stamps = device.createBuffer({ label: 'timestamps', size: 16 * turn.length, usage: BUFFER_USAGE.queryResolve | BUFFER_USAGE.copySource })
    // A submission for each: together they may last longer than a watchdog allows.
    for (const [i, dispatches] of turn.entries()) {
      const encoder = device.createCommandEncoder()
      const pass = encoder.beginComputePass({ timestampWrites: { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 } })
      encodeDispatches(pass, dispatches)
      pass.end()
      device.queue.submit([encoder.finish()])
    }
    const encoder = device.createCommandEncoder()
    encoder.resolveQuerySet(querySet, 0, 2 * turn.length, stamps, 0)
    const words = await readback.read([{ buffer: stamps, first: 0, count: 4 * turn.length }], new Float32Array(4 * turn.length), encoder)
    const ns = new BigUint64Array(words.buffer)
    for (const [i, { length }] of turn.entries()) timesMs[first + i] = length === 0 ? 0 : Number(ns[2 * i + 1] - ns[2 * i]) / 1e6
    querySet.destroy()
    stamps.destroy()
  }
  return timesMs
}
