/** WebGPU of a page or its workers. */

import { UnsupportedError } from '../errors.ts'

/** Throws an UnsupportedError where there is none. */
export function webGpu(): GPU {
  const gpu = globalThis.navigator?.gpu
  if (gpu !== undefined) return gpu
  throw new UnsupportedError({ place: 'backend webgpu', expected: 'a browser with WebGPU, on a page that came by https or from localhost', got: 'no navigator.gpu' })
}
