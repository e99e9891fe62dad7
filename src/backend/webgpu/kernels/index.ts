/** The kernels of every op. */

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
import { ssdScan } from './ssd-scan.ts'

export const OP_KERNELS: OpKernels = {
  embed,
  gatherRows,
  rmsNorm,
  linear,
  conv1d,
  selectiveScan,
  ssdScan,
  rotary,
  cacheKeyValue,
  attention,
  activation,
  scaledAdd,
  route,
  expertLinear,
  mixExperts
}
