/** Functions of one number in float64. */

import type { ActivationFunction } from '../../program/ops.ts'

export const activations: { readonly [F in ActivationFunction]: (x: number) => number } = {
  silu,
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  relu2: (x) => Math.max(x, 0) ** 2
}

/** 2/√π · exp(−x²) · Σ 2ⁿ x^(2n + 1) / (2n + 1)!!: all terms have one sign. ±1 to the last digit from 6 on. */
function erf(x: number): number {
  // NaN too, whose series would never end.
  if (!(Math.abs(x) < 6)) return Math.sign(x)
  let sum = 0
  for (let n = 0, term = x; sum + term !== sum; n++, term *= (2 * x * x) / (2 * n + 1)) sum += term
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum
}

/** PyTorch's: the identity above 20. */
export function softplus(x: number): number {
  return x > 20 ? x : Math.log1p(Math.exp(x))
}

export function silu(x: number): number {
  return x / (1 + Math.exp(-x))
}
