/** The browser's platform where it goes wrong, on stubs; where it goes right it runs in browsers (test/runtime). */
import { readFileSync } from 'node:fs'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { cacheStorageFiles } from '../../src/platform/web-cache.ts'
import { repositoryPath } from '../support/fixtures.ts'

afterEach(() => {
  vi.unstubAllGlobals()
  vi.restoreAllMocks()
  vi.resetModules()
})

/** Modules are kept between calls: a fresh one for each test. */
async function freshPlatform() {
  const { platform } = await import('../../src/platform/web.ts')
  return platform
}

const bytes = readFileSync(repositoryPath('dist/wasm/simd.wasm'))

describe('the compute core', () => {
  test.each(['application/wasm', 'application/wasm; charset=x', 'application/octet-stream'])('as %s', async (type) => {
    const fetch = vi.fn(async () => new Response(bytes, { headers: { 'content-type': type } }))
    vi.stubGlobal('fetch', fetch)
    const { wasmModule } = await freshPlatform()
    const [module, again] = await Promise.all([wasmModule('simd'), wasmModule('simd')])
    expect(WebAssembly.Module.exports(module).map(({ name }) => name)).toContain('run')
    expect(again).toBe(module)
    expect(fetch).toHaveBeenCalledTimes(1)
  })

  test('a server without it is an error that names the address, and is asked again', async () => {
    const fetch = vi.fn(async () => new Response('no', { status: 404 }))
    vi.stubGlobal('fetch', fetch)
    const { wasmModule } = await freshPlatform()
    const error = await wasmModule('scalar').catch((e: unknown) => e)
    expect(error).toMatchObject({ name: 'UnsupportedError', place: expect.stringMatching(/\/wasm\/scalar\.wasm$/), got: 'status 404' })
    fetch.mockImplementation(async () => new Response(bytes))
    expect(await wasmModule('scalar')).toBeInstanceOf(WebAssembly.Module)
  })

  test('so is one that does not answer', async () => {
    vi.stubGlobal('fetch', async () => Promise.reject(new TypeError('Failed to fetch')))
    const { wasmModule } = await freshPlatform()
    await expect(wasmModule('simd')).rejects.toMatchObject({ name: 'UnsupportedError', got: 'Failed to fetch' })
  })
})

describe('the embedded model', () => {
  test('is one file', async () => {
    vi.stubGlobal('fetch', async () => new Response(Uint8Array.of(1, 2, 3)))
    const files = (await freshPlatform()).embeddedModel()
    expect(await files.open('config.json')).toBeUndefined()
    const source = await files.open('model.gguf')
    expect(await source?.read(1, 3)).toEqual(Uint8Array.of(2, 3))
    await expect(files.open('../model.gguf')).rejects.toBeInstanceOf(RangeError)
  })

  test('an abort is the signal’s reason', async () => {
    vi.stubGlobal('fetch', async (_: URL, { signal }: RequestInit) => Promise.reject(signal?.aborted ? new DOMException('aborted', 'AbortError') : new Error('not aborted')))
    const reason = new Error('enough')
    const files = (await freshPlatform()).embeddedModel()
    await expect(files.open('model.gguf', AbortSignal.abort(reason))).rejects.toBe(reason)
  })
})

describe('what keeps a host from threads', () => {
  const StubWorker = vi.fn()

  test('nothing, in a worker of an isolated page', async () => {
    vi.stubGlobal('Worker', StubWorker)
    expect((await freshPlatform()).threadObstacle()).toBeUndefined()
  })

  test('no shared memory, no workers, a thread that may not wait', async () => {
    const { threadObstacle } = await freshPlatform()
    vi.stubGlobal('Worker', undefined)
    expect(threadObstacle()).toMatch(/no workers/)
    vi.stubGlobal('Worker', StubWorker)
    vi.spyOn(Atomics, 'wait').mockImplementation(() => {
      throw new TypeError('Atomics.wait cannot be called in this context')
    })
    expect(threadObstacle()).toMatch(/main thread/)
    vi.stubGlobal('SharedArrayBuffer', undefined)
    expect(threadObstacle()).toMatch(/no shared memory/)
  })
})

describe('a worker', () => {
  /** Answers its task with these events. */
  function stubWorker(...answers: readonly Event[]): { nTerminated: number } {
    const seen = { nTerminated: 0 }
    vi.stubGlobal('Worker', class extends EventTarget {
      postMessage(): void {
        for (const answer of answers) queueMicrotask(() => this.dispatchEvent(answer))
      }
      terminate(): void {
        seen.nTerminated++
      }
    })
    return seen
  }
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true })
  const task = { module: new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0)), memory, control: 0, thread: 1, failed: 0, exit: 0, pages: { start: 0, end: 0, step: 4096 } }

  test('is ready, and ends', async () => {
    const seen = stubWorker(new MessageEvent('message', { data: 'ready' }), new MessageEvent('message', { data: 'ended' }))
    const onEnd = vi.fn()
    const worker = await (await freshPlatform()).startWorker(task, onEnd)
    await worker.ready
    await worker.ended()
    expect(onEnd.mock.calls).toEqual([['one that ended']])
    expect(seen.nTerminated).toBe(1)
  })

  test('that the browser ended, silently, is not waited for without end', async () => {
    const seen = stubWorker(new MessageEvent('message', { data: 'ready' }))
    const onEnd = vi.fn()
    const worker = await (await freshPlatform()).startWorker(task, onEnd)
    await worker.ready
    vi.useFakeTimers()
    const ended = worker.ended()
    await vi.advanceTimersByTimeAsync(5000)
    vi.useRealTimers()
    await ended
    expect(onEnd.mock.calls).toEqual([['one that did not return']])
    expect(seen.nTerminated).toBe(1)
  })

  test('that the browser ends before it is ready rejects', async () => {
    vi.useFakeTimers()
    stubWorker()
    const worker = await (await freshPlatform()).startWorker(task, () => {})
    const error = worker.ready.catch((reason: unknown) => reason)
    await vi.advanceTimersByTimeAsync(200_000)
    vi.useRealTimers()
    expect(await error).toMatchObject({ message: expect.stringMatching(/before it was ready/) })
  })

  test('whose script is not where the bundle expects it rejects', async () => {
    const seen = stubWorker(new Event('error', { cancelable: true }))
    const onEnd = vi.fn()
    const worker = await (await freshPlatform()).startWorker(task, onEnd)
    await expect(worker.ready).rejects.toThrow(/before it was ready/)
    await worker.ended()
    expect(onEnd.mock.calls).toEqual([['one that failed: its script could not be loaded']])
    expect(seen.nTerminated).toBe(1)
  })
})

test('yielding lets timers through, and keeps the order of those who wait', async () => {
  const { yieldToEventLoop } = await freshPlatform()
  const order: number[] = []
  const timer = new Promise((resolve) => {
    setTimeout(resolve, 5, 'the timer')
  })
  await Promise.all([1, 2, 3].map((i) => yieldToEventLoop().then(() => order.push(i))))
  expect(order).toEqual([1, 2, 3])
  const yields = async (): Promise<string> => {
    const startMs = performance.now()
    while (performance.now() - startMs < 500) await yieldToEventLoop()
    return 'half a second of turns'
  }
  expect(await Promise.race([timer, yields()])).toBe('the timer')
})

test('without a Cache API nothing is kept', () => {
  vi.stubGlobal('caches', undefined)
  expect(cacheStorageFiles()).toBeUndefined()
})
