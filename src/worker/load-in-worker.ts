/**
 * A model in a worker of its own, so that a page never waits for it: `mamba-wasm/worker`. The same methods, over messages; a worker may have threads of
 * its own, which a page's main thread may not.
 */

import { describe, messageOf } from '../errors.ts'
import type { LoadOptions } from '../mamba.ts'
import type { ModelSource } from '../source.ts'
import { openConnection } from './connection.ts'
import type { StartEngine } from './host.ts'
import { LIBRARY } from './protocol.ts'
import { standInForMamba, type WorkerMamba } from './stand-ins.ts'
import { startEngine } from '#worker-host'

export type { InWorker, WorkerChat, WorkerMamba, WorkerSession } from './stand-ins.ts'

/** `Mamba.load`'s, and the worker's own. */
export interface WorkerLoadOptions extends LoadOptions {
  /**
   * How many ms the worker may say nothing while a call waits: it then counts as ended. Default 120000. Only in browsers, before the worker has started,
   * and after that where there are no Web Locks (pages that came neither by https nor from localhost): everywhere else a worker's end is told at once.
   */
  readonly silenceLimitMs?: number | undefined
}

/**
 * `Mamba.load`, in a worker. Sources and options go over as copies: a Blob or a File is passed by reference and better than bytes, and a file set of
 * one's own, or `fetch`, which are functions, are an UnsupportedError. EngineError where the worker ends before its time, from all calls under way and
 * all later ones. `dispose` ends the worker.
 */
export async function loadInWorker(source?: ModelSource, options: WorkerLoadOptions = {}): Promise<WorkerMamba> {
  return loadBehind(startEngine, source, options)
}

/** `loadInWorker`, whatever the engine runs in. */
export async function loadBehind(start: StartEngine, source: ModelSource | undefined, { silenceLimitMs, ...options }: WorkerLoadOptions): Promise<WorkerMamba> {
  options.signal?.throwIfAborted()
  checkLimit(silenceLimitMs)
  const connection = openConnection(start, { silenceLimitMs })
  const mamba = connection.target('mamba')
  try {
    await connection.call({ target: { handle: LIBRARY, place: 'library', told: {} }, method: 'load', args: [source, options] }, mamba)
    return standInForMamba(connection, mamba)
  } catch (error) {
    await connection.close(error instanceof Error ? error : new Error(String(error)))
    throw error
  }
}

/** A timer's: longer ones fire at once. */
const LONGEST_LIMIT_MS = 2 ** 31 - 1

function checkLimit(ms: number | undefined): void {
  if (ms === undefined || (typeof ms === 'number' && ms >= 1000 && ms <= LONGEST_LIMIT_MS)) return
  throw new RangeError(messageOf({ place: 'silenceLimitMs', expected: `1000 to ${LONGEST_LIMIT_MS}`, got: describe(ms) }))
}
