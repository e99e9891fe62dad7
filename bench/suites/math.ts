/** The elementary functions, on values that lie in L1. */

import { instantiateSync } from '@assemblyscript/loader'
import { FUNCTION_EXP, FUNCTION_EXP2, FUNCTION_SILU, FUNCTION_SOFTPLUS } from '../../assembly/abi.ts'
import type { CoreExports } from '../../src/backend/wasm/wasm-backend.ts'
import { createNumbers } from '../numbers.ts'
import { type Core, elements, type Line, type Suite } from '../suite.ts'

const FUNCTIONS = { exp2: FUNCTION_EXP2, exp: FUNCTION_EXP, softplus: FUNCTION_SOFTPLUS, silu: FUNCTION_SILU } as const
const COUNT = 4096
/** Sets of inputs: how they are called, and the range that they are drawn from. */
const INPUTS = [
  { name: '', low: -8, high: 8 },
  // The results are zero, and would be subnormal if they were not flushed.
  { name: ', x below the least result', low: -140, high: -128 }
] as const

export const mathSuite: Suite = {
  name: 'math',
  summary: 'exp2, exp, softplus, silu on values in L1',
  isKernel: true,
  groups: () => [async (core) => ({ name: `${COUNT} values`, lines: Object.entries(FUNCTIONS).flatMap(([name, code]) => linesOf(core, name, code)) })]
}

function linesOf(core: Core, name: string, code: number): Line[] {
  return INPUTS.map(({ name: inputName, low, high }) => {
    const { evaluate, x, out } = createEvaluator(core, low, high)
    return { name: name + inputName, amounts: [elements(COUNT)], run: () => evaluate(code, x, out, COUNT) }
  })
}

/** `exp2` alone, as a line for others to be held against. */
export function exp2Line(core: Core): Line {
  const { evaluate, x, out } = createEvaluator(core, -8, 0)
  return { name: 'exp2 alone', amounts: [elements(COUNT)], run: () => evaluate(FUNCTION_EXP2, x, out, COUNT) }
}

function createEvaluator(core: Core, low: number, high: number) {
  const memory = new WebAssembly.Memory({ initial: 2 })
  const { exports } = instantiateSync<CoreExports>(core, { env: { memory } })
  const x = Math.ceil(exports.heapBase() / 64) * 64
  const values = new Float32Array(memory.buffer, x, COUNT)
  createNumbers(1).uniform(values, (high - low) / 2)
  values.forEach((value, i) => (values[i] = value + (low + high) / 2))
  return { evaluate: (code: number, from: number, to: number, count: number) => exports.evaluate(code, from, to, count, to + 4 * count), x, out: x + 4 * COUNT }
}
