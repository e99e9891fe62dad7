/** out = Σ_j weight_j · x_j over a row's choices in the order of their experts, or added to out. */

import type { OpKernels } from '../kernel.ts'
import { elementKernel, elementOf } from './elements.ts'

export const mixExperts: OpKernels['mixExperts'] = ({ x, choices, topK, accumulate, out }, context) => {
  const target = elementOf(context, out)('row', 'i')
  const weight = elementOf(context, choices)('row', `${topK}u + j`)
  return [elementKernel(context, {
    label: 'mixExperts', out,
    body: `
  var sum = 0.0;
  for (var j = 0u; j < ${topK}u; j++) { sum += ${weight} * ${elementOf(context, x)('row', `j * ${out.width}u + i`)}; }
  ${target} = sum${accumulate ? ` + ${target}` : ''};`
  })]
}
