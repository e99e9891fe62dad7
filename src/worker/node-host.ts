/** An engine in a worker of Node, Deno and Bun. */

import { Worker } from 'node:worker_threads'
import { UnsupportedError } from '../errors.ts'
import type { StartEngine } from './host.ts'

/** What Node adds to ports. */
interface Refable {
  ref(): void
  unref(): void
}

export const startEngine: StartEngine = (onEnd) => {
  if (/\$bunfs|~BUN/.test(import.meta.url)) {
    throw new UnsupportedError({ place: 'worker', expected: 'a program with its scripts beside it', got: 'one made by bun build --compile' })
  }
  const { port1: port, port2 } = new MessageChannel()
  const isSource = import.meta.url.endsWith('.ts')
  const worker = new Worker(new URL(isSource ? 'node-engine.ts' : 'node-engine.js', import.meta.url), {
    workerData: port2,
    transferList: [port2 as never],
    // The process's own flags may be none for a worker, e.g. --input-type.
    execArgv: isSource ? ['--conditions=source'] : []
  })
  let reason = 'a worker that ended'
  worker.once('error', (error) => {
    reason = `a worker that failed: ${error.message}`
  })
  worker.once('exit', (code) => {
    port.close()
    onEnd(code === 0 ? reason : `${reason} (exit code ${code})`)
  })
  const parts: readonly Refable[] = [worker, port as unknown as Refable]
  return {
    port,
    hold(isHeld) {
      for (const part of parts) if (isHeld) part.ref()
      else part.unref()
    },
    async end() {
      await worker.terminate()
    }
  }
}
