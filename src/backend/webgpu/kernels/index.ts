/** The kernels of every op. */

import { UnsupportedError } from '../../../errors.ts'
import type { OpKind } from '../../../program/ops.ts'
import type { OpKernels } from '../kernel.ts'
import { activation } from './activation.ts'
import { attention } from './attention.ts'
import { cacheKeyValue } from './cache-key-value.ts'
import { conv1d } from './conv1d.ts'
import { embed } from './embed.ts'
import { expertLinear } from './expert-linear.ts'
import { gatherRows } from './gather-rows.ts'
import { linear } from './linear.ts'
import { mixExperts } from './mix-experts.ts'
import { rmsNorm } from './rms-norm.ts'
import { rotary } from './rotary.ts'
import { route } from './route.ts'
import { scaledAdd } from './scaled-add.ts'
import { selectiveScan } from './selective-scan.ts'

/** In place of what is not there yet. */
function missing(kind: OpKind): () => never {
  return () => {
    throw new UnsupportedError({ place: `op ${kind}`, expected: 'one that the WebGPU backend has', got: 'none' })
  }
}

export const OP_KERNELS: OpKernels = {
  embed,
  gatherRows,
  rmsNorm,
  linear,
  conv1d,
  selectiveScan,
  ssdScan: missing('ssdScan'),
  rotary,
  cacheKeyValue,
  attention,
  activation,
  scaledAdd,
  route,
  expertLinear,
  mixExperts
}
