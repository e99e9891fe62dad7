/** The selective scan (Mamba, section 3.3): fused, in two forms. A token or a few go one by one (scan-steps.ts), more of them in tiles (scan-tiles.ts). */

import type { OpKernels } from '../kernel.ts'
import { planScan } from './scan-plan.ts'
import { scanSteps } from './scan-steps.ts'
import { scanTiles } from './scan-tiles.ts'

export const selectiveScan: OpKernels['selectiveScan'] = (op, context) => {
  const plan = planScan(op, context)
  return [scanSteps(plan, context), scanTiles(plan, context)]
}
