/** The kernels of every op. */

import { UnsupportedError } from '../../../errors.ts'
import type { OpKind } from '../../../program/ops.ts'
import type { OpKernels } from '../kernel.ts'
import { embed } from './embed.ts'
import { expertLinear } from './expert-linear.ts'
import { linear } from './linear.ts'
import { scaledAdd } from './scaled-add.ts'

/** In place of what is not there yet. */
function missing(kind: OpKind): () => never {
  return () => {
    throw new UnsupportedError({ place: `op ${kind}`, expected: 'one that the WebGPU backend has', got: 'none' })
  }
}

export const OP_KERNELS: OpKernels = {
  embed,
  gatherRows: missing('gatherRows'),
  rmsNorm: missing('rmsNorm'),
  linear,
  conv1d: missing('conv1d'),
  selectiveScan: missing('selectiveScan'),
  ssdScan: missing('ssdScan'),
  rotary: missing('rotary'),
  cacheKeyValue: missing('cacheKeyValue'),
  attention: missing('attention'),
  activation: missing('activation'),
  scaledAdd,
  route: missing('route'),
  expertLinear,
  mixExperts: missing('mixExperts')
}
