/**
 * Bun: as Node, but for the package's own files. They are imported as files, so that `bun build --compile` takes them into the program; their
 * names there are the bundler's.
 */

import { readFile } from 'node:fs/promises'
import model from '../../../models/classics-8m/model.gguf' with { type: 'file' }
import scalar from '../../wasm/scalar.wasm' with { type: 'file' }
import simd from '../../wasm/simd.wasm' with { type: 'file' }
import simdDot from '../../wasm/simd-dot.wasm' with { type: 'file' }
import simdRelaxed from '../../wasm/simd-relaxed.wasm' with { type: 'file' }
import simdThreads from '../../wasm/simd-threads.wasm' with { type: 'file' }
import simdThreadsDot from '../../wasm/simd-threads-dot.wasm' with { type: 'file' }
import simdThreadsRelaxed from '../../wasm/simd-threads-relaxed.wasm' with { type: 'file' }
import { bytesSource } from '../checkpoint/byte-source.ts'
import { checkFileName } from '../checkpoint/file-set.ts'
import { compiledOnce } from './compiled-once.ts'
import { platform as node } from './node.ts'
import type { Platform, WasmBuild } from './platform.ts'

const CORES: Readonly<Record<WasmBuild, string>> = {
  scalar,
  simd,
  'simd-threads': simdThreads,
  'simd-dot': simdDot,
  'simd-threads-dot': simdThreadsDot,
  'simd-relaxed': simdRelaxed,
  'simd-threads-relaxed': simdThreadsRelaxed
}

/** Where the files in a compiled program are. */
const isCompiled = (): boolean => /\$bunfs|~BUN/.test(import.meta.url)

export const platform: Platform = {
  ...node,
  wasmModule: compiledOnce(async (build) => WebAssembly.compile(await readFile(CORES[build]))),
  threadObstacle: () => (isCompiled() ? 'a program made by bun build --compile has no script for a worker' : undefined),
  embeddedModel: () => ({
    name: 'models/classics-8m',
    async open(fileName) {
      checkFileName(fileName, 'models/classics-8m')
      return fileName === 'model.gguf' ? bytesSource(await readFile(model), fileName) : undefined
    }
  })
}
