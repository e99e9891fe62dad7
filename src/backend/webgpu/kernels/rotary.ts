/** Turns pairs of columns by the angles of their rows' positions: a thread for each pair. */

import type { OpKernels } from '../kernel.ts'
import { elementKernel, elementOf } from './elements.ts'

export const rotary: OpKernels['rotary'] = ({ x, headDim, rotaryDim, theta, out }, context) => {
  const half = rotaryDim / 2
  const [source, target] = [x, out].map((view) => elementOf(context, view))
  return [elementKernel(context, {
    label: 'rotary', out, width: (x.width / headDim) * half,
    bindings: [{ kind: 'angles', rotary: { theta, rotaryDim } }],
    declarations: '@group(0) @binding(2) var<storage, read> angles: array<f32>;',
    body: `
  let k = i % ${half}u;
  let first = (i / ${half}u) * ${headDim}u + k;
  let second = first + ${half}u;
  let cosine = angles[row * ${rotaryDim}u + k];
  let sine = angles[row * ${rotaryDim}u + ${half}u + k];
  let a = ${source('row', 'first')};
  let b = ${source('row', 'second')};
  ${target('row', 'first')} = a * cosine - b * sine;
  ${target('row', 'second')} = b * cosine + a * sine;`
  })]
}
