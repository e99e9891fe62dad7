/** Long work gives way to the event loop: aborts and Ctrl-C depend on it. */

import { platform } from '#platform'

/** Half the promised 50 ms: the piece of work under way has to end too. */
const YIELD_AFTER_MS = 25

export interface Pace {
  /** To be awaited between pieces of work; does nothing until enough time has passed. */
  pause(): Promise<void>
}

export function createPace(): Pace {
  let lastMs = performance.now()
  return {
    async pause() {
      if (performance.now() - lastMs < YIELD_AFTER_MS) return
      await platform.yieldToEventLoop()
      lastMs = performance.now()
    }
  }
}
