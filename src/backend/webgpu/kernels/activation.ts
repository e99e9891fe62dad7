/** out = f(x), or f(x) · by: silu, gelu by erf, and relu². */

import { GELU_0, GELU_1, GELU_2, GELU_3, GELU_4, GELU_5, GELU_6, GELU_7, GELU_P } from '../../../../assembly/abi.ts'
import type { ActivationFunction } from '../../../program/ops.ts'
import type { OpKernels } from '../kernel.ts'
import { elementKernel, elementOf, float } from './elements.ts'

/** exp(87) is finite still; beyond, silu is below 2e-36 in size. */
export const SILU = `
fn silu(x: f32) -> f32 { return x / (1.0 + exp(min(-x, 87.0))); }
`

/**
 * x · (1 + erf(x / √2)) / 2: the polynomial of assembly/math/gelu.ts, whose error is 2.3 · 2^-23 of |x|. WGSL's exp adds what the device's has, 3 + x² units
 * in the last place at most, to the part beside relu, which is largest, 0.17, at |x| = 0.75, and falls faster than they grow: under 1e-7.
 */
const GELU = `
fn gelu(x: f32) -> f32 {
  let size = abs(x);
  let t = 1.0 / (1.0 + ${float(GELU_P)} * size);
  var q = ${float(GELU_7)};
  ${[GELU_6, GELU_5, GELU_4, GELU_3, GELU_2, GELU_1, GELU_0].map((term) => `q = fma(t, q, ${float(term)});`).join('\n  ')}
  return max(x, 0.0) - t * q * exp(max(-0.5 * size * size, -87.0)) * size;
}
`

const RELU2 = `
fn relu2(x: f32) -> f32 { let positive = max(x, 0.0); return positive * positive; }
`

const FUNCTIONS: Readonly<Record<ActivationFunction, string>> = { silu: SILU, gelu: GELU, relu2: RELU2 }

/** The declaration of a function of its name. */
export function functionCode(f: ActivationFunction): string {
  return FUNCTIONS[f]
}

export const activation: OpKernels['activation'] = ({ x, by, function: f, out }, context) => {
  const at = (view: typeof x): string => elementOf(context, view)('row', 'i')
  return [elementKernel(context, { label: f, out, declarations: FUNCTIONS[f], body: `${at(out)} = ${f}(${at(x)})${by === null ? '' : ` * ${at(by)}`};` })]
}
