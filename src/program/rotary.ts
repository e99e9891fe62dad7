/** Rotary positions (Su et al. 2021): the table of angles that every backend turns queries and keys by. */

import { exp, log, sinCos } from '../elementary.ts'

/**
 * Cosines, then sines, of one position: (2, rotaryDim / 2), rounded to f32. As transformers does it (`default` of its ROPE_INIT_FUNCTIONS):
 * the frequencies theta^(−2i / rotaryDim) and their products with the position are numbers of f32.
 */
export function rotaryRow(theta: number, rotaryDim: number, position: number): Float32Array {
  const half = rotaryDim / 2
  const row = new Float32Array(rotaryDim)
  for (let i = 0; i < half; i++) {
    const frequency = Math.fround(1 / Math.fround(exp((log(theta) * 2 * i) / rotaryDim)))
    const [sin, cos] = sinCos(Math.fround(frequency * position))
    row[i] = cos
    row[half + i] = sin
  }
  return row
}
