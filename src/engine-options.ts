/** The checks of a load's options. Loaded where there are any. */

import { checkInteger, describe, messageOf, UnsupportedError } from './errors.ts'
import { hostHasRelaxedSimd, hostHasSimd } from './host.ts'
import { BACKENDS, BUILDS, type EngineOptions, MAX_CONTEXT, threadObstacle, WEIGHT_DTYPES } from './load.ts'

const MAX_THREADS = 64

/** Those that need no model, and what they need of the host: UnsupportedError, RangeError or TypeError that names the option. */
export function checkEngineOptions(options: EngineOptions): void {
  const { dtype = 'auto', threads = 'auto', backend = 'wasm', build = 'auto', relaxed = false, ssd = 'recurrent', gpu, maxBatch = 4, maxQueue = 0, contextLength, normGroups } = options
  oneOf('dtype', dtype, WEIGHT_DTYPES)
  oneOf('backend', backend, BACKENDS)
  oneOf('build', build, BUILDS)
  if (relaxed) oneOf('build with relaxed', build, ['auto', 'simd'])
  oneOf('ssd', ssd, ['recurrent', 'chunked'])
  if (threads !== 'auto') checkInteger('threads', threads, 1, MAX_THREADS)
  if (backend === 'reference') {
    // It interprets in float64, on one thread: nothing is quietly ignored.
    oneOf('dtype of the reference backend', dtype, ['auto', 'f32'])
    oneOf('threads of the reference backend', threads, ['auto', 1])
    oneOf('build of the reference backend', build, ['auto'])
    oneOf('relaxed of the reference backend', relaxed, [false])
    oneOf('ssd of the reference backend', ssd, ['recurrent'])
  }
  if (backend === 'webgpu') {
    oneOf('threads of the WebGPU backend', threads, ['auto', 1])
    oneOf('build of the WebGPU backend', build, ['auto'])
    oneOf('relaxed of the WebGPU backend', relaxed, [false])
  }
  if (backend === 'wasm' || backend === 'auto') checkHost(build, threads, relaxed)
  if (gpu !== undefined) {
    if (backend !== 'webgpu' && backend !== 'auto') throw new UnsupportedError({ place: 'gpu', expected: "backend 'webgpu' or 'auto' with it", got: `backend ${describe(backend)}` })
    if (!isDevice(gpu)) throw new TypeError(messageOf({ place: 'gpu', expected: 'a GPUDevice', got: describe(gpu) }))
  }
  checkInteger('maxBatch', maxBatch, 1, 1024)
  if (contextLength !== undefined) checkInteger('contextLength', contextLength, 1, MAX_CONTEXT)
  checkInteger('maxQueue', maxQueue, 0, 2 ** 20)
  if (normGroups !== undefined) checkInteger('normGroups', normGroups, 1, 2 ** 20)
}

/** By its form: it may be of another window. */
function isDevice(value: object): value is GPUDevice {
  return 'createComputePipelineAsync' in value && 'queue' in value && 'limits' in value
}

/** Of the wasm backend, to which 'auto' comes with these options. */
function checkHost(build: string, threads: number | 'auto', relaxed: boolean): void {
  const isThreaded = threads !== 'auto' && threads > 1
  const isSimd = build === 'auto' ? hostHasSimd() : build !== 'scalar'
  if (!isSimd && (relaxed || isThreaded)) {
    throw new UnsupportedError({ place: relaxed ? 'relaxed' : 'threads', expected: 'a build with SIMD', got: 'the scalar build' })
  }
  if ((relaxed || build === 'simd-dot') && !hostHasRelaxedSimd()) {
    throw new UnsupportedError({ place: relaxed ? 'relaxed' : 'build simd-dot', expected: 'a host with relaxed SIMD', got: 'one without' })
  }
  const obstacle = isThreaded ? threadObstacle() : undefined
  if (obstacle !== undefined) throw new UnsupportedError({ place: 'threads', expected: `1, since ${obstacle}`, got: `${threads}` })
}

function oneOf(option: string, value: unknown, allowed: readonly unknown[]): void {
  if (allowed.includes(value)) return
  throw new UnsupportedError({ place: option, expected: `one of ${allowed.map(describe).join(', ')}`, got: describe(value) })
}
