/** Mamba-2's chunked form, checked where it is asked for. */

import { ssdOf } from './backend/backend.ts'
import { describe, UnsupportedError } from './errors.ts'
import type { WasmBuild } from './platform/platform.ts'
import type { Program } from './program/ops.ts'

/** UnsupportedError for a program or a build that does not have it. */
export function checkChunked(program: Program, build: WasmBuild): void {
  if (ssdOf(program, 'chunked') === null) throw new UnsupportedError({ place: 'ssd', expected: "'recurrent' for a model without Mamba-2 layers", got: describe('chunked') })
  if (build === 'scalar') throw new UnsupportedError({ place: 'ssd', expected: 'a build with SIMD', got: 'the scalar build' })
}
