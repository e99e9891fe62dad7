/** The paper's induction heads task (section 4.1.2): what followed the special token when it came before? */

import { createNumbers } from './numbers.ts'

const SPECIAL = 0
const VOCAB_SIZE = 16

export interface Example {
  readonly ids: Int32Array
  readonly answer: number
}

/** Random tokens; the special one comes once, followed by the answer, and again as the last. */
export function inductionExample(length: number, seed: number): Example {
  const numbers = createNumbers(seed)
  const ids = Int32Array.from({ length }, () => numbers.integer(1, VOCAB_SIZE - 1))
  const place = numbers.integer(0, length - 3)
  ids[place] = SPECIAL
  ids[length - 1] = SPECIAL
  return { ids, answer: ids[place + 1] }
}

export function indexOfLargest(values: Float32Array): number {
  return values.reduce((best, value, i) => (value > values[best] ? i : best), 0)
}
