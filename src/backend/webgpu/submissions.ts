/**
 * Dispatches on their way to the GPU. A token is one submission; long work is cut into several by its estimated cost, so that none of them
 * holds the GPU long enough for a watchdog, and no more than two are under way, so that an abort is soon noticed.
 */

import type { Dispatch } from './recording.ts'
import { encodeDispatches } from './steps.ts'

export interface Submissions {
  /** Adds what an op dispatches, `cost` in the units of opCost. */
  add(dispatches: readonly Dispatch[], cost: number): void
  /** True when what was added should be submitted before more. */
  readonly isFull: boolean
  /** Whether so much is one submission. */
  fits(cost: number): boolean
  /** Submits what was added. */
  submit(): void
  /** What was added, ended and not submitted: for whoever has something to add. */
  take(): GPUCommandEncoder
  /** Resolves when at most `most` submissions are under way. */
  settle(most: number): Promise<void>
}

/** Of a submission: well within the 2 s that Windows allows, and the time after which an abort takes hold. */
const SUBMISSION_MS = 100

const LATENCY_MS = 5

/** Cost in a millisecond before any was measured: of a small GPU, and of a software adapter on two cores. */
const FIRST_RATE = { hardware: 1e8, software: 2e6 } as const

export function createSubmissions(device: GPUDevice, { isSoftware }: { isSoftware: boolean }): Submissions {
  let rate: number = FIRST_RATE[isSoftware ? 'software' : 'hardware']
  let encoder: GPUCommandEncoder | undefined
  let pass: GPUComputePassEncoder | undefined
  let pipeline: GPUComputePipeline | undefined
  let cost = 0
  let lastEndMs = 0
  const underWay: Promise<void>[] = []

  const take = (): GPUCommandEncoder => {
    pass?.end()
    const taken = encoder ?? device.createCommandEncoder()
    encoder = pass = pipeline = undefined
    cost = 0
    return taken
  }
  /** How long it took tells how much fits the next one. Of a short time most is latency, so that the rate is at least as high. */
  const watch = async (submitted: number): Promise<void> => {
    const submittedMs = performance.now()
    await device.queue.onSubmittedWorkDone()
    const endMs = performance.now()
    const elapsedMs = endMs - Math.max(submittedMs, lastEndMs)
    lastEndMs = endMs
    const measured = submitted / elapsedMs
    if (measured > rate) rate = Math.min(measured, 4 * rate)
    else if (elapsedMs > LATENCY_MS) rate += (measured - rate) / 4
  }
  return {
    add(dispatches, opCost) {
      encoder ??= device.createCommandEncoder()
      pass ??= encoder.beginComputePass()
      pipeline = encodeDispatches(pass, dispatches, pipeline)
      cost += opCost
    },
    get isFull() {
      return cost > rate * SUBMISSION_MS
    },
    fits: (whole) => whole <= rate * SUBMISSION_MS,
    submit() {
      const submitted = cost
      if (encoder === undefined) return
      device.queue.submit([take().finish()])
      const done = watch(submitted)
      underWay.push(done)
      void done.finally(() => underWay.splice(underWay.indexOf(done), 1)).catch(() => {})
    },
    take,
    async settle(most) {
      while (underWay.length > most) await underWay[0]
    }
  }
}
