/** An engine in a Worker of a page or of another worker. The address is written as bundlers see it. */

import { UnsupportedError } from '../errors.ts'
import type { StartEngine } from './host.ts'

export const startEngine: StartEngine = (onEnd) => {
  if (typeof Worker === 'undefined') throw new UnsupportedError({ place: 'worker', expected: 'a host that starts workers', got: 'one that does not' })
  const { port1: port, port2 } = new MessageChannel()
  const worker = new Worker(new URL('./web-engine.js', import.meta.url), { type: 'module' })
  worker.addEventListener('error', (event) => {
    // Reported by `onEnd`, not to the page as well.
    event.preventDefault()
    worker.terminate()
    onEnd(`a worker that failed: ${event.message || 'its script could not be loaded'}`)
  })
  worker.postMessage(port2, [port2])
  return {
    port,
    hold() {},
    async end() {
      worker.terminate()
      port.close()
    }
  }
}
