/** Files of the repository that benchmarks use. */

import { fileURLToPath } from 'node:url'
import { hasFastByteDot } from '../src/byte-dot.ts'

export const ROOT = fileURLToPath(new URL('..', import.meta.url))
/** The build that a model with 8- or 4-bit weights gets here on one thread. */
export const CORE_WASM = fileURLToPath(new URL(`../dist/wasm/${hasFastByteDot() ? 'simd-dot' : 'simd'}.wasm`, import.meta.url))
