/**
 * What must hold in every runtime: plain functions of the library and of bytes, without a test framework, so that they run anywhere.
 * Each check gives a line of what it found; what a runtime lacks is skipped, with the reason.
 */

import type * as Core from '../../src/index.ts'
import type * as Worker from '../../src/worker/load-in-worker.ts'

/** `mamba-wasm` and `mamba-wasm/worker`. */
type Library = typeof Core & Partial<Pick<typeof Worker, 'loadInWorker'>>

export interface Inputs {
  /** model.gguf of the embedded model. */
  readonly embedded: Uint8Array
  /** The files of a fixture, by name. */
  readonly fixture: Readonly<Record<string, Uint8Array>>
  /** A session of the embedded model, saved by Node. */
  readonly session: Uint8Array
  /** Of test/fixtures/digests.json, and the text with which that session went on. */
  readonly expected: { readonly embedded: string; readonly fixture: string; readonly continuation: string }
}

/** What a runtime lacks by its nature, with the reason: asked for it, it must answer with an UnsupportedError. */
export interface Lacks {
  readonly packageFiles?: string
  readonly threads?: string
  readonly scalar?: string
  readonly worker?: string
  readonly webgpu?: string
  /** Whether timers run while the library works; nothing to ask it for. */
  readonly timers?: string
}

export interface Outcome {
  readonly name: string
  readonly verdict: 'ok' | 'failed' | 'skipped'
  readonly detail: string
}

export interface Report {
  readonly outcomes: readonly Outcome[]
  /** What all runtimes have in common. */
  readonly text: string
  readonly reason: string
  readonly timesMs: Readonly<Record<string, number>>
}

/** A check that one kind of runtime has beside the suite's: gives a line of what it found. */
export type Check = readonly [name: string, task: (library: Library) => Promise<string>]

/** Thrown by a check for what the runtime lacks. */
class Skip extends Error {}

export const PROMPT = 'The captain looked at the'
export const OPTIONS = { maxTokens: 48, seed: 7, temperature: 0.7, ignoreEos: true } as const
/** The likeliest token each time: a GPU rounds otherwise, which draws of a sampler could show. */
const GREEDY = { maxTokens: 8, temperature: 0, ignoreEos: true } as const
const CONTINUATION = { ...OPTIONS, maxTokens: 28, seed: 8 }

/** What one runtime saves for all others, and what it says next. */
export async function saveSession({ Mamba }: Pick<Library, 'Mamba'>, embedded: Uint8Array): Promise<{ readonly session: Uint8Array; readonly continuation: string }> {
  const mamba = await Mamba.load(embedded)
  const session = mamba.session()
  await session.append(PROMPT)
  await session.complete({ ...OPTIONS, maxTokens: 20 })
  const bytes = await session.save()
  const { text } = await session.complete(CONTINUATION)
  await mamba.dispose()
  return { session: bytes, continuation: text }
}

/** The inputs as test/runtime/project.ts has laid them out. */
export async function readInputs(read: (path: string) => Promise<Uint8Array>): Promise<Inputs> {
  const { fixture, expected } = JSON.parse(new TextDecoder().decode(await read('inputs/inputs.json'))) as { fixture: string[]; expected: Inputs['expected'] }
  const files: Record<string, Uint8Array> = {}
  for (const name of fixture) files[name] = await read(`inputs/fixture/${name}`)
  return { embedded: await read('inputs/model.gguf'), session: await read('inputs/session.bin'), fixture: files, expected }
}

