/** Numbers for tests: the same ones for a seed, everywhere. */
import { createRandom } from '../../src/random.ts'

export interface Numbers {
  /** Uniform in [low, high). */
  float(low: number, high: number): number
  /** An integer from low to high, both included. */
  integer(low: number, high: number): number
  /** Uniform f32s in [low, high). */
  floats(count: number, low?: number, high?: number): Float32Array
  /** Lengths that add up to `total`, each from 1 to `most`. */
  parts(total: number, most?: number): number[]
}

export function createNumbers(seed: number): Numbers {
  const random = createRandom(seed)
  const float = (low: number, high: number): number => low + (high - low) * random.next()
  const integer = (low: number, high: number): number => low + Math.floor((high - low + 1) * random.next())
  return {
    float,
    integer,
    floats: (count, low = -1, high = 1) => Float32Array.from({ length: count }, () => float(low, high)),
    parts(total, most = total) {
      const parts: number[] = []
      for (let left = total; left > 0; left -= parts[parts.length - 1]) parts.push(integer(1, Math.min(left, most)))
      return parts
    }
  }
}
