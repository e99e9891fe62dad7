/**
 * Browsers, a page's main thread and its workers, and every other host with fetch: the package's own files by their address beside this module.
 * Each address is written as `new URL('…', import.meta.url)` with a literal, which is how bundlers see what to take along.
 */

import { bytesSource, type ByteSource, type FileSet } from '../checkpoint/byte-source.ts'
import { checkFileName } from '../checkpoint/file-set.ts'
import { UnsupportedError } from '../errors.ts'
import { compiledOnce } from './compiled-once.ts'
import type { Platform, WasmBuild } from './platform.ts'

/** From dist/src/platform, where this module is in the package. */
const CORE_URLS: Readonly<Record<WasmBuild, () => URL>> = {
  scalar: () => new URL('../../wasm/scalar.wasm', import.meta.url),
  simd: () => new URL('../../wasm/simd.wasm', import.meta.url),
  'simd-threads': () => new URL('../../wasm/simd-threads.wasm', import.meta.url),
  'simd-dot': () => new URL('../../wasm/simd-dot.wasm', import.meta.url),
  'simd-threads-dot': () => new URL('../../wasm/simd-threads-dot.wasm', import.meta.url),
  'simd-relaxed': () => new URL('../../wasm/simd-relaxed.wasm', import.meta.url),
  'simd-threads-relaxed': () => new URL('../../wasm/simd-threads-relaxed.wasm', import.meta.url)
}

export const platform: Platform = {
  name: 'web',
  hasBuild: () => true,
  wasmModule: compiledOnce(async (build) => {
    const response = await fetchPackageFile(CORE_URLS[build]())
    // compileStreaming refuses any other type, parameters included, and not every server knows this one.
    const isTyped = response.headers.get('content-type')?.toLowerCase() === 'application/wasm'
    return isTyped ? WebAssembly.compileStreaming(response) : WebAssembly.compile(await response.arrayBuffer())
  }),
  get nCores() {
    return globalThis.navigator?.hardwareConcurrency ?? 1
  },
  threadObstacle,
  startWorker: async (task, onEnd) => (await import('./web-threads.ts')).startWorker(task, onEnd),
  gpu: async () => (await import('./web-gpu.ts')).webGpu(),
  yieldToEventLoop,
  // There is no file system: a path is none of its files.
  localFiles: async () => undefined,
  downloadCache: async (name) => (await import('./web-cache.ts')).cacheStorageFiles(name),
  embeddedModel: () => ({ name: 'models/classics-8m', open: openEmbedded })
}

const openEmbedded: FileSet['open'] = async (fileName, signal): Promise<ByteSource | undefined> => {
  checkFileName(fileName, 'models/classics-8m')
  if (fileName !== 'model.gguf') return undefined
  // Whole: one request, which the browser's own cache keeps.
  const response = await fetchPackageFile(new URL('../../../models/classics-8m/model.gguf', import.meta.url), signal)
  return bytesSource(await response.arrayBuffer(), fileName)
}

async function fetchPackageFile(url: URL, signal?: AbortSignal): Promise<Response> {
  const expected = 'a file of this package, served where its code or its bundle expects it'
  let response: Response
  try {
    response = await fetch(url, { signal: signal ?? null })
  } catch (cause) {
    signal?.throwIfAborted()
    throw new UnsupportedError({ place: url.href, expected, got: cause instanceof Error ? cause.message : String(cause) }, { cause })
  }
  if (response.ok) return response
  await response.body?.cancel()
  throw new UnsupportedError({ place: url.href, expected, got: `status ${response.status}` })
}

function threadObstacle(): string | undefined {
  if (typeof SharedArrayBuffer === 'undefined') return 'there is no shared memory (a page has it where headers COOP and COEP isolate it from other origins)'
  if (typeof Worker === 'undefined') return 'this host starts no workers'
  try {
    // Not equal: returns at once where waiting is allowed.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1, 0)
    return undefined
  } catch {
    return 'this is the main thread of a page, which may not wait for others: load the model in a Worker'
  }
}

let channel: MessageChannel | undefined
const waiting: (() => void)[] = []

/** By a message to itself: timers that follow each other wait 4 ms in browsers, and a prioritised continuation could leave other timers behind. */
function yieldToEventLoop(): Promise<void> {
  if (channel === undefined) {
    channel = new MessageChannel()
    channel.port1.addEventListener('message', () => waiting.shift()?.())
    channel.port1.start()
  }
  const { port2 } = channel
  return new Promise((resolve) => {
    waiting.push(resolve)
    port2.postMessage(null)
  })
}
