/** Stores the keys and the values of the rows at their positions. */

import type { OpKernels } from '../kernel.ts'
import { elementKernel, elementOf } from './elements.ts'

export const cacheKeyValue: OpKernels['cacheKeyValue'] = ({ key, value, cache }, context) => [
  elementKernel(context, {
    label: 'cacheKeyValue', out: key,
    bindings: [{ kind: 'keys', cache }, { kind: 'values', cache }],
    declarations: `
@group(0) @binding(2) var<storage, read_write> keys: array<f32>;
@group(0) @binding(3) var<storage, read_write> values: array<f32>;`,
    body: `
  let segment = segmentOf(row);
  let place = (segment.cacheSlot * ${context.capacity.contextLength}u + segment.position + row - segment.firstRow) * ${cache.width}u + i;
  keys[place] = ${elementOf(context, key)('row', 'i')};
  values[place] = ${elementOf(context, value)('row', 'i')};`
  })
]
