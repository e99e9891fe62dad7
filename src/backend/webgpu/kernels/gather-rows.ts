/** out[i] = x[the i-th row whose logits are asked for]. */

import type { OpKernels } from '../kernel.ts'
import { elementKernel, elementOf } from './elements.ts'

export const gatherRows: OpKernels['gatherRows'] = ({ x, out }, context) => [
  elementKernel(context, { label: 'gatherRows', out, body: `${elementOf(context, out)('row', 'i')} = ${elementOf(context, x)('tokenRowOf(row)', 'i')};` })
]