export async function runSuite(library: Library, { embedded, session: saved, fixture, expected }: Inputs, lacks: Lacks = {}, more: readonly Check[] = []): Promise<Report> {
  const { Mamba, CheckpointError, UnsupportedError, digest, loadInWorker } = library
  const outcomes: Outcome[] = []
  const timesMs: Record<string, number> = {}
  const check = async (name: string, task: () => Promise<string>): Promise<void> => {
    try {
      outcomes.push({ name, verdict: 'ok', detail: await task() })
    } catch (error) {
      outcomes.push({ name, verdict: error instanceof Skip ? 'skipped' : 'failed', detail: error instanceof Error ? error.message : String(error) })
    }
  }
  /** The lack must be told by a typed error, not by a crash. */
  const skipLacking = async (reason: string | undefined, attempt: () => Promise<unknown>): Promise<void> => {
    if (reason === undefined) return
    const error = await rejectionOf(attempt())
    if (!(error instanceof UnsupportedError)) throw new Error(`expected an UnsupportedError, got ${String(error)}`)
    throw new Skip(`${reason} (${error.message})`)
  }
  const timed = async <T>(name: string, task: () => Promise<T>): Promise<T> => {
    const startMs = performance.now()
    try {
      return await task()
    } finally {
      timesMs[name] = performance.now() - startMs
    }
  }

  const mamba = await timed('load from bytes', () => Mamba.load(embedded))
  const { text } = await mamba.complete(PROMPT, OPTIONS)

  await check('the embedded model by itself', async () => {
    await skipLacking(lacks.packageFiles, () => Mamba.load())
    const own = await timed('load', () => Mamba.load())
    try {
      const chunks = own.generate('The', { ...OPTIONS, maxTokens: 1 })
      await timed('first token', () => chunks.next())
      await chunks.return()
      return expectEqual((await own.complete(PROMPT, OPTIONS)).text, text)
    } finally {
      await own.dispose()
    }
  })
  await check('its digest', async () => expectEqual(await digest(mamba), expected.embedded))
  await check('the digest of a fixture from bytes', async () => {
    const model = await Mamba.load(fixture, { dtype: 'f32', contextLength: 512 })
    try {
      return expectEqual(await digest(model), expected.fixture)
    } finally {
      await model.dispose()
    }
  })
  await check('the streamed text is the whole text', async () => {
    let streamed = ''
    for await (const chunk of mamba.generate(PROMPT, OPTIONS)) streamed += chunk.text
    return expectEqual(streamed, text)
  })
  await check('a session saved and restored', async () => {
    const { session, continuation } = await saveSession(library, embedded)
    const restored = await mamba.restore(session)
    expectEqual((await restored.complete(CONTINUATION)).text, continuation)
    await restored.dispose()
    return `${session.byteLength} bytes`
  })
  await check('a session that Node saved goes on with the same text', async () => {
    const restored = await mamba.restore(saved)
    const { text: next } = await restored.complete(CONTINUATION)
    await restored.dispose()
    return expectEqual(next, expected.continuation)
  })
  await check('abort', async () => {
    const controller = new AbortController()
    const reason = new Error('enough')
    let nChunks = 0
    const error = await rejectionOf((async () => {
      for await (const chunk of mamba.generate(PROMPT, { ...OPTIONS, maxTokens: 10_000, signal: controller.signal })) {
        nChunks += chunk.text.length > 0 ? 1 : 0
        if (nChunks === 3) controller.abort(reason)
      }
    })())
    if (error !== reason) throw new Error(`expected the signal's reason, got ${String(error)}`)
    expectEqual((await mamba.complete(PROMPT, OPTIONS)).text, text)
    return `after ${nChunks} pieces`
  })
  await check('timers run while it generates', async () => {
    if (lacks.timers !== undefined) throw new Skip(lacks.timers)
    const controller = new AbortController()
    setTimeout(() => controller.abort(new Error('the timer')), 60)
    const error = await rejectionOf(mamba.complete(PROMPT, { ...OPTIONS, maxTokens: 100_000, signal: controller.signal }))
    return expectEqual(error instanceof Error ? error.message : String(error), 'the timer')
  })
  await check('error classes', async () => {
    const errors = [
      await rejectionOf(Mamba.load({ ...fixture, 'config.json': new Uint8Array(3) })),
      await rejectionOf(Mamba.load(embedded, { dtype: 'q3' as 'f32' })),
      await rejectionOf(Mamba.load(7 as unknown as Uint8Array)),
      await rejectionOf(mamba.forward([mamba.config.vocabSize])),
      await rejectionOf(Mamba.load('https://localhost:1/model.gguf', { retries: 0 }))
    ]
    const classes = [CheckpointError, UnsupportedError, TypeError, RangeError, CheckpointError]
    classes.forEach((expectedClass, i) => {
      if (!(errors[i] instanceof expectedClass)) throw new Error(`expected a ${expectedClass.name}, got ${String(errors[i])}`)
    })
    // Of the errors: the classes' own names are shorter in a bundle.
    return errors.map((error) => (error as Error).name).join(', ')
  })
  await check('two threads', async () => {
    await skipLacking(lacks.threads, () => Mamba.load(embedded, { threads: 2 }))
    const threaded = await Mamba.load(embedded, { threads: 2 })
    try {
      expectEqual(threaded.backend.threads, 2)
      expectEqual((await threaded.complete(PROMPT, OPTIONS)).text, text)
      return expectEqual(await digest(threaded), expected.embedded)
    } finally {
      await threaded.dispose()
    }
  })
  await check('the engine in a worker', async () => {
    if (loadInWorker === undefined) throw lacks.worker === undefined ? new Error('no loadInWorker') : new Skip(lacks.worker)
    await skipLacking(lacks.worker, () => loadInWorker(embedded))
    // Of its own: a page's main thread has none, its workers have them where there is shared memory.
    const threads = typeof SharedArrayBuffer === 'undefined' ? 1 : 2
    const behind = await timed('load in a worker', () => loadInWorker(embedded, { threads }))
    try {
      expectEqual((await behind.complete(PROMPT, OPTIONS)).text, text)
      const session = await behind.restore(saved)
      expectEqual((await session.complete(CONTINUATION)).text, expected.continuation)
      const controller = new AbortController()
      const reason = new Error('enough')
      const error = await rejectionOf((async () => {
        for await (const _ of session.generate({ maxTokens: 10_000, ignoreEos: true, signal: controller.signal })) controller.abort(reason)
      })())
      expectEqual(error, reason)
      const refusal = await rejectionOf(behind.restore(new Uint8Array(8)))
      if (!(refusal instanceof CheckpointError)) throw new Error(`expected a CheckpointError, got ${String(refusal)}`)
      return `${behind.backend.threads} threads`
    } finally {
      await behind.dispose()
    }
  })
  await check('the scalar build', async () => {
    await skipLacking(lacks.scalar, () => Mamba.load(embedded, { build: 'scalar' }))
    const scalar = await Mamba.load(embedded, { build: 'scalar' })
    try {
      return expectEqual((await scalar.complete(PROMPT, OPTIONS)).text, text)
    } finally {
      await scalar.dispose()
    }
  })
  await check('products of bytes', async () => {
    const dot = await Mamba.load(embedded, { build: 'simd-dot' }).catch((error: unknown) => {
      if (error instanceof UnsupportedError) throw new Skip(error.message)
      throw error
    })
    try {
      expectEqual((await dot.complete(PROMPT, OPTIONS)).text, text)
      return `by itself it takes ${mamba.backend.build}`
    } finally {
      await dot.dispose()
    }
  })
  await check('backend auto', async () => {
    const auto = await Mamba.load(embedded, { backend: 'auto' })
    try {
      expectEqual(auto.backend.name, 'wasm')
      expectEqual(auto.backend.reason.startsWith('auto: '), true)
      return expectEqual((await auto.complete(PROMPT, OPTIONS)).text, text)
    } finally {
      await auto.dispose()
    }
  })
  await check('a GPU', async () => {
    await skipLacking(lacks.webgpu, () => Mamba.load(embedded, { backend: 'webgpu' }))
    const gpu = await timed('load on the GPU', () => Mamba.load(embedded, { backend: 'webgpu' }))
    try {
      expectEqual(gpu.backend.name, 'webgpu')
      expectEqual((await gpu.complete(PROMPT, GREEDY)).text, (await mamba.complete(PROMPT, GREEDY)).text)
      const [there, here] = await Promise.all([gpu, mamba].map((model) => model.restore(saved)))
      expectEqual((await there.complete(GREEDY)).text, (await here.complete(GREEDY)).text)
      await there.dispose()
      await here.dispose()
      return gpu.backend.build
    } finally {
      await gpu.dispose()
    }
  })
  for (const [name, task] of more) await check(name, () => task(library))
  const { reason } = mamba.backend
  await mamba.dispose()
  return { outcomes, text, reason, timesMs }
}

function expectEqual<T>(actual: T, expected: T): string {
  if (actual !== expected) throw new Error(`expected ${JSON.stringify(expected)}, got ${JSON.stringify(actual)}`)
  return JSON.stringify(actual)
}

async function rejectionOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error('expected an error, got none')
}
