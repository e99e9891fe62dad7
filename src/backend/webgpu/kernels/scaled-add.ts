/** out = factor · x, or added to out. */

import type { OpKernels } from '../kernel.ts'
import { elementKernel, elementOf, float } from './elements.ts'

export const scaledAdd: OpKernels['scaledAdd'] = ({ x, factor, accumulate, out }, context) => {
  const [target, source] = [out, x].map((view) => elementOf(context, view)('row', 'i'))
  return [elementKernel(context, { label: 'scaledAdd', out, body: `${target} = ${float(factor)} * ${source}${accumulate ? ` + ${target}` : ''};` })]
}
