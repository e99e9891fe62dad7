/** Mamba-2's state space: as its recurrence, ssd-steps.ts. */

import type { OpKernels } from '../kernel.ts'
import { planSsd } from './ssd-plan.ts'
import { ssdSteps } from './ssd-steps.ts'

export const ssdScan: OpKernels['ssdScan'] = (op, context) => {
  const plan = planSsd(op, context)
  return [ssdSteps(plan, context, { mostRows: Infinity })]
}
