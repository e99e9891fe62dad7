/** The limits that the other suites are held against, by themselves: what one core does at most, in WebAssembly. */

import { createLimitKernels, type Limits } from '../../src/limits.ts'
import type { Amount, Suite } from '../suite.ts'

const UNITS: { readonly [K in keyof Limits]: Amount['unit'] } = { flop: 'FLOP', intOp: 'OP', byte: 'B', exp2: 'elements' }

export const limitsSuite: Suite = {
  name: 'limits',
  summary: 'what one core does at most: multiply and add, read memory, exp2',
  isKernel: false,
  groups: () => [
    async (core) => ({
      name: 'one core',
      lines: createLimitKernels({ core, isShared: false }).map(({ limit, name, amount, run }) => ({ name, run, amounts: [{ amount, unit: UNITS[limit] }] }))
    })
  ]
}
