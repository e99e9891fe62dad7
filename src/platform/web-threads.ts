/** Starts workers of the compute core in a browser. */

import { watchWorker } from '../worker-life.ts'
import type { WorkerHandle, WorkerTask } from './platform.ts'

/** Of a worker that was told to return: it sleeps for 100 ms at most. Longer than it needs, since one that is ended instead does no harm. */
const RETURN_LIMIT_MS = 5000

export function startWorker(task: WorkerTask, onEnd: (reason: string) => void): WorkerHandle {
  const worker = new Worker(new URL('./web-worker.js', import.meta.url), { type: 'module' })
  let end: (reason: string) => void = () => {}
  const ended = new Promise<void>((resolve) => {
    end = (reason) => {
      watch.stop()
      worker.terminate()
      onEnd(reason)
      end = () => {}
      resolve()
    }
  })
  const watch = watchWorker(worker, { onEnd: (reason) => end(reason) })
  worker.addEventListener('message', ({ data }) => data === 'ended' && end('one that ended'))
  worker.addEventListener('messageerror', () => end('one that could not read its task'))
  worker.addEventListener('error', (event) => {
    // Reported by `onEnd`, not to the page as well.
    event.preventDefault()
    end(`one that failed: ${event.message || 'its script could not be loaded'}`)
  })
  const ready = new Promise<void>((resolve, reject) => {
    worker.addEventListener('message', ({ data }) => {
      if (data !== 'ready') return
      // At work, in wasm, it hears nothing: its barriers have a deadline.
      watch.expectWord(false)
      resolve()
    })
    void ended.then(() => reject(new Error('a worker ended before it was ready')))
  })
  worker.postMessage(task)
  watch.expectWord(true)
  return {
    ready,
    ended() {
      // Where the browser has ended it and does not say so.
      const timer = setTimeout(() => end('one that did not return'), RETURN_LIMIT_MS)
      return ended.finally(() => clearTimeout(timer))
    }
  }
}
