/** Random numbers by the million, the same ones for a seed: for weights and inputs, whose exact distribution is of no weight. */

export interface Numbers {
  /** A number uniform in [low, high), on the logarithm of its size. */
  readonly logUniform: (low: number, high: number) => number
  /** An integer in [0, count). */
  readonly below: (count: number) => number
  /** Fills `values` uniformly between -limit and limit. */
  readonly uniform: (values: Float32Array, limit: number) => void
  /** Fills `values` normally around 0. */
  readonly normal: (values: Float32Array, deviation: number) => void
}

/** Random normal numbers are drawn from so many. */
const POOL_SIZE = 2 ** 16
let pool: Float32Array | undefined

/** A linear congruential generator (Numerical Recipes): a multiplication and an addition each. */
export function createNumbers(seed: number): Numbers {
  let state = Math.imul(seed, 0x9e3779b9) | 1
  const next = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0
    // The low bits have short periods.
    return (state >>> 8) / 2 ** 24
  }
  for (let i = 0; i < 8; i++) next()
  return {
    logUniform: (low, high) => low * (high / low) ** next(),
    below: (count) => Math.floor(next() * count),
    uniform(values, limit) {
      for (let i = 0; i < values.length; i++) values[i] = (2 * next() - 1) * limit
    },
    normal(values, deviation) {
      pool ??= normalPool()
      for (let i = 0; i < values.length; i++) values[i] = pool[Math.floor(next() * POOL_SIZE)] * deviation
    }
  }
}

/** By Box and Muller, two at a time, over evenly spread probabilities. */
function normalPool(): Float32Array {
  const values = new Float32Array(POOL_SIZE)
  const { below } = createNumbers(7)
  for (let i = 0; i < POOL_SIZE; i += 2) {
    const radius = Math.sqrt(-2 * Math.log((i + 1) / (POOL_SIZE + 1)))
    const angle = (2 * Math.PI * below(2 ** 20)) / 2 ** 20
    values[i] = radius * Math.cos(angle)
    values[i + 1] = radius * Math.sin(angle)
  }
  return values
}
