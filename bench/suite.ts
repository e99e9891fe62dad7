/** What a benchmark is made of: suites of groups of lines. The lines of a group are measured in turns, with the limits that they are held against. */

import type { Work } from '../src/profile.ts'
import type { Result } from './results.ts'
import type { Task } from './measure.ts'

/** What one run gets done, to be told per second. */
export interface Amount {
  readonly amount: number
  /** What stands before "/s". */
  readonly unit: 'FLOP' | 'OP' | 'B' | 'elements' | 'tokens' | 'starts'
}

export interface Line extends Task {
  readonly amounts: readonly Amount[]
  /** Parts of a run one after the other, each with what it has to do at least; none where no limit says anything. */
  readonly works?: readonly Work[]
  /** Cores that the limits are multiplied by; 1 by default. */
  readonly threads?: number
  /** Another line of the group: the report gives this line's rate over that one's, in the first amounts. */
  readonly against?: string
}

export interface Group {
  readonly name: string
  readonly lines: readonly Line[]
  /** What the lines read of memory, where it is more than a little: the limit of reading is taken with as much. */
  readonly workingBytes?: number
  dispose?(): Promise<void>
}

/** A build of the compute core to be measured, SIMD and without threads. */
export type Core = WebAssembly.Module

export interface SuiteContext {
  /** Small shapes: a smoke run. */
  readonly isQuick: boolean
  /** Against another build of the core: with one thread, as that build has. */
  readonly isComparing: boolean
}

export interface Suite {
  readonly name: string
  readonly summary: string
  /** Runs the core that it is given: `--compare` may give it another one. */
  readonly isKernel: boolean
  /** Each makes its group when its turn comes, and of the core that it is given. */
  groups(context: SuiteContext): readonly ((core: Core) => Promise<Group>)[]
  /** What follows from the results, in a line or more. */
  conclude?(results: readonly Result[]): readonly string[]
}

export const flop = (amount: number): Amount => ({ amount, unit: 'FLOP' })
export const bytes = (amount: number): Amount => ({ amount, unit: 'B' })
export const elements = (amount: number): Amount => ({ amount, unit: 'elements' })
export const tokens = (amount: number): Amount => ({ amount, unit: 'tokens' })
