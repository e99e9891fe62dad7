/** Starts workers of the compute core in a browser. */

import type { WorkerHandle, WorkerTask } from './platform.ts'

export function startWorker(task: WorkerTask, onEnd: (reason: string) => void): WorkerHandle {
  const worker = new Worker(new URL('./web-worker.js', import.meta.url), { type: 'module' })
  const ended = new Promise<void>((resolve) => {
    const end = (reason: string): void => {
      worker.terminate()
      onEnd(reason)
      resolve()
    }
    worker.addEventListener('message', ({ data }) => data === 'ended' && end('one that ended'))
    worker.addEventListener('messageerror', () => end('one that could not read its task'), { once: true })
    worker.addEventListener(
      'error',
      (event) => {
        // Reported by `onEnd`, not to the page as well.
        event.preventDefault()
        end(`one that failed: ${event.message || 'its script could not be loaded'}`)
      },
      { once: true }
    )
  })
  const ready = new Promise<void>((resolve, reject) => {
    worker.addEventListener('message', ({ data }) => data === 'ready' && resolve())
    void ended.then(() => reject(new Error('a worker ended before it was ready')))
  })
  worker.postMessage(task)
  return { ready, ended: () => ended }
}
