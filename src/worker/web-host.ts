/** An engine in a Worker of a page or of another worker. The address is written as bundlers see it. */

import { UnsupportedError } from '../errors.ts'
import { watchWorker } from '../worker-life.ts'
import type { StartEngine } from './host.ts'

export const startEngine: StartEngine = (onEnd, { silenceLimitMs } = {}) => {
  if (typeof Worker === 'undefined') throw new UnsupportedError({ place: 'worker', expected: 'a host that starts workers', got: 'one that does not' })
  const { port1: port, port2 } = new MessageChannel()
  const worker = new Worker(new URL('./web-engine.js', import.meta.url), { type: 'module' })
  const fail = (reason: string): void => {
    watch.stop()
    worker.terminate()
    onEnd(reason)
  }
  const watch = watchWorker(worker, { onEnd: fail, silenceLimitMs })
  worker.addEventListener('error', (event) => {
    // Reported by `onEnd`, not to the page as well.
    event.preventDefault()
    fail(`a worker that failed: ${event.message || 'its script could not be loaded'}`)
  })
  worker.postMessage(port2, [port2])
  return {
    port,
    hold: (isHeld) => watch.expectWord(isHeld),
    async end() {
      watch.stop()
      worker.terminate()
      port.close()
    }
  }
}
