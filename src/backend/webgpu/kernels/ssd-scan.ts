/**
 * Mamba-2's state space: as its recurrence (ssd-steps.ts, of single rows ssd-token.ts), or, asked for, long segments as matrix products over chunks of tokens (ssd-chunks.ts): 80 heads
 * of 64 channels and 128 states took an H200 215 and 137 us for 512 tokens, 910 and 476 us for 2048 (bench/webgpu/ssd.ts).
 */

import type { OpKernels } from '../kernel.ts'
import { ssdChunks } from './ssd-chunks.ts'
import { planSsd, SSD_LEAST_ROWS } from './ssd-plan.ts'
import { ssdSteps } from './ssd-steps.ts'
import { ssdToken } from './ssd-token.ts'

export const ssdScan: OpKernels['ssdScan'] = (op, context) => {
  const plan = planSsd(op, context)
  const chunks = context.ssd === 'chunked' ? ssdChunks(plan, context) : null
  const steps = ssdSteps(plan, context, { leastRows: 2, mostRows: chunks === null ? Infinity : SSD_LEAST_ROWS - 1 })
  return [ssdToken(plan, context), steps, ...(chunks ?? [])]
}
