/** The kernels of every op. */

import { UnsupportedError } from '../../../errors.ts'
import type { OpKind } from '../../../program/ops.ts'
import type { OpKernels } from '../kernel.ts'
import { scaledAdd } from './scaled-add.ts'

/** In place of what is not there yet. */
function missing(kind: OpKind): () => never {
  return () => {
    throw new UnsupportedError({ place: `op ${kind}`, expected: 'one that the WebGPU backend has', got: 'none' })
  }
}

export const OP_KERNELS: OpKernels = {
  embed: missing('embed'),
  gatherRows: missing('gatherRows'),
  rmsNorm: missing('rmsNorm'),
  linear: missing('linear'),
  conv1d: missing('conv1d'),
  selectiveScan: missing('selectiveScan'),
  ssdScan: missing('ssdScan'),
  rotary: missing('rotary'),
  cacheKeyValue: missing('cacheKeyValue'),
  attention: missing('attention'),
  activation: missing('activation'),
  scaledAdd,
  route: missing('route'),
  expertLinear: missing('expertLinear'),
  mixExperts: missing('mixExperts')
}
