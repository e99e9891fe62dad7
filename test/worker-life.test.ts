/** A worker's end, told by a lock or by silence, on stubs; in Chromium it is in test/runtime/ended-workers.ts. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { showLife, watchWorker, type WorkerWatch } from '../src/worker-life.ts'

const LIMIT_MS = 4000

/** Locks as browsers have them: in turn, each for as long as its holder's promise is open. */
class StubLocks {
  readonly #ends = new Map<string, Promise<unknown>>()
  request(name: string, hold: () => unknown): Promise<unknown> {
    const held = (this.#ends.get(name) ?? Promise.resolve()).then(hold)
    this.#ends.set(name, held)
    return held
  }
}

class StubWorker extends EventTarget {
  nAsked = 0
  answers = true
  postMessage(): void {
    this.nAsked++
    if (this.answers) this.say('alive')
  }
  say(data: unknown): void {
    this.dispatchEvent(new MessageEvent('message', { data }))
  }
}

let worker: StubWorker
const onEnd = vi.fn<(reason: string) => void>()
const watch = (): WorkerWatch => watchWorker(worker as unknown as Worker, { onEnd, silenceLimitMs: LIMIT_MS })

beforeEach(() => {
  vi.useFakeTimers()
  worker = new StubWorker()
  onEnd.mockReset()
})
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

describe('without locks', () => {
  test('one that answers has no end, however long somebody waits', () => {
    watch().expectWord(true)
    vi.advanceTimersByTime(10 * LIMIT_MS)
    expect(worker.nAsked).toBe(40)
    expect(onEnd).not.toHaveBeenCalled()
  })

  test('one that is silent ends after the limit and an interval, once', () => {
    watch().expectWord(true)
    worker.answers = false
    vi.advanceTimersByTime(LIMIT_MS)
    expect(onEnd).not.toHaveBeenCalled()
    vi.advanceTimersByTime(LIMIT_MS)
    expect(onEnd.mock.calls).toEqual([['a worker that said nothing for 4000 ms']])
    vi.advanceTimersByTime(LIMIT_MS)
    expect(onEnd).toHaveBeenCalledTimes(1)
  })

  test('any word counts, and a computer’s sleep is one interval', () => {
    watch().expectWord(true)
    worker.answers = false
    vi.advanceTimersByTime(LIMIT_MS)
    worker.say('ready')
    vi.setSystemTime(Date.now() + 1e9)
    vi.advanceTimersByTime(LIMIT_MS)
    expect(onEnd).not.toHaveBeenCalled()
  })

  test('nobody asks where nobody waits, nor after the end', () => {
    const watched = watch()
    vi.advanceTimersByTime(LIMIT_MS)
    watched.expectWord(true)
    watched.expectWord(false)
    vi.advanceTimersByTime(LIMIT_MS)
    watched.stop()
    watched.expectWord(true)
    vi.advanceTimersByTime(3 * LIMIT_MS)
    expect(worker.nAsked).toBe(0)
    expect(onEnd).not.toHaveBeenCalled()
  })
})

describe('with locks', () => {
  /** A worker's side, up to the end of its life. */
  function startLife(locks: StubLocks): { readonly end: () => void } {
    let end = (): void => {}
    const life = new Promise<void>((resolve) => (end = resolve))
    void locks.request('a lock', () => {
      worker.say({ lock: 'a lock' })
      return life
    })
    return { end }
  }

  test('the end is told at once, and nobody asks before', async () => {
    const locks = new StubLocks()
    vi.stubGlobal('navigator', { locks })
    watch().expectWord(true)
    const life = startLife(locks)
    await vi.advanceTimersByTimeAsync(10 * LIMIT_MS)
    expect([worker.nAsked, onEnd.mock.calls]).toEqual([0, []])
    life.end()
    await vi.advanceTimersByTimeAsync(0)
    expect(onEnd.mock.calls).toEqual([['a worker that ended without a word']])
  })

  test('not to one who stopped watching', async () => {
    const locks = new StubLocks()
    vi.stubGlobal('navigator', { locks })
    const watched = watch()
    const life = startLife(locks)
    await vi.advanceTimersByTimeAsync(0)
    watched.stop()
    life.end()
    await vi.advanceTimersByTimeAsync(0)
    expect(onEnd).not.toHaveBeenCalled()
  })

  test('where the page is refused, it asks', async () => {
    vi.stubGlobal('navigator', { locks: { request: async () => Promise.reject(new DOMException('no', 'SecurityError')) } })
    watch().expectWord(true)
    worker.say({ lock: 'a lock' })
    await vi.advanceTimersByTimeAsync(LIMIT_MS)
    expect(worker.nAsked).toBe(4)
  })
})

describe('in the worker', () => {
  let listener: (event: MessageEvent) => void
  const said = vi.fn<(data: unknown) => void>()
  beforeEach(() => {
    said.mockReset()
    vi.stubGlobal('postMessage', said)
    vi.stubGlobal('addEventListener', (_: string, listen: typeof listener) => (listener = listen))
  })

  test('it answers, and holds a lock of its own before it goes on', async () => {
    const locks = new StubLocks()
    vi.stubGlobal('navigator', { locks })
    await Promise.all([showLife(), showLife()])
    const names = said.mock.calls.map(([data]) => (data as { lock: string }).lock)
    expect(new Set(names).size).toBe(2)
    const got = vi.fn()
    void locks.request(names[0], got)
    await vi.advanceTimersByTimeAsync(1000)
    expect(got).not.toHaveBeenCalled()
    listener(new MessageEvent('message', { data: 'alive?' }))
    listener(new MessageEvent('message', { data: 'a task' }))
    expect(said.mock.calls.slice(2)).toEqual([['alive']])
  })

  test.each([
    ['without locks', {}],
    ['without a navigator', undefined],
    ['where it is refused', { locks: { request: async () => Promise.reject(new DOMException('no', 'SecurityError')) } }]
  ])('it goes on %s', async (_, navigator) => {
    vi.stubGlobal('navigator', navigator)
    await showLife()
    expect(said).not.toHaveBeenCalled()
  })
})
