/** A model behind a port in this very thread: the messages as between a page and its worker, without the worker. */
import { afterAll } from 'vitest'
import type { LoadOptions } from '../../src/mamba.ts'
import type { ModelSource } from '../../src/source.ts'
import type { StartEngine } from '../../src/worker/host.ts'
import { loadBehind } from '../../src/worker/load-in-worker.ts'
import { serveEngine } from '../../src/worker/serve.ts'
import type { WorkerMamba } from '../../src/worker/stand-ins.ts'

export interface BehindPort {
  readonly mamba: WorkerMamba
  /** As a worker that dies does. */
  die(reason: string): void
  /** Whether a process would be kept alive. */
  isHeld(): boolean
  nEnds(): number
}

const ports: MessagePort[] = []
afterAll(() => {
  for (const port of ports) port.close()
})

export async function loadBehindPort(source?: ModelSource, options: LoadOptions = {}): Promise<BehindPort> {
  let isHeld = false
  let nEnds = 0
  let die: (reason: string) => void = () => {}
  const start: StartEngine = (onEnd) => {
    const { port1, port2 } = new MessageChannel()
    ports.push(port1, port2)
    serveEngine(port2)
    die = onEnd
    return {
      port: port1,
      hold: (held) => (isHeld = held),
      async end() {
        nEnds++
        port1.close()
      }
    }
  }
  const mamba = await loadBehind(start, source, options)
  return { mamba, die, isHeld: () => isHeld, nEnds: () => nEnds }
}
