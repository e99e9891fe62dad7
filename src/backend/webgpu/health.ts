/** Whether a device still works. */

import { EngineError } from '../../errors.ts'
import { platform } from '#platform'

export interface Health {
  /** Throws when the device is gone. */
  check(): void
  /** What waits for the device: an EngineError when it is lost meanwhile. */
  guard<T>(task: () => Promise<T>): Promise<T>
  stop(): void
}

/** A device is of no more use when it is lost, and one of our own not to be trusted after an error: that is one of this package. */
export function watch(device: GPUDevice, isOwn: boolean): Health {
  let failure: EngineError | undefined
  const fail = (got: string, cause?: unknown): EngineError => (failure ??= new EngineError({ place: 'backend webgpu', expected: 'a device that works', got }, { cause }))
  const onError = ({ error }: GPUUncapturedErrorEvent): void => void fail(`an error of it: ${error.message}`)
  void device.lost.then(({ reason, message }) => fail(`one that was lost (${reason}): ${message}`))
  if (isOwn) device.addEventListener('uncapturederror', onError)
  const check = (): void => {
    if (failure !== undefined) throw failure
  }
  return {
    check,
    async guard(task) {
      check()
      let result
      try {
        result = await task()
      } catch (cause) {
        // The device's own word on it is the better one, and may come a little later.
        await platform.yieldToEventLoop()
        throw failure ?? fail(`one that failed: ${cause instanceof Error ? cause.message : String(cause)}`, cause)
      }
      check()
      return result
    },
    stop() {
      device.removeEventListener('uncapturederror', onError)
    }
  }
}
