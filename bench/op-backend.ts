/** Ops by themselves on a backend, with random parameters and inputs. */

import { type Batch, type SsdForm, stateElements, type SteppingBackend } from '../src/backend/backend.ts'
import { createWasmBackend } from '../src/backend/wasm/wasm-backend.ts'
import { ProgramBuilder } from '../src/program/builder.ts'
import type { WeightFormat } from '../src/program/formats.ts'
import { elementsOf } from '../src/program/ops.ts'
import { createNumbers } from './numbers.ts'
import { encodeWeights } from './random-model.ts'
import type { Core } from './suite.ts'

export interface OpOptions {
  readonly core: Core
  readonly maxRows: number
  /** Of the matrices; f32 by default. */
  readonly format?: WeightFormat
  /** Ids are below it. */
  readonly vocabSize?: number
  /** Tokens whose keys and values are there, uniform in [-1, 1); 0 by default. */
  readonly contextLength?: number
  /** Of Mamba-2's scans; 'recurrent' by default. */
  readonly ssd?: SsdForm
  /** Values of parameters and inputs by name; uniform in [-1, 1) by default. Parameters of one name and shape share theirs. */
  readonly values?: Readonly<Record<string, (values: Float32Array) => void>>
}

export interface OpBackend {
  readonly backend: SteppingBackend
  /** Runs ops [0, nOps) on the first rows, of a sequence that has `position` tokens before them: 0 by default. */
  readonly run: (nRows: number, nOps: number, position?: number) => void
}

/** `addOps` adds ops to the program; names of parameters end in a number where there are many alike (`W3`). */
export async function createOpBackend(addOps: (builder: ProgramBuilder) => void, { core, maxRows, format = 'f32', vocabSize = 0, contextLength = 0, ssd, values = {} }: OpOptions): Promise<OpBackend> {
  const builder = new ProgramBuilder()
  addOps(builder)
  const program = builder.build(null, vocabSize)
  const backend = await createWasmBackend(program, { maxRows, maxLogitRows: 0, nSlots: 1, contextLength }, {
    module: core, build: 'simd', nThreads: 1, reason: 'a benchmark', formatOf: () => format, ssd
  })
  const numbers = createNumbers(maxRows)
  const make = (name: string, count: number): Float32Array => {
    const made = new Float32Array(count)
    const key = name.replace(/\d+$/, '')
    if (Object.hasOwn(values, key)) values[key](made)
    else numbers.uniform(made, 1)
    return made
  }
  const packed = new Map<string, ReturnType<typeof encodeWeights>>()
  for (const parameter of program.parameters) {
    const key = parameter.name.replace(/\d+$/, '')
    const data = packed.get(key) ?? encodeWeights(backend.formatOf(parameter), make(key, elementsOf(parameter.shape)))
    packed.set(key, data)
    backend.write(parameter, data, 0)
  }
  const batches = new Map<string, Batch>()
  const batchOf = (nRows: number, position = 0): Batch => {
    const tokens = Int32Array.from({ length: nRows }, () => numbers.below(vocabSize))
    return { tokens, segments: [{ slot: 0, position, firstRow: 0, nRows, logits: 'none' }] }
  }
  if (contextLength > 0) await backend.writeState(0, contextLength, make('cache', stateElements(program, contextLength)))
  backend.begin(batchOf(maxRows))
  for (const buffer of program.buffers) backend.writeView({ buffer, offset: 0, width: buffer.width }, make(buffer.name, maxRows * buffer.width))
  return {
    backend,
    run(nRows, nOps, position = 0) {
      const key = `${nRows} ${position}`
      let batch = batches.get(key)
      if (batch === undefined) batches.set(key, (batch = batchOf(nRows, position)))
      backend.begin(batch)
      backend.run(0, nOps)
    }
  }
}
