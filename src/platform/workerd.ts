/**
 * Edge functions (Cloudflare's workerd, Vercel's edge runtime): wasm comes compiled, by import; no threads, no files, and no address of the package.
 * Both know `.wasm?module` for a module. Only one build is taken along, since these hosts count the bytes of a bundle, and all of them have SIMD.
 */

import simd from '../../wasm/simd.wasm?module'
import { UnsupportedError } from '../errors.ts'
import type { Platform } from './platform.ts'

const NO_THREADS = 'this host has no threads'

export const platform: Platform = {
  name: 'workerd',
  hasBuild: (build) => build === 'simd',
  async wasmModule(build) {
    if (build === 'simd') return ownModule(simd)
    throw new UnsupportedError({ place: 'build', expected: 'simd, the one that edge functions take along', got: build })
  },
  nCores: 1,
  threadObstacle: () => NO_THREADS,
  async startWorker() {
    throw new UnsupportedError({ place: 'threads', expected: '1', got: NO_THREADS })
  },
  async gpu() {
    throw new UnsupportedError({ place: 'backend webgpu', expected: 'backend wasm', got: 'an edge function, which has no GPU' })
  },
  // A timer dies with the request that set it, and the work of all requests of an isolate is done in the turn of any one of them: if that one went away
  // while it waited, nothing would ever go on. So the work is done in one go, up to the next piece that a caller takes.
  yieldToEventLoop: () => Promise.resolve(),
  localFiles: async () => undefined,
  // Files are read by range as needed: a worker's memory is small, and what its caches keep is the platform's choice.
  downloadCache: async () => undefined,
  embeddedModel: () => ({
    name: 'models/classics-8m',
    async open() {
      throw new UnsupportedError({
        place: 'the embedded model',
        expected: 'its bytes or its address as the source, e.g. from a static asset, KV or R2',
        got: 'none, and edge functions cannot read the files of a package'
      })
    }
  })
}

/**
 * Next.js compiles modules outside of the context that its edge functions run in: they are none by `instanceof`, which is what the loader goes by, until
 * they have the context's own prototype.
 */
function ownModule(module: WebAssembly.Module): WebAssembly.Module {
  const kind = Object.prototype.toString.call(module)
  if (kind !== '[object WebAssembly.Module]') throw new UnsupportedError({ place: 'simd.wasm?module', expected: 'a bundler that makes a WebAssembly.Module of it', got: kind })
  if (!(module instanceof WebAssembly.Module)) Object.setPrototypeOf(module, WebAssembly.Module.prototype)
  return module
}
