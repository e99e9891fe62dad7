/** What the kernels that multiply by a matrix share: linear and the experts' differ in where their rows are. */

import type { WeightReader } from './weight-reader.ts'

/** out[row, output] = Σ weight[output] · x[row], in WGSL: expressions of type u32 or f32, which may stand in any function. */
export interface Product {
  /** Declarations of bindings, functions and private variables, the reader's among them. */
  readonly code: string
  readonly reader: WeightReader
  readonly nIn: number
  /** Outputs of a row here: all, or those of a part of the matrix. */
  readonly nOut: number
  /** Statements at the start of main: they set what the expressions use. */
  readonly setup: string
  /** Which rows a workgroup has: the `rowGroup`-th so many of `nRows`, which is the same for all its threads. */
  readonly nRows: string
  readonly rowGroup: string
  /** Where in `activations` the inputs of a row start. */
  x(row: string): string
  /** Row of `weights`. */
  weightRow(output: string): string
  /** Rows of `weights`; where weightRow gives others, an output is not this kernel's. */
  readonly nWeightRows: number
  /** A statement. */
  store(row: string, output: string, value: string): string
  /** What the inputs are, where they are not as they lie in `activations`: for the kernels of few rows alone. */
  readonly source?: Source
  /** The same as `store` in two parts, of which the first, what a sum is added to, need not wait for it. */
  readonly owner?: Owner
}

/** Inputs that are made on the way to workgroup memory. */
export interface Source {
  /** An expression: an input before its norm. */
  value(row: string, column: string): string
  readonly norm: SourceNorm | null
}

export interface SourceNorm {
  readonly eps: number
  /** Inputs with a scale of their own. */
  readonly groupWidth: number
  /** An expression: four weights, or null without. */
  readonly weight: ((quad: string) => string) | null
}

/**
 * Of the thread that stores an output. Statements; what `declare` declares, `find` and `load` set, where there is such an output, and `store` uses.
 * `find` is where a wait for memory does no harm; what depends on it is for `load`.
 */
export interface Owner {
  readonly declare: string
  find(row: string, output: string): string
  load(row: string, output: string): string
  store(row: string, output: string, value: string): string
}

/** Lines that differ in a number. */
export function unroll(count: number, line: (i: number) => string): string {
  return Array.from({ length: count }, (_, i) => line(i)).join('\n')
}

/** More workgroups than one dimension may have, in two; WORKGROUP_INDEX is the index of one, which may be beyond the last. */
export function foldWorkgroups(count: number, maxWorkgroups: number): readonly [x: number, y: number] {
  const y = Math.ceil(count / maxWorkgroups)
  return [Math.ceil(count / y), y]
}

export const WORKGROUP_INDEX = 'workgroup.y * workgroups.x + workgroup.x'
