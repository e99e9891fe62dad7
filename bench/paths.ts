/** Files of the repository that benchmarks use. */

import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('..', import.meta.url))
export const SIMD_WASM = fileURLToPath(new URL('../dist/wasm/simd.wasm', import.meta.url))
