/** Backend 'auto': a GPU where it pays, and where not the reason. */

import type { Backend } from './backend/backend.ts'
import { FORMATS, type WeightFormat } from './program/formats.ts'
import { type Op, opCost, type Parameter, type Program } from './program/ops.ts'

/**
 * Bytes of weights for each op of a token from which on a GPU pays. Of an op it takes about 10 µs, whatever there is to do (the README's "On a GPU" has what was
 * measured), and in that time a CPU reads 250 KB at 25 GB/s (`npm run bench -- linear`).
 */
const LEAST_BYTES_OF_OP = 250_000

export interface AutoOptions {
  readonly formatOf: (parameter: Parameter) => WeightFormat
  /** Makes the backend, on what is a GPU in truth; `reason` is what it tells. */
  readonly open: (reason: string) => Promise<Backend>
  /** Those that ask for the wasm backend without naming it. */
  readonly build?: string | undefined
  readonly threads?: number | 'auto' | undefined
  readonly relaxed?: boolean | undefined
}

/** The backend on a GPU, or why there is none. Whatever goes wrong on the way is such a reason: the CPU can do it. */
export async function openWhereItPays(program: Program, { formatOf, open, build = 'auto', threads = 'auto', relaxed = false }: AutoOptions): Promise<Backend | string> {
  const option = build !== 'auto' ? 'build' : relaxed ? 'relaxed' : threads !== 'auto' && threads > 1 ? 'threads' : null
  if (option !== null) return `the option ${option} is of the CPU`
  const bytes = program.ops.reduce((sum, op) => sum + weightBytes(op, formatOf), 0)
  const amount = `${(bytes / 1e6).toPrecision(3)} MB of weights a token`
  if (bytes < LEAST_BYTES_OF_OP * program.ops.length) return `${amount} are faster on the CPU`
  try {
    return await open(`auto: ${amount} are faster on a GPU`)
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** Of the matrices, or those of the chosen experts, that a token reads: two operations for each element. */
function weightBytes(op: Op, formatOf: (parameter: Parameter) => WeightFormat): number {
  if (op.kind !== 'linear' && op.kind !== 'expertLinear') return 0
  const { blockBytes, blockElements } = FORMATS[formatOf(op.kind === 'linear' ? op.weight : op.weights[0])]
  return (opCost(op) / 2 / blockElements) * blockBytes
}
