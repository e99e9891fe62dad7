/**
 * How a page, or a worker with workers of its own, learns that a worker has ended in a browser, which sends no event where it ends one for its memory or
 * at a user's wish, nor where a worker closes itself.
 *
 * The worker holds a Web Lock for its life and tells its name; who started it waits for the same lock, which the browser gives when the worker has ended,
 * however it did. Before the worker has its lock, and where there are none (pages that came neither by https nor from localhost), it is asked for a word
 * at intervals. These are counted, not timed: after a computer's sleep a worker has as many before it as ever.
 *
 *    page ── 'alive?' ──► worker      each interval in which somebody waits
 *         ◄── 'alive' ──              until the limit of intervals without any message
 *         ◄── { lock: name } ──       from then on the lock tells
 */

/** Of an engine: longer than it computes without a turn of the event loop, on whatever machine. */
export const DEFAULT_SILENCE_LIMIT_MS = 120_000
/** Intervals to the limit. */
const N_ASKED = 4

export interface WorkerWatch {
  /** Whether somebody waits for the worker, which has then to answer. */
  expectWord(isExpected: boolean): void
  /** The worker's end is told to nobody any more. */
  stop(): void
}

export interface WatchOptions {
  /** Called at most once, with the reason. */
  readonly onEnd: (reason: string) => void
  readonly silenceLimitMs?: number | undefined
}

/** For who started the worker, before its first message. */
export function watchWorker(worker: Worker, { onEnd, silenceLimitMs = DEFAULT_SILENCE_LIMIT_MS }: WatchOptions): WorkerWatch {
  let isExpected = false
  let isLocked = false
  let isOver = false
  let nUnanswered = 0
  let timer: ReturnType<typeof setInterval> | undefined

  const end = (reason: string): void => {
    if (isOver) return
    isOver = true
    update()
    onEnd(reason)
  }
  const ask = (): void => {
    if (nUnanswered++ === N_ASKED) end(`a worker that said nothing for ${silenceLimitMs} ms`)
    else worker.postMessage('alive?')
  }
  const update = (): void => {
    clearInterval(timer)
    nUnanswered = 0
    if (isExpected && !isLocked && !isOver) timer = setInterval(ask, silenceLimitMs / N_ASKED)
  }
  const awaitLock = async (name: string): Promise<void> => {
    isLocked = true
    update()
    try {
      await navigator.locks.request(name, () => end('a worker that ended without a word'))
    } catch {
      isLocked = false
      update()
    }
  }
  worker.addEventListener('message', ({ data }: MessageEvent<unknown>) => {
    nUnanswered = 0
    if (isLockNews(data)) void awaitLock(data.lock)
  })
  return {
    expectWord(expected) {
      isExpected = expected
      update()
    },
    stop() {
      isOver = true
      update()
    }
  }
}

/** For the worker, as the first thing that it does. Resolves when its end will be told, or cannot be. */
export async function showLife(): Promise<void> {
  addEventListener('message', ({ data }) => data === 'alive?' && postMessage('alive'))
  const { locks } = globalThis.navigator ?? {}
  if (locks === undefined) return
  const lock = `mamba-wasm worker ${crypto.randomUUID()}`
  await new Promise<void>((resolve) => {
    const holdForLife = (): Promise<never> => {
      postMessage({ lock })
      resolve()
      return new Promise(() => {})
    }
    // Refused: to frames without an origin, for one.
    locks.request(lock, holdForLife).catch(resolve)
  })
}

function isLockNews(data: unknown): data is { readonly lock: string } {
  return typeof data === 'object' && data !== null && 'lock' in data
}
